"""What the pruners that pause trials share.

No decision is final: a paused trial frees its place and may be resumed later, so it may be paused at the first
rung already.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from search_spaces.pruners.rule import Curve


class PausingPolicy:
    """Which trials wait, which one leads, and when the search has gone on long enough."""

    def __init__(self, growth: float) -> None:
        self._growth = growth
        self._waiting: dict[int, float] = {}
        """Least costs of the paused trials, by number."""
        self._best_ended = math.inf
        """Least cost of the trials that have ended."""

    def resumed(self, number: int) -> None:
        """Trial `number` waits no longer."""
        del self._waiting[number]

    def ended(self, number: int, curve: Curve) -> None:
        """Trial `number` is complete, pruned or failed."""
        self._best_ended = min(self._best_ended, curve.cost())

    def target(self, rungs: Sequence[int], passed: int) -> int:
        """The first rung that is at least `growth` times `passed`; for a new trial the first of all."""
        return next((rung for rung in rungs if rung > passed and rung >= self._growth * passed), rungs[-1])

    def _leader(self) -> int | None:
        """The paused trial that is better than every trial that has ended; None if there is none.

        After the last new trial the search goes on until its leader has been trained to the end.
        """
        number = min(self._waiting, key=lambda n: (self._waiting[n], n), default=None)
        return number if number is not None and self._waiting[number] < self._best_ended else None
