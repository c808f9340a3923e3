"""Optuna's journal file with a writer that keeps it readable if a machine dies in the middle of a line."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from optuna.storages.journal import JournalFileBackend

from orchestrator.study.lease import CLAIM
from trainers.errors import InputError

#: Seconds for which a writer waits for another one. A process that was stopped while it writes keeps the lock.
PATIENCE = 30.0


class Journal(JournalFileBackend):  # type: ignore[misc]  # optuna is not checked
    """One line for each record. A writer locks the file itself; the kernel frees the lock of a writer that dies.

    A last line without an end belongs to a write that never returned: the next writer cuts it off. Optuna's own backend
    would append to that line, after which nobody could read it, and its lock file outlives a dead writer by half a
    minute.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._block = threading.local()
        self.fence: Callable[[dict[str, Any]], None] = _allow
        """Called before each write, under the lock, with the claims of others that are new in the file; may raise."""
        self._seen = 0
        """Bytes of the file in which this writer has looked for claims."""

    def __getstate__(self) -> dict[str, Any]:
        """The state without the parts that belong to this process: its lease and its open transaction."""
        return {key: value for key, value in vars(self).items() if key not in ("_block", "fence")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._block, self.fence = threading.local(), _allow

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Records that this thread appends in the block are written together at its end; none if the block fails.

        A disk takes as long for one record as for twenty.
        """
        waiting: list[dict[str, Any]] = []
        self._block.logs = waiting
        try:
            yield
        finally:
            del self._block.logs
        if waiting:
            self.append_logs(waiting)

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """As Optuna's, but opens the file only if it has grown: a study reads it eight times for each report."""
        if self._log_number_offset.get(log_number_from) == os.stat(self._file_path).st_size:
            return ()
        logs: Iterable[dict[str, Any]] = super().read_logs(log_number_from)
        return logs

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Appends all of `logs` or nothing. Raises InputError if another writer keeps the file locked."""
        waiting: list[dict[str, Any]] | None = getattr(self._block, "logs", None)
        if waiting is not None:
            waiting.extend(logs)
            return
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with open(self._file_path, "r+b") as file:
            _lock(file, Path(self._file_path))
            end = _end_of_last_line(file)
            # Nobody else can claim the study now. A driver that was superseded after its last check ends here.
            file.seek(self._seen)
            self.fence(_claims(file.read(end - self._seen)))
            file.truncate(end)
            file.seek(end)
            try:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
            except OSError:  # the disk is full
                os.ftruncate(file.fileno(), end)
                raise
            self._seen = end + len(lines)


def _allow(claims: dict[str, Any]) -> None:
    """The fence of a writer without a lease."""


def _claims(lines: bytes) -> dict[str, Any]:
    """The notes on drivers' claims among the records in `lines`."""
    mark = f'"user_attr":{{"{CLAIM}'.encode()
    found = [json.loads(line)["user_attr"] for line in lines.splitlines() if mark in line]
    return {key: claim for notes in found for key, claim in notes.items()}


def _lock(file: BinaryIO, path: Path) -> None:
    end, pause = time.monotonic() + PATIENCE, 0.0005
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                text = f"{path}: another process has kept it locked for {PATIENCE:g} s; end it if it is stopped"
                raise InputError(text) from None
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        else:
            return


def _end_of_last_line(file: BinaryIO) -> int:
    """The size of `file` up to the end of its last whole line."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        block = file.read(end - start)
        if (newline := block.rfind(b"\n")) >= 0:
            return start + newline + 1
        end = start
    return 0
