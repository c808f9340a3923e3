"""Files that several processes read and write at the same time, and checksums of files."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from trainers.errors import named

#: As many as Linux follows.
_MOST_LINKS = 40


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path at which the block writes a file. If the block succeeds, `path` has what was written; if not, it stays.

    A regular file is replaced in one step by one with the rights that the process gives new files; the old file keeps
    its content under its other names. Symbolic links stay and lead to the new file. Into a device or a pipe the content
    is copied; /dev/stdout and its like are the streams of this process as they are, not opened anew.

    Raises OSError that names `path`, before the block if it is a folder. Then no file or folder is left behind.
    """
    stream = _own_stream(path)
    with named(path):
        mode = _mode(path)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if stream is not None or (mode and not stat.S_ISREG(mode)):
        with TemporaryDirectory() as folder:
            yield Path(folder, "content")
            with named(path):
                _copy(Path(folder, "content"), path, stream)
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name[:32]}.{uuid4().hex}")
    with named(path, target, temporary), _made(target.parent):
        try:
            yield temporary
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def _mode(path: Path) -> int:
    """The kind and the rights of the file to which `path` leads; 0 if there is none."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return 0


def _own_stream(path: Path) -> int | None:
    """The descriptor of this process that `path` names, perhaps through links; None if it names none."""
    for _ in range(_MOST_LINKS):
        if os.path.realpath(path.parent) == f"/proc/{os.getpid()}/fd":
            return int(path.name) if path.name.isdigit() else None
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None


def _copy(source: Path, target: Path, stream: int | None) -> None:
    """Copies a file into a device, a pipe, or a descriptor of this process, behind what is written to it already."""
    if stream is None:
        with open(source, "rb") as file, open(target, "wb") as other:
            shutil.copyfileobj(file, other)
        return
    for printed in (sys.stdout, sys.stderr):
        if printed is not None:
            printed.flush()
    # If the reader of standard output has gone, it has what it wanted.
    with suppress(BrokenPipeError), open(source, "rb") as file, open(os.dup(stream), "wb") as other:
        shutil.copyfileobj(file, other)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Makes `folder` and those above it, as far as they are missing; if the block fails, they go again."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for each in missing:
            with suppress(OSError):  # another process may use the folder by now
                each.rmdir()
        raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of `path` in the block, against other processes and threads: the file `.<name>.lock` beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".{path.name}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def digest(path: Path, algorithm: str = "sha256") -> str:
    """The checksum of a file in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
