"""Optuna's journal file: its lines carry checksums, and it stays readable if a machine dies in the middle of one."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from optuna.storages.journal import BaseJournalBackend

from orchestrator.study.journal_lines import FaultError, Lines, NewerRecordError, Record, examine_rest, written
from orchestrator.study.lease import CLAIM
from trainers.errors import InputError, named

#: Seconds for which a writer waits for another one. A process that was stopped while it writes keeps the lock.
PATIENCE = 30.0


class DamagedJournalError(InputError):
    """A journal has a line that cannot be read, or that is not what was written."""

    def __init__(self, path: Path, line: int, fault: str) -> None:
        name, root = (shlex.quote(str(part)) for part in (path.parent.name, path.parent.parent))
        remedy = f"`gansweep repair {name} --root {root}` keeps what is whole and says what is lost"
        super().__init__(f"{path}, line {line}: {fault}; {remedy}")


class Journal(BaseJournalBackend):  # type: ignore[misc]  # optuna is not checked
    """One line for each record. A writer locks the file itself; the kernel frees the lock of a writer that dies.

    A last line without an end belongs to a write that never returned: the next writer cuts it off. Optuna's own backend
    would append to that line, after which nobody could read it, and its lock file outlives a dead writer by half a
    minute.

    A damaged line raises DamagedJournalError, for writers too: nothing is appended to a damaged file.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        if not self._path.exists():  # a journal that may only be read can be read
            open(path, "ab").close()
        self._begin()

    def _begin(self) -> None:
        """The state of a process that has read nothing."""
        self._block, self._mutex = threading.local(), threading.Lock()
        self.fence: Callable[[dict[str, Any]], None] = _allow
        """Called before each write, under the lock, with the claims of others that are new in the file; may raise."""
        self._searched = 0
        """Bytes of the file in which this writer has looked for claims."""
        self._rewind()

    def _rewind(self) -> None:
        self._lines = Lines()
        self._end = 0
        """Bytes of the lines that were read."""
        self._waiting: list[Record] = []
        """Records that were read and that nobody has asked for yet."""
        self._returned = 0
        """Number of records that were returned."""

    def __getstate__(self) -> dict[str, Any]:
        """The path alone: lease, open transaction and what was read belong to this process."""
        return {"_path": self._path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._path = state["_path"]
        self._begin()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Records that this thread appends in the block are written together at its end; none if the block fails.

        A disk takes as long for one record as for twenty.
        """
        waiting: list[Record] = []
        self._block.logs = waiting
        try:
            yield
        finally:
            del self._block.logs
        if waiting:
            self.append_logs(waiting)

    def read_logs(self, log_number_from: int) -> Iterable[Record]:
        """The records from number `log_number_from` on, counted from 0, without their checksums.

        Opens the file only if it has grown: a study reads it eight times for each report. Raises DamagedJournalError.
        """
        with self._mutex:
            if log_number_from != self._returned:
                self._rewind()
            if os.stat(self._path).st_size != self._end:
                self._read_file()
            new = self._waiting[max(0, log_number_from - self._returned) :]
            self._returned += len(self._waiting)
            self._waiting = []
        return new

    def append_logs(self, logs: list[Record]) -> None:
        """Appends all of `logs` or nothing. Raises InputError if others keep the file locked, or if it is damaged."""
        waiting: list[Record] | None = getattr(self._block, "logs", None)
        if waiting is not None:
            waiting.extend(logs)
            return
        with self._mutex, named(self._path), open(self._path, "r+b") as file:
            lock_file(file, self._path, fcntl.LOCK_EX)
            self._read_on(file)
            end = self._end
            # Nobody else can claim the study now. A driver that was superseded after its last check ends here.
            file.seek(self._searched)
            self.fence(_claims(file.read(end - self._searched)))
            lines = written(logs, self._lines.count, self._lines.trials, self._lines.journal)
            file.truncate(end)
            file.seek(end)
            try:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
            except OSError:  # the disk is full
                os.ftruncate(file.fileno(), end)
                raise
            self._searched = end + len(lines)

    def _read_file(self) -> None:
        with open(self._path, "rb") as file:
            try:
                self._read_on(file)
            except DamagedJournalError:
                # Perhaps a writer has just replaced a line that was cut off. Its lock is waited for.
                lock_file(file, self._path, fcntl.LOCK_SH)
                self._read_on(file)

    def _read_on(self, file: BinaryIO) -> None:
        """Reads the whole lines that follow those read before. Raises DamagedJournalError at the first damaged one."""
        if os.fstat(file.fileno()).st_size < self._end:
            raise InputError(f"{self._path}: it has become shorter since it was read; run the command again")
        file.seek(self._end)
        *lines, rest = file.read().split(b"\n")
        try:
            for line in lines:
                self._waiting.append(self._lines.read(line.removesuffix(b"\r")))
                self._end += len(line) + 1
            examine_rest(rest)
        except FaultError as fault:
            raise DamagedJournalError(self._path, self._lines.count + 1, str(fault)) from None
        except NewerRecordError as error:
            raise InputError(f"{self._path}, line {self._lines.count + 1}: {error}") from None


def _allow(claims: dict[str, Any]) -> None:
    """The fence of a writer without a lease."""


def _claims(lines: bytes) -> dict[str, Any]:
    """The notes on drivers' claims among the records in `lines`."""
    mark = f'"user_attr":{{"{CLAIM}'.encode()
    found = [json.loads(line)["user_attr"] for line in lines.splitlines() if mark in line]
    return {key: claim for notes in found for key, claim in notes.items()}


def lock_file(file: BinaryIO, path: Path, how: int) -> None:
    """Locks the open `file` at `path`; `how` is LOCK_EX or LOCK_SH. Raises InputError if others keep it locked."""
    end, pause = time.monotonic() + PATIENCE, 0.0005
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                text = f"{path}: another process has kept it locked for {PATIENCE:g} s; end it if it is stopped"
                raise InputError(text) from None
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        else:
            return
