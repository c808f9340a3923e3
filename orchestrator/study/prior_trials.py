"""The prior trials of a warm start: trials of other sweeps, kept among a study's notes for its sampler alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.study.record_shapes import read_prior_trials
from orchestrator.study.samplers import as_trial
from search_spaces.sweep import Sweep
from trainers.errors import InputError

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_PREFIX = "lessons:"
#: Prior trials in one note: some databases limit it to 64 kB.
_PER_NOTE = 50
#: The note that is written last: if it is there, all are.
LAST = f"{_PREFIX}0"


def as_notes(trials: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Keys and texts that keep `trials`, `{params, values}` with scores by images; to be written in this order."""
    for start in reversed(range(0, max(1, len(trials)), _PER_NOTE)):
        yield f"{_PREFIX}{start}", json.dumps(trials[start : start + _PER_NOTE])


def from_notes(notes: Mapping[str, Any], sweep: Sweep) -> list[FrozenTrial]:
    """The prior trials in `notes` as trials of `sweep`, with negative numbers.

    Raises InputError if they are damaged.
    """
    texts = [notes[key] for key in sorted(notes) if key.startswith(_PREFIX)]
    try:
        known = [prior for text in texts for prior in read_prior_trials(text)]
        return [as_trial(sweep, -1 - index, prior) for index, prior in enumerate(known)]
    except ValueError as error:
        reason = str(error).splitlines()[0]
        found = f"the trials of earlier sweeps that its study keeps are damaged ({reason})"
        raise InputError(f"sweep {sweep.name}: {found}") from None
