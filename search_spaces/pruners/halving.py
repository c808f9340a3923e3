"""Successive halving that pauses trials and promotes the best."""

from __future__ import annotations

import math
from bisect import insort
from typing import ClassVar, Literal

from pydantic import Field

from search_spaces.pruners.pausing import PausingPolicy
from search_spaces.pruners.rule import Choice, Curve, Policy, Pruner


class Halving(Pruner):
    """Asynchronous successive halving (Li et al., 2020) that pauses and promotes."""

    name: Literal["halving"] = "halving"
    reduction: int = Field(default=4, ge=2, description="one trial in this many is promoted")
    pauses: ClassVar[bool] = True

    def policy(self) -> Policy:
        return HalvingPolicy(self.reduction)


class HalvingPolicy(PausingPolicy):
    """Asynchronous successive halving (Li et al., 2020) that pauses trials instead of stopping them.

    At each length the best 1/`reduction` of the trials that reached it are promoted, those at the greatest length
    first. If no trial can be promoted, a new one starts.
    """

    def __init__(self, reduction: int) -> None:
        super().__init__(reduction)
        self._reduction = reduction
        self._lengths: list[list[tuple[float, int]]] = []
        """Cost and number of the trials that were paused for the first, second, ... time, best first."""
        self._pauses: dict[int, int] = {}

    def started(self, number: int) -> None:
        self._pauses[number] = 0

    def paused(self, number: int, curve: Curve) -> None:
        best, level = curve.cost(), self._pauses[number]
        self._pauses[number] = level + 1
        while len(self._lengths) <= level:
            self._lengths.append([])
        insort(self._lengths[level], (best, number))
        if not math.isinf(best):
            self._waiting[number] = best

    def choose(self, may_start: bool) -> Choice:
        for level in reversed(range(len(self._lengths))):
            reached = self._lengths[level]
            for _, number in reached[: len(reached) // self._reduction]:
                if number in self._waiting and self._pauses[number] == level + 1:
                    self.resumed(number)
                    return number
        if may_start:
            return "start"
        leader = self._leader()
        if leader is not None:
            self.resumed(leader)
        return leader
