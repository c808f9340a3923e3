"""The notes on a study: Optuna's user attributes, as this process read them last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from orchestrator.study.formats import read_notes


class StudyNotes:
    """Reads and writes the notes on one study. What others write is seen after `refresh`."""

    def __init__(self, study: optuna.Study, name: str) -> None:
        """`name` is that of the sweep, for messages."""
        self._study, self._name = study, name
        self.values: Mapping[str, Any] = {}
        """In the newest format; never changed in place."""
        self.refresh()

    def refresh(self) -> None:
        """Reads all notes again. Raises InputError if a newer program has written them."""
        # `Study.user_attrs` copies all of them, texts of sweeps and finals included, at each event.
        notes = self._study._storage.get_study_user_attrs(self._study._study_id)
        self.values = read_notes(notes, self._name)

    def write(self, key: str, value: Any) -> None:
        """Keeps a note, in place of an older one with the same key; `value` is plain JSON."""
        self._study.set_user_attr(key, value)
        self.refresh()

    def get(self, key: str, default: Any = None) -> Any:
        """The note `key`, or `default`."""
        return self.values.get(key, default)
