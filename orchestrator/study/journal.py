"""Optuna's journal file for machines that die in the middle of a line."""

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

from trainers.errors import InputError

#: Seconds for which a writer may hold the journal; one that was stopped meanwhile holds it until it goes on.
PATIENCE = 30.0


class Journal(JournalFileBackend):  # type: ignore[misc]  # optuna is not checked
    """One line a record. A writer locks the file itself, and the kernel takes the lock from a dead one at once.

    A line that has no end was never acknowledged to anybody: the next writer cuts it off. Optuna's own backend would
    append to it, which no reader could read again, and leave a dead writer's lock file for half a minute.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._block = threading.local()
        self.fence: Callable[[dict[str, Any]], None] = lambda notes: None
        """Told, before anything is written, what others have noted of the study; raises where nothing may be."""
        self._seen = 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What this thread appends in the block is appended and seen at its end; nothing of it where the block fails.

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
        """As Optuna's, which opens the file even where nobody has written: a study asks eight times a report."""
        if self._log_number_offset.get(log_number_from) == os.stat(self._file_path).st_size:
            return ()
        logs: Iterable[dict[str, Any]] = super().read_logs(log_number_from)
        return logs

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Appends all of `logs` or nothing. Raises InputError where another writer does not let go of the file."""
        waiting: list[dict[str, Any]] | None = getattr(self._block, "logs", None)
        if waiting is not None:
            waiting.extend(logs)
            return
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with open(self._file_path, "r+b") as file:
            _lock(file, Path(self._file_path))
            end = _end_of_last_line(file)
            # Nobody else can claim the study now: whom a check let through, and who then stood still, ends here.
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


def _claims(lines: bytes) -> dict[str, Any]:
    found = [json.loads(line)["user_attr"] for line in lines.splitlines() if b'"user_attr":{"lease:' in line]
    return {key: claim for notes in found for key, claim in notes.items()}


def _lock(file: BinaryIO, path: Path) -> None:
    end, pause = time.monotonic() + PATIENCE, 0.0005
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                text = f"{path}: another process has kept it locked for {PATIENCE:g} s; a stopped driver? End it"
                raise InputError(text) from None
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        else:
            return


def _end_of_last_line(file: BinaryIO) -> int:
    """The size of `file` without a line that has no end."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        block = file.read(end - start)
        if (newline := block.rfind(b"\n")) >= 0:
            return start + newline + 1
        end = start
    return 0
