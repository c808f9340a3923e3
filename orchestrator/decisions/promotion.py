"""Which trial is trained next: a new one, or a paused one that goes on from its checkpoint.

Nothing here is final: a paused trial gives its place free and may be promoted later, so it may be paused at the first
rung already. Values are such that less is better; steps are images, epochs, or whatever a rung is counted in.
"""

from __future__ import annotations

import heapq
import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from search_spaces.settings import FreezeThaw, Halving, Pruner

#: A number of a paused trial, a new trial, or nothing at the moment.
Choice = int | Literal["start"] | None


@dataclass(frozen=True)
class Curve:
    """What a trial has shown so far, rung by rung."""

    steps: tuple[int, ...]
    """Increasing."""
    values: tuple[float, ...]
    """As many; less is better, infinite where there is none."""

    def best(self, until: float = math.inf) -> float:
        """The least value up to a step; infinite without any."""
        return min((v for s, v in zip(self.steps, self.values, strict=True) if s <= until), default=math.inf)


class Policy(Protocol):
    """Told of every start, halt and end of a trial, it says which one is next."""

    def started(self, number: int) -> None:
        """Trial `number` has begun."""

    def halted(self, number: int, curve: Curve) -> None:
        """Trial `number` has reached the end of its slice and waits."""

    def resumed(self, number: int) -> None:
        """Trial `number` waits no longer; `choose` says so itself."""

    def ended(self, number: int, curve: Curve) -> None:
        """Trial `number` is complete, pruned or failed."""

    def target(self, rungs: Sequence[int], passed: int) -> int:
        """The rung where a trial that has passed `passed` steps halts next; the last one is the end."""

    def choose(self, may_start: bool) -> Choice:
        """The next trial; `may_start` says whether the budget allows a new one."""


class ToTheEnd:
    """Nothing is ever paused: trials run to the last rung unless they are stopped for good."""

    def started(self, number: int) -> None:
        """Nothing to keep."""

    def halted(self, number: int, curve: Curve) -> None:
        """Likewise."""

    def resumed(self, number: int) -> None:
        """Likewise."""

    def ended(self, number: int, curve: Curve) -> None:
        """Likewise."""

    def target(self, rungs: Sequence[int], passed: int) -> int:
        return rungs[-1]

    def choose(self, may_start: bool) -> Choice:
        return "start" if may_start else None


class _Pausing:
    """What both policies share: who waits, who leads, and when enough is enough."""

    def __init__(self, growth: float) -> None:
        self._growth = growth
        self._waiting: dict[int, float] = {}
        """Best values of paused trials."""
        self._best_ended = math.inf

    def resumed(self, number: int) -> None:
        del self._waiting[number]

    def ended(self, number: int, curve: Curve) -> None:
        self._best_ended = min(self._best_ended, curve.best())

    def target(self, rungs: Sequence[int], passed: int) -> int:
        """The first rung that is `growth` times as long; the first of all for a new trial."""
        return next((rung for rung in rungs if rung > passed and rung >= self._growth * passed), rungs[-1])

    def _leader(self) -> int | None:
        """The paused trial that is better than every one that has ended; None where there is none.

        Without new trials a search goes on until its leader has been trained to the end.
        """
        number = min(self._waiting, key=lambda n: (self._waiting[n], n), default=None)
        return number if number is not None and self._waiting[number] < self._best_ended else None


class Thawing(_Pausing):
    """Freeze-thaw by an optimistic bound (after Swersky, Snoek and Adams, 2014, with a curve of two points).

    `share` of all slices are first ones of new trials. The others go to the paused trial with the least
    best - optimism * drop, where drop is what its best value fell by in the last half of its steps: what still falls
    fast may fall as much again. At its first rung a trial has no past; the median of all first values stands for it.
    """

    def __init__(self, share: float, optimism: float, growth: float) -> None:
        super().__init__(growth)
        self._share, self._optimism = share, optimism
        self._starts = self._slices = 0
        self._first_values: list[float] = []
        # Among first rungs the order is that of the values, whatever their median is when it is asked for.
        self._young: list[tuple[float, int]] = []
        self._old: list[tuple[float, int]] = []
        self._entries: dict[int, tuple[float, int]] = {}
        """Of waiting trials: what else lies in the heaps is out of date."""

    def started(self, number: int) -> None:
        self._starts += 1
        self._slices += 1

    def halted(self, number: int, curve: Curve) -> None:
        best, last = curve.best(), curve.steps[-1]
        if math.isinf(best):
            return  # never promoted
        self._waiting[number] = best
        earlier = curve.best(last / 2)
        if math.isinf(earlier):
            insort(self._first_values, best)
            heap, entry = self._young, (best, number)
        else:
            heap, entry = self._old, (best - self._optimism * (earlier - best), number)
        self._entries[number] = entry
        heapq.heappush(heap, entry)

    def resumed(self, number: int) -> None:
        super().resumed(number)
        self._slices += 1
        del self._entries[number]

    def choose(self, may_start: bool) -> Choice:
        if may_start and (not self._waiting or self._starts <= self._share * self._slices):
            return "start"
        enough = not may_start and self._share * self._slices >= self._starts
        if not self._waiting or (enough and self._leader() is None):
            return None
        number = self._first()
        self.resumed(number)
        return number

    def _first(self) -> int:
        """The waiting trial with the least bound."""
        for heap in (self._young, self._old):
            while heap and self._entries.get(heap[0][1]) != heap[0]:
                heapq.heappop(heap)
        if not self._young:
            return self._old[0][1]
        best, number = self._young[0]
        median = self._first_values[len(self._first_values) // 2]
        bound = best - self._optimism * max(0.0, median - best)
        return self._old[0][1] if self._old and self._old[0][0] < bound else number


class Promoting(_Pausing):
    """Asynchronous successive halving (Li et al., 2020) whose losers wait instead of being stopped.

    At each length the best 1/`reduction` of the trials that reached it are promoted, those at the greatest length
    first; where there is none to promote, a new trial starts.
    """

    def __init__(self, reduction: int) -> None:
        super().__init__(reduction)
        self._reduction = reduction
        self._lengths: list[list[tuple[float, int]]] = []
        """For each number of halts the trials that came so far, best first."""
        self._halts: dict[int, int] = {}

    def started(self, number: int) -> None:
        self._halts[number] = 0

    def halted(self, number: int, curve: Curve) -> None:
        best, level = curve.best(), self._halts[number]
        self._halts[number] = level + 1
        while len(self._lengths) <= level:
            self._lengths.append([])
        insort(self._lengths[level], (best, number))
        if not math.isinf(best):
            self._waiting[number] = best

    def choose(self, may_start: bool) -> Choice:
        for level in reversed(range(len(self._lengths))):
            came = self._lengths[level]
            for _, number in came[: len(came) // self._reduction]:
                if number in self._waiting and self._halts[number] == level + 1:
                    self.resumed(number)
                    return number
        if may_start:
            return "start"
        leader = self._leader()
        if leader is not None:
            self.resumed(leader)
        return leader


def halt_after(policy: Policy, rungs: Sequence[int], passed: int) -> int:
    """The end of the slice in which a trial is that has passed `passed` steps and does not wait."""
    target = 0
    while target <= passed and target < rungs[-1]:
        target = policy.target(rungs, target)
    return target


def policy_of(pruner: Pruner) -> Policy:
    """The policy of a sweep's pruner."""
    if isinstance(pruner, FreezeThaw):
        return Thawing(pruner.share, pruner.optimism, pruner.growth)
    if isinstance(pruner, Halving):
        return Promoting(pruner.reduction)
    return ToTheEnd()
