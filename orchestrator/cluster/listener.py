"""Who is told of what happens to trials."""

from __future__ import annotations

from typing import Protocol

from orchestrator.decisions.failures import Failure


class Listener(Protocol):
    """Told, in the driver's process, what the study already knows."""

    def changed(self, number: int) -> None:
        """Trial `number` has begun, passed a rung or ended."""

    def failed(self, number: int, failure: Failure) -> None:
        """An attempt at trial `number` failed, which may go on all the same."""

    def scored(self, number: int) -> None:
        """The best checkpoint of trial `number` has been scored again, or could not be."""
