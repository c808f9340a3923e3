"""Publishes what trials write from this machine's spool into the store: at once, or when the store is back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from orchestrator.store import checkpoints
from orchestrator.store.fencing import StaleAttemptError, check, trial_key
from orchestrator.store.objects import Objects, UnavailableError
from orchestrator.store.spool import Spool, SpoolFullError, is_full, remove, tries
from trainers.checkpoint import CheckpointError

Write = Callable[[Path], Path]
"""Writes samples and a checkpoint atomically below the given folder; returns the checkpoint's folder."""

_log = logging.getLogger(__name__)


class Outbox:
    """Publishes through a spool; keeps the `last` newest checkpoints of each trial, besides its best ones."""

    def __init__(self, objects: Objects, spool: Spool, last: int) -> None:
        self._objects, self.spool, self._last = objects, spool, last
        self._sent: set[str] = set()
        """States that this process has published. If a rung is scored again, only its manifest is new."""

    def publish(
        self, number: int, attempt: int, write: Write, best: Collection[int], final: bool, patience: float
    ) -> None:
        """As `TrialStore.publish`, for objects that are not files; waits up to `patience` seconds if it has to."""
        fault: Exception | None = None
        written, start = False, time.monotonic()
        with self.spool.held(number, attempt, wait=True) as folder:
            assert folder is not None  # since `held` waited for it
            for is_last in tries(patience):
                try:
                    if not written:
                        write(folder)
                        written = True
                    self._send(number, attempt, folder)
                    checkpoints.retain(self._objects, trial_key(number), best, self._last)
                    return
                except UnavailableError as error:
                    fault = error
                    if not self.spool.full and (is_last or not final):
                        _log.warning("trial %d waits in the spool %s: %s", number, self.spool.folder, error)
                        return
                except OSError as error:
                    if not is_full(error):
                        raise
                    fault = error
                    with suppress(UnavailableError):  # publishing what waits frees space
                        self._send(number, attempt, folder)
                        self.drain()
            store = self._objects.uri("")
            raise SpoolFullError(self.spool.sentence(store, fault, time.monotonic() - start))

    def drain(self) -> None:
        """Publishes what other processes of this machine left in the spool. Raises UnavailableError.

        What superseded attempts left is deleted instead.
        """
        for number, attempt in self.spool.waiting():
            with self.spool.held(number, attempt, wait=False) as folder:
                if folder is not None:
                    with suppress(StaleAttemptError):
                        self._send(number, attempt, folder)

    def _send(self, number: int, attempt: int, folder: Path) -> None:
        """Publishes what is in `folder`, in order, and deletes it.

        Raises StaleAttemptError if a later attempt has the trial; then everything is deleted unpublished.
        """
        try:
            check(self._objects, number, attempt)
        except StaleAttemptError as error:
            _log.warning("dropped: %s: %s", folder, error)
            remove(folder)
            raise
        key = trial_key(number)
        # Samples come first, so that no checkpoint is without them: they are made only once.
        for picture in sorted((folder / "samples").glob("[0-9]*.png")):
            self._objects.put_file(f"{key}/samples/{picture.name}", picture)
            picture.unlink()
        for written in sorted((folder / "checkpoints").glob("[0-9]*")):
            try:
                checkpoints.publish(self._objects, key, written, self._sent)
            except CheckpointError as error:
                _log.warning("damaged checkpoint in the spool: %s", error)
            remove(written)
        remove(folder)
