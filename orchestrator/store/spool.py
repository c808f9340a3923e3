"""Where trials write, on their own machine, what a store that is no folder has not taken yet."""

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
    """What waits for a store fills the spool or its disk; the message says what can be done."""


class Spool:
    """`FOLDER/NUMBER-ATTEMPT/{checkpoints,samples}`: one folder per attempt at a trial, for one process at a time.

    All that lies there waits for the store, which takes it and deletes it.
    """

    def __init__(self, folder: Path, max_gb: float) -> None:
        self.folder, self._most = folder, max_gb * GB

    def waiting(self) -> list[tuple[int, int]]:
        """Trial and attempt of every folder, in order."""
        found = [path.name.split("-") for path in self.folder.glob("[0-9]*-[0-9]*")]
        return sorted((int(number), int(attempt)) for number, attempt in found)

    def of(self, number: int, attempt: int) -> Path:
        """The folder of one attempt."""
        return self.folder / f"{number:05d}-{attempt}"

    @contextmanager
    def held(self, number: int, attempt: int, wait: bool) -> Iterator[Path | None]:
        """The folder for this process alone; None where another one has it and `wait` is false."""
        # The lock lies outside of what is deleted: who waits for a deleted one would be let in beside others.
        folder = self.of(number, attempt)
        with locked(folder.with_name(f".{folder.name}.lock"), wait) as alone:
            yield folder if alone else None

    @property
    def size(self) -> int:
        """Bytes that wait for the store, of all trials on this machine."""
        return bytes_below(self.folder)

    @property
    def full(self) -> bool:
        """Whether more waits than is allowed."""
        return self.size > self._most

    def sentence(self, store: str, fault: object, seconds: float) -> str:
        """What to tell the user when a trial can wait no longer."""
        return (
            f"the spool {self.folder} is full: {self.size / GB:.3g} GB wait for {store}, allowed are "
            f"{self._most / GB:g} GB and what the disk has room for; waited {seconds:.0f} s in vain ({fault}). "
            "Bring the store back, free the disk, or raise store.spool.max_gb"
        )


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Whether this process alone has the lock `path`, which dies with it; without `wait` the answer may be no."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def tries(patience: float) -> Iterator[bool]:
    """Comes back with growing pauses for `patience` seconds; True means for the last time."""
    end, pause = time.monotonic() + patience, 0.25
    while (left := end - time.monotonic()) > 0:
        yield False
        time.sleep(min(pause, max(0.0, left)))
        pause = min(2 * pause, _LONGEST_PAUSE_S)
    yield True


def is_full(error: OSError) -> bool:
    """Whether `error` says that a disk or a quota is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def forget(folder: Path) -> None:
    """Deletes `folder`, where it is there."""
    if folder.exists():
        shutil.rmtree(folder)


def bytes_below(folder: Path) -> int:
    """Bytes of all files below `folder`; 0 where it is not there."""
    return sum(_bytes(path) for path in folder.rglob("*"))


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0  # the store has taken it meanwhile
