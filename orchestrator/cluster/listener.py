"""The interface by which the cluster reports what happens to trials."""

from __future__ import annotations

from typing import Protocol

from orchestrator.decisions.failures import Failure


class Listener(Protocol):
    """Gets a call in the driver's process for each change, after the study has recorded it."""

    def changed(self, number: int) -> None:
        """Trial `number` has begun, passed a rung or ended."""

    def failed(self, number: int, failure: Failure) -> None:
        """An attempt at trial `number` failed; the trial may go on."""

    def scored(self, number: int) -> None:
        """The best checkpoint of trial `number` was scored again, or that failed."""
