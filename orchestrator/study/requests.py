"""Requests that people make of a sweep from any shell or machine: notes on its study, which the driver reads."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from orchestrator.decisions.budget import extended
from search_spaces.settings import Budget

Kind = Literal["stop", "pause", "add-trials"]
STOPPED_BY_USER = "stopped by user"

_PREFIX = "request:"
_BUDGET = "budget"


@dataclass(frozen=True)
class Request:
    """One thing asked of a sweep."""

    kind: Kind
    epoch: int | None = None
    """Epoch of the driver that must stop or pause; later drivers ignore the request."""
    trial: int | None = None
    """The trial to stop; None for the whole sweep."""
    trials: int | None = None
    """How many trials to add."""
    by: str = ""
    at: float = 0.0
    """Unix time."""


def as_note(request: Request) -> tuple[str, dict[str, Any]]:
    """Key and value of the note that keeps `request`, with host and time; the keys sort by time."""
    note = asdict(request) | {"by": socket.gethostname(), "at": time.time()}
    return f"{_PREFIX}{time.time_ns()}-{uuid.uuid4().hex[:8]}", note


def requests(notes: Mapping[str, Any]) -> dict[str, Request]:
    """The requests among a study's notes, oldest first."""
    return {key: Request(**notes[key]) for key in sorted(notes) if key.startswith(_PREFIX)}


def asked_to_leave(notes: Mapping[str, Any], epoch: int) -> Literal["stop", "pause"] | None:
    """Whether the driver of `epoch` must stop the sweep or pause; a stop overrides a pause."""
    asked = {r.kind for r in requests(notes).values() if r.epoch == epoch and r.trial is None}
    return "stop" if "stop" in asked else "pause" if "pause" in asked else None


def stopped_trials(notes: Mapping[str, Any]) -> set[int]:
    """Numbers of the trials that must end at their next rungs."""
    return {r.trial for r in requests(notes).values() if r.kind == "stop" and r.trial is not None}


def budget_note(budget: Budget, notes: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Key and value of the note that a sweep was launched with `budget`, which includes the trials added so far."""
    return _BUDGET, {"budget": budget.model_dump(mode="json"), "absorbed": list(_additions(notes))}


def budget_in_file(original: Budget, notes: Mapping[str, Any]) -> Budget:
    """The budget of the file that was launched last."""
    return Budget.model_validate(notes[_BUDGET]["budget"]) if _BUDGET in notes else original


def trials_added(notes: Mapping[str, Any]) -> int:
    """How many trials were added to the budget in the file."""
    absorbed: Sequence[str] = notes[_BUDGET]["absorbed"] if _BUDGET in notes else ()
    return sum(trials for key, trials in _additions(notes).items() if key not in absorbed)


def budget_of(original: Budget, notes: Mapping[str, Any]) -> Budget:
    """The budget in force."""
    return extended(budget_in_file(original, notes), trials_added(notes))


def _additions(notes: Mapping[str, Any]) -> dict[str, int]:
    return {key: r.trials or 0 for key, r in requests(notes).items() if r.kind == "add-trials"}
