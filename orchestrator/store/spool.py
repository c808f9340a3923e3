"""The spool: a folder on a trial's machine for what a store on S3 has not taken yet."""

from __future__ import annotations

import errno
import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainers.errors import InputError

GB = 10**9
_LONGEST_PAUSE_S = 30.0


class SpoolFullError(InputError):
    """The spool or its disk is full of files that wait for the store; the message says what to do."""


class Spool:
    """`FOLDER/NUMBER-ATTEMPT/{checkpoints,samples}`: one folder per attempt at a trial, for one process at a time.

    Every file there waits for the store, and is deleted as soon as the store has it.
    """

    def __init__(self, folder: Path, max_gb: float) -> None:
        self.folder, self._most = folder, max_gb * GB

    def waiting(self) -> list[tuple[int, int]]:
        """The trial's number and the attempt of every folder, in order."""
        found = [path.name.split("-") for path in self.folder.glob("[0-9]*-[0-9]*")]
        return sorted((int(number), int(attempt)) for number, attempt in found)

    def of(self, number: int, attempt: int) -> Path:
        """The folder of one attempt."""
        return self.folder / f"{number:05d}-{attempt}"

    @contextmanager
    def held(self, number: int, attempt: int, wait: bool) -> Iterator[Path | None]:
        """The folder, locked for this process; None if another process has it and `wait` is false."""
        # The lock is outside the folder: if it were deleted with it, a waiting process and a new one would both get in.
        folder = self.of(number, attempt)
        with locked(folder.with_name(f".{folder.name}.lock"), wait) as alone:
            yield folder if alone else None

    @property
    def size(self) -> int:
        """Bytes of all files in the spool."""
        return bytes_below(self.folder)

    @property
    def full(self) -> bool:
        """Whether more bytes wait than are allowed."""
        return self.size > self._most

    def sentence(self, store: str, fault: object, seconds: float) -> str:
        """The message for the user when a trial cannot wait any longer."""
        return (
            f"the spool {self.folder} is full: {self.size / GB:.3g} GB wait for {store}, allowed are "
            f"{self._most / GB:g} GB, as far as the disk has space; waited {seconds:.0f} s without success ({fault}). "
            "Bring the store back, free the disk, or raise store.spool.max_gb"
        )


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Holds the lock file `path` for the block; the lock also ends with the process.

    Yields True if this process has the lock. If another one has it, waits, or yields False without `wait`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def tries(patience: float) -> Iterator[bool]:
    """Yields once for each try, with growing pauses, for `patience` seconds; True marks the last try."""
    end, pause = time.monotonic() + patience, 0.25
    while (left := end - time.monotonic()) > 0:
        yield False
        time.sleep(min(pause, max(0.0, left)))
        pause = min(2 * pause, _LONGEST_PAUSE_S)
    yield True


def is_full(error: OSError) -> bool:
    """Whether `error` says that a disk or a quota is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def remove(folder: Path) -> None:
    """Deletes `folder`, if it exists."""
    if folder.exists():
        shutil.rmtree(folder)


def bytes_below(folder: Path) -> int:
    """Bytes of all files below `folder`; 0 if it does not exist."""
    return sum(_bytes(path) for path in folder.rglob("*"))


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0  # it was published and deleted meanwhile
