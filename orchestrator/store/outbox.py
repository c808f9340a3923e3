"""From a trial's machine into the store: at once, or when the store is back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from orchestrator.store import checkpoints
from orchestrator.store.fencing import StaleAttemptError, check, trial_key
from orchestrator.store.objects import Objects, UnavailableError
from orchestrator.store.spool import Spool, SpoolFullError, forget, is_full, tries
from trainers.checkpoint import CheckpointError

Write = Callable[[Path], Path]
"""Writes samples and a checkpoint below the folder it is given, atomically; returns the checkpoint's folder."""

_log = logging.getLogger(__name__)


class Outbox:
    """Publishes through a spool; the `last` newest checkpoints of a trial are kept beside its best."""

    def __init__(self, objects: Objects, spool: Spool, last: int) -> None:
        self._objects, self.spool, self._last = objects, spool, last
        self._sent: set[str] = set()
        """States that this process has published: scored again, a rung has a new manifest alone."""

    def publish(
        self, number: int, attempt: int, write: Write, best: Collection[int], final: bool, patience: float
    ) -> None:
        """As `TrialStore.publish`, over objects that are no files."""
        fault: Exception | None = None
        written, start = False, time.monotonic()
        with self.spool.held(number, attempt, wait=True) as folder:
            assert folder is not None  # it was waited for
            for over in tries(patience):
                try:
                    if not written:
                        write(folder)
                        written = True
                    self._send(number, attempt, folder)
                    checkpoints.retain(self._objects, trial_key(number), best, self._last)
                    return
                except UnavailableError as error:
                    fault = error
                    if not self.spool.full and (over or not final):
                        _log.warning("trial %d waits in the spool %s: %s", number, self.spool.folder, error)
                        return
                except OSError as error:
                    if not is_full(error):
                        raise
                    fault = error
                    with suppress(UnavailableError):  # what waits may make room by leaving
                        self._send(number, attempt, folder)
                        self.drain()
            store = self._objects.uri("")
            raise SpoolFullError(self.spool.sentence(store, fault, time.monotonic() - start))

    def drain(self) -> None:
        """Publishes what other processes of this machine left in the spool. Raises UnavailableError.

        Of an attempt that was superseded nothing is published.
        """
        for number, attempt in self.spool.waiting():
            with self.spool.held(number, attempt, wait=False) as folder:
                if folder is not None:
                    with suppress(StaleAttemptError):
                        self._send(number, attempt, folder)

    def _send(self, number: int, attempt: int, folder: Path) -> None:
        """Publishes what is in `folder`, in order, and deletes it. Raises StaleAttemptError, with all deleted."""
        try:
            check(self._objects, number, attempt)
        except StaleAttemptError as error:
            _log.warning("dropped: %s: %s", folder, error)
            forget(folder)
            raise
        key = trial_key(number)
        # Samples first: a checkpoint that is there is never without them, and they are made but once.
        for picture in sorted((folder / "samples").glob("[0-9]*.png")):
            self._objects.put_file(f"{key}/samples/{picture.name}", picture)
            picture.unlink()
        for written in sorted((folder / "checkpoints").glob("[0-9]*")):
            try:
                checkpoints.publish(self._objects, key, written, self._sent)
            except CheckpointError as error:
                _log.warning("damaged checkpoint in the spool: %s", error)
            forget(written)
        forget(folder)
