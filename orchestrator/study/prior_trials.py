"""Trials of other sweeps among a study's notes, which nothing but its sampler ever sees."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.study.samplers import as_trial
from search_spaces.sweep import Sweep

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_LESSONS = "lessons:"
#: Some databases hold no more than 64 kB in a note.
_LESSONS_PER_NOTE = 50
#: The note that is written last: where it is, all are.
LAST = f"{_LESSONS}0"


def as_notes(trials: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Keys and texts that keep `trials`, `{params, values}` with scores by images, in the order to be written."""
    for start in reversed(range(0, max(1, len(trials)), _LESSONS_PER_NOTE)):
        yield f"{_LESSONS}{start}", json.dumps(trials[start : start + _LESSONS_PER_NOTE])


def among(notes: Mapping[str, Any], sweep: Sweep) -> list[FrozenTrial]:
    """The trials of other sweeps as trials of `sweep`; their numbers are below nought."""
    texts = [notes[key] for key in sorted(notes) if key.startswith(_LESSONS)]
    known = [lesson for text in texts for lesson in json.loads(text)]
    return [as_trial(sweep, -1 - index, lesson) for index, lesson in enumerate(known)]
