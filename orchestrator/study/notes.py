"""The notes on a study: Optuna's user attributes, as this process read them last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna


class StudyNotes:
    """Reads and writes the notes on one study. What others write is seen after `refresh`."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self.values: Mapping[str, Any] = {}
        """Never changed in place."""
        self.refresh()

    def refresh(self) -> None:
        """Reads all notes again."""
        # `Study.user_attrs` copies all of them, texts of sweeps and finals included, at each event.
        self.values = self._study._storage.get_study_user_attrs(self._study._study_id)

    def read(self) -> Mapping[str, Any]:
        """All notes as they are now."""
        self.refresh()
        return self.values

    def write(self, key: str, value: Any) -> None:
        """Keeps a note, in place of an older one with the same key; `value` is plain JSON."""
        self._study.set_user_attr(key, value)
        self.refresh()

    def get(self, key: str, default: Any = None) -> Any:
        """The note `key`, or `default`."""
        return self.values.get(key, default)
