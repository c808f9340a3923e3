"""What the records of a journal may hold: Optuna's operations, and in them the notes of this program.

It is used for records without a checksum, which earlier releases wrote. docs/formats.md specifies the notes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from optuna.distributions import json_to_distribution
from optuna.trial import TrialState, create_trial
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from orchestrator.decisions.failures import FAILURES, LOG, Failure
from orchestrator.study.lease import CLAIM, Claim
from orchestrator.study.records import FAULT, NODES, PAUSED, REASON, RUNG, Final
from orchestrator.study.requests import Request, budget_of
from search_spaces.settings import Budget
from search_spaces.sweep import read_kept
from trainers.errors import InputError
from trainers.evaluation.scores import METRICS
from trainers.rungs import Rung

#: A whole number as a key of JSON.
Number = Annotated[str, Field(pattern="^[0-9]+$")]


class _PriorTrial(BaseModel):
    """A trial of an earlier sweep in a note, with its scores by images."""

    model_config = ConfigDict(extra="forbid")
    params: dict[str, Any]
    values: dict[Number, float]


_PRIOR_TRIALS = TypeAdapter(list[_PriorTrial])


def read_prior_trials(text: str) -> list[dict[str, Any]]:
    """The trials of earlier sweeps that a note keeps. Raises ValueError if it is damaged."""
    return [prior.model_dump() for prior in _PRIOR_TRIALS.validate_json(text)]


def _dated(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Date = Annotated[str, AfterValidator(_dated)]
Note = Annotated[dict[str, Any], Field(min_length=1, max_length=1)]
Place = Annotated[int, Field(ge=0)]


class _Operation(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)

    worker_id: str


class _OfStudy(_Operation):
    study_id: Literal[0]
    """A journal has one study."""


class _OfTrial(_Operation):
    trial_id: Place


class _CreateStudy(_Operation):
    op_code: Literal[0]
    study_name: str
    directions: Annotated[list[Literal[1, 2]], Field(min_length=1)]


class _DeleteStudy(_OfStudy):
    op_code: Literal[1]


class _StudyNote(_OfStudy):
    op_code: Literal[2]
    user_attr: Note


class _StudySystemNote(_OfStudy):
    op_code: Literal[3]
    system_attr: Note


class _CreateTrial(_OfStudy):
    """All but the start is there only if a trial is created with its results."""

    op_code: Literal[4]
    datetime_start: Date | None
    datetime_complete: Date | None = None
    state: Literal[0, 1, 2, 3, 4] = 0
    value: float | None = None
    values: list[float] | None = None
    params: dict[str, float] = {}
    distributions: dict[str, str] = {}
    user_attrs: dict[str, Any] = {}
    system_attrs: dict[str, Any] = {}
    intermediate_values: dict[Number, float] = {}


class _Parameter(_OfTrial):
    op_code: Literal[5]
    param_name: str
    param_value_internal: float
    distribution: str


class _State(_OfTrial):
    op_code: Literal[6]
    state: Literal[0, 1, 2, 3, 4]
    values: list[float] | None
    datetime_start: Date | None = None
    datetime_complete: Date | None = None

    @model_validator(mode="after")
    def _has_its_date(self) -> Self:
        """A trial that begins has a start, one that has ended an end."""
        state = TrialState(self.state)
        if state == TrialState.RUNNING and self.datetime_start is None:
            raise ValueError("datetime_start is missing")
        if state.is_finished() and self.datetime_complete is None:
            raise ValueError("datetime_complete is missing")
        return self


class _IntermediateValue(_OfTrial):
    op_code: Literal[7]
    step: Place
    intermediate_value: float


class _TrialNote(_OfTrial):
    op_code: Literal[8]
    user_attr: Note


class _TrialSystemNote(_OfTrial):
    op_code: Literal[9]
    system_attr: Note


_Record = Annotated[
    _CreateStudy
    | _DeleteStudy
    | _StudyNote
    | _StudySystemNote
    | _CreateTrial
    | _Parameter
    | _State
    | _IntermediateValue
    | _TrialNote
    | _TrialSystemNote,
    Field(discriminator="op_code"),
]
_RECORD: TypeAdapter[Any] = TypeAdapter(_Record)


def _typed(kind: Any, read: Callable[[Any], Any], plain: Callable[[Any], Any] = asdict) -> Callable[[Any], None]:
    """Reads a note by `read` and checks the types of all its values, without turning one type into another."""
    adapter = TypeAdapter(kind)

    def check(note: Any) -> None:
        adapter.validate_json(json.dumps(plain(read(note))), strict=True)

    return check


def _plain(kind: Any) -> Callable[[Any], None]:
    return TypeAdapter(kind).validate_python


def _rung(note: dict[str, Any]) -> None:
    _whole_rung(note)
    _check_metrics(note["scores"])


def _final(note: dict[str, Any]) -> None:
    if FAULT in note:
        _text(note[FAULT])
        return
    _whole_final(note)
    for scores in (note["ours"], note["official"]):
        _check_metrics(scores)


def _check_metrics(scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises ValueError unless each of `scores` is of the metric that it has for a key."""
    if strange := [key for key, score in scores.items() if key not in METRICS or score["metric"] != key]:
        raise ValueError(f"{strange[0]} is no metric, or its score is of another one")


