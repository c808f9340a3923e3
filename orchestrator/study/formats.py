"""The format of a study's notes (Optuna's user attributes of the study): its versions, and how older ones are read.

docs/formats.md specifies each note. Only the notes of the study itself are migrated: Optuna lets nobody change a trial
that has ended. Records in the notes of trials may therefore gain fields with a default, and change in no other way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from search_spaces.sweep import Sweep
from trainers.formats import VERSION, Format, unchanged

if TYPE_CHECKING:
    import optuna

    from orchestrator.study.storage import FencedStorage

#: The note that keeps the sweep's text. A study without it does not count: its driver died before it had begun.
SWEEP = "sweep"

NOTES = Format(
    (
        # Version 2 adds the number of the version.
        unchanged,
    )
)


def read_notes(notes: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The notes of the study of the sweep `name` in the newest format.

    Raises InputError if a newer program wrote them.
    """
    return notes if notes.get(VERSION) == NOTES.newest else NOTES.read(dict(notes), f"the study of sweep {name}")


def write_first_notes(study: optuna.Study, sweep: Sweep) -> None:
    """Writes the first notes of a new study: its sweep and the version of their format."""
    study.set_user_attr(VERSION, NOTES.newest)
    study.set_user_attr(SWEEP, sweep.normalised())


def rewrite_notes(study: optuna.Study, storage: FencedStorage, sweep: Sweep) -> None:
    """Brings the notes of a study to the newest format, and its sweep's text to that of `sweep`.

    From then on a new study counts.
    The version is written last. If the driver dies before, the notes are migrated again, with the same result.
    """
    before = study.user_attrs
    if SWEEP not in before:
        write_first_notes(study, sweep)
        return
    after = {**read_notes(before, sweep.name), SWEEP: sweep.normalised()}
    with storage.transaction():
        for key in (*(key for key in after if key != VERSION), VERSION):
            if before.get(key) != after[key]:
                study.set_user_attr(key, after[key])
