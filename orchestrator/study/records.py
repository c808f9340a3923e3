"""What a study keeps of each of its trials, and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orchestrator.decisions.failures import LOG, Failure, failures_of
from orchestrator.decisions.objectives import gpu_hours
from search_spaces.settings import GPU_HOURS
from search_spaces.space import Dimension, suggest
from search_spaces.sweep import Sweep
from trainers.evaluation.scores import Score
from trainers.rungs import Rung, best_rung

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

REASON = "reason"
RUNG = "rung:"
"""Start of the key of the note on a rung; its images follow."""
PAUSED = "paused"
"""The note on a trial that waits for its next slice."""
FAULT = "fault"
NODES = "nodes"


@dataclass(frozen=True)
class Final:
    """The scores of one set of images, made by the generator of a trial's best rung."""

    images: int
    """Images that the generator had been trained on."""
    ours: dict[str, Score]
    """`fid` and `kid` as at every rung."""
    official: dict[str, Score]
    """The same by clean-fid."""
    seconds: float
    """Time to make and score the images."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Final:
        both = {key: {name: Score(**score) for name, score in record[key].items()} for key in ("ours", "official")}
        return cls(**{**record, **both})


@dataclass(frozen=True)
class TrialRecord:
    """What the study knows of one trial."""

    number: int
    state: str
    """running, paused, complete, pruned or failed."""
    params: dict[str, Any]
    rungs: tuple[Rung, ...]
    """In order of images; empty before the first."""
    best: Rung | None
    """The rung with the best score; None before the first sound rung."""
    reason: str | None
    """Why it was pruned or failed."""
    final: Final | None = None
    """The scores of its best checkpoint at the end of the sweep; None if there are none."""
    final_fault: str | None = None
    """Why its best checkpoint could not be scored."""
    started: datetime | None = None
    """When it was asked for, local time."""
    failures: tuple[Failure, ...] = ()
    """The failures of its attempts, in order."""
    log: str = ""
    """The end of the output of its last process that died."""
    gpu_hours: tuple[float, ...] = ()
    """GPU-hours up to each of its rungs; empty if they are no objective."""
    nodes: tuple[str, ...] = ()
    """Nodes of the workers of its last attempt, as ADDRESS/ID; empty before its first report."""
    params_known: bool = True
    """False if values of `params` are None because a driver died while it asked for them, or because they are lost."""


class TrialCache:
    """Keeps the result of `work` for each trial until the trial or the context changes."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work = work
        self._kept: dict[int, tuple[FrozenTrial, tuple[Any, ...], Any]] = {}

    def __call__(self, trial: FrozenTrial, *context: Any) -> Any:
        kept = self._kept.get(trial.number)
        if kept is None or kept[0] is not trial or kept[1] != context:
            kept = self._kept[trial.number] = trial, context, self._work(trial, *context)
        return kept[2]


class TrialReader:
    """Reads the trials of one study. It keeps rungs, which never change, and records until their trial is replaced."""

    def __init__(self, sweep: Sweep) -> None:
        self._rungs: dict[int, dict[str, Rung]] = {}
        self._record = TrialCache(lambda trial: _record(sweep, trial, self.rungs(trial.number, trial.user_attrs)))

    def rungs(self, number: int, attributes: Mapping[str, Any]) -> tuple[Rung, ...]:
        """The rungs among the attributes of trial `number`, in order of images."""
        known = self._rungs.setdefault(number, {})
        for key, note in attributes.items():
            if key.startswith(RUNG) and key not in known:
                known[key] = Rung.from_json(note)
        return tuple(sorted(known.values(), key=lambda rung: rung.images))

    def record(self, trial: FrozenTrial, final: dict[str, Any]) -> TrialRecord:
        """The record of `trial`; `final` is the note on its final scores, empty if there is none."""
        record: TrialRecord = self._record(trial)
        if FAULT in final:
            return replace(record, final_fault=final[FAULT])
        return replace(record, final=Final.from_json(final)) if final else record


def _record(sweep: Sweep, trial: FrozenTrial, rungs: tuple[Rung, ...]) -> TrialRecord:
    return TrialRecord(
        number=trial.number,
        state=_state(trial),
        params=suggest(sweep.space, lambda dimension: trial.params.get(dimension.name)),
        rungs=rungs,
        best=best_rung(rungs, sweep.score.metric),
        reason=trial.user_attrs.get(REASON),
        started=trial.datetime_start,
        failures=failures_of(trial.user_attrs),
        log=trial.user_attrs.get(LOG, ""),
        gpu_hours=gpu_hours(sweep, notes_of(trial.user_attrs)) if GPU_HOURS in sweep.objectives else (),
        nodes=tuple(trial.user_attrs.get(NODES, ())),
        params_known=not missing_params(sweep, trial.params),
    )


def missing_params(sweep: Sweep, params: Mapping[str, Any]) -> list[str]:
    """Names of the dimensions of the space that a trial with `params` must have and has no value of."""
    missing: list[str] = []

    def pick(dimension: Dimension) -> Any:
        if dimension.name not in params:
            missing.append(dimension.name)
        return params.get(dimension.name)

    suggest(sweep.space, pick)
    return missing


def attributes_of(trial: Trial | FrozenTrial) -> Mapping[str, Any]:
    """The user attributes of a trial, not copied: `Trial.user_attrs` would copy all of them at each look."""
    attributes: Mapping[str, Any] = getattr(trial, "_cached_frozen_trial", trial).user_attrs
    return attributes


def notes_of(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rungs among a trial's attributes as plain JSON, in order of images."""
    found = [note for key, note in attributes.items() if key.startswith(RUNG)]
    return sorted(found, key=lambda note: int(note["images"]))


def _state(trial: FrozenTrial) -> str:
    if trial.state.name == "RUNNING" and trial.user_attrs.get(PAUSED):
        return "paused"
    return str({"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower()))