_text, _whole = _plain(Annotated[str, Field(strict=True)]), _plain(StrictInt)
_failure = _typed(Failure, lambda note: Failure(**note))
_whole_final = _typed(Final, Final.from_json)
_whole_rung = _typed(Rung, Rung.from_json)
_Notes = Mapping[str, Callable[[Any], object]]
#: How the value of a note is examined, by the beginning of its key. Notes of other programs have other keys.
_OF_STUDY: _Notes = {
    "sweep": read_kept,
    "format": _whole,
    "id": _text,
    CLAIM: _typed(Claim, lambda note: Claim(**note)),
    "request:": _typed(Request, lambda note: Request(**note)),
    "budget": lambda note: budget_of(Budget(), {"budget": note}),
    "lessons:": read_prior_trials,
    "final:": _final,
    "trials per GPU": _whole,
}
_OF_TRIAL: _Notes = {
    "attempt": _whole,
    RUNG: _rung,
    "verdict:": _plain(StrictBool),
    PAUSED: _plain(StrictBool),
    REASON: _text,
    FAILURES: lambda note: [_failure(each) for each in note],
    LOG: _text,
    NODES: _plain(list[str]),
}
#: The beginnings of the keys that end with a number; a request has a time and random digits.
_NUMBERED = frozenset(start for start in (*_OF_STUDY, *_OF_TRIAL) if start.endswith(":") and start != "request:")


def fault_in(record: Mapping[str, Any]) -> str | None:
    """What is wrong with a record, in words that follow the number of its line; None if nothing is."""
    try:
        _RECORD.validate_python(record)
        if "distribution" in record:
            _check_parameter(record)
    except ValidationError as error:
        found = error.errors()[0]
        place = ".".join(str(part) for part in found["loc"][1:])
        return f"is no record of a study: {place + ': ' if place else ''}{found['msg']}"
    except (ValueError, LookupError, TypeError, AttributeError):  # Optuna's, for a distribution or a value
        return "has a parameter that cannot be read"
    for key, value in record.get("user_attr", {}).items():
        known = _OF_TRIAL if "trial_id" in record else _OF_STUDY
        start = next((start for start in known if key.startswith(start)), None)
        try:
            if start is not None:
                known[start](value)
                _check_number(start, key.removeprefix(start), value)
        # Whatever a reader of notes raises if a value is missing or of another kind.
        except (InputError, ValueError, LookupError, TypeError, AttributeError):
            return f"has a note {key} that cannot be read"
    return None


def _check_number(start: str, rest: str, value: Any) -> None:
    """Raises ValueError if the key of a note, `start` and `rest`, has no number, or another one than its value."""
    if start in _NUMBERED and not (rest.isascii() and rest.isdecimal()):
        raise ValueError(f"{rest} is no number")
    if (field := {RUNG: "images", CLAIM: "epoch"}.get(start)) and rest != str(value[field]):
        raise ValueError(f"{rest} is not {field} of the note")


def _check_parameter(record: Mapping[str, Any]) -> None:
    """Raises what Optuna raises if the value is not one of its distribution's."""
    name, distribution = record["param_name"], json_to_distribution(record["distribution"])
    params = {name: distribution.to_external_repr(record["param_value_internal"])}
    create_trial(value=0.0, params=params, distributions={name: distribution})
