"""Freeze-thaw: every trial is paused after a slice, and the most promising ones go on. The default pruner."""

from __future__ import annotations

import heapq
import math
from bisect import insort
from typing import ClassVar, Literal

from pydantic import Field

from search_spaces.pruners.pausing import PausingPolicy
from search_spaces.pruners.rule import Choice, Curve, Policy, Pruner


class FreezeThaw(Pruner):
    """Pauses every trial after a slice and goes on with the most promising ones; it stops no trial for good."""

    name: Literal["freeze-thaw"] = "freeze-thaw"
    share: float = Field(default=0.65, gt=0, lt=1, description="share of slices that begin new trials")
    optimism: float = Field(
        default=0.5, ge=0, description="expected further drop of a trial's cost, in units of its last drop"
    )
    growth: float = Field(default=1.25, gt=1, description="how many times as long a trial is after its next slice")
    pauses: ClassVar[bool] = True

    def policy(self) -> Policy:
        return FreezeThawPolicy(self.share, self.optimism, self.growth)


class FreezeThawPolicy(PausingPolicy):
    """Freeze-thaw by an optimistic bound (after Swersky, Snoek and Adams, 2014, with a curve of two points).

    `share` of all slices are first slices of new trials. The others go to the paused trial with the least bound
    best - optimism * drop. `best` is its least cost, `drop` is how much that fell in the last half of its steps: a cost
    that still falls fast may fall as much again. A trial at its first rung has no earlier cost; the median of all first
    costs is used instead.
    """

    def __init__(self, share: float, optimism: float, growth: float) -> None:
        super().__init__(growth)
        self._share, self._optimism = share, optimism
        self._starts = self._slices = 0
        self._first_values: list[float] = []
        # Among trials at their first rung the order of the bounds is that of the costs, whatever the median is.
        self._at_first_rung: list[tuple[float, int]] = []
        self._later: list[tuple[float, int]] = []
        self._entries: dict[int, tuple[float, int]] = {}
        """The entries of paused trials; all other entries of the heaps are out of date."""

    def started(self, number: int) -> None:
        self._starts += 1
        self._slices += 1

    def paused(self, number: int, curve: Curve) -> None:
        best, last = curve.cost(), curve.steps[-1]
        if math.isinf(best):
            return  # without a score it is never resumed
        self._waiting[number] = best
        earlier = curve.cost(last / 2)
        if math.isinf(earlier):
            insort(self._first_values, best)
            heap, entry = self._at_first_rung, (best, number)
        else:
            heap, entry = self._later, (best - self._optimism * (earlier - best), number)
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
        for heap in (self._at_first_rung, self._later):
            while heap and self._entries.get(heap[0][1]) != heap[0]:
                heapq.heappop(heap)
        if not self._at_first_rung:
            return self._later[0][1]
        best, number = self._at_first_rung[0]
        median = self._first_values[len(self._first_values) // 2]
        bound = best - self._optimism * max(0.0, median - best)
        return self._later[0][1] if self._later and self._later[0][0] < bound else number
