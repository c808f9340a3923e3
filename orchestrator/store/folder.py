"""Objects as files below a folder that every trial's machine can reach."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from orchestrator.store.objects import ConflictError, Listed, MissingError
from orchestrator.store.spool import locked
from trainers.errors import named

_LOCK = ".lock"


class FolderObjects:
    """Objects as files below `root`: a key is a path. Files that are being written have hidden names."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        path = self.local(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _written(path) as temporary:
            temporary.write_bytes(data)
            _sync(temporary)
            if not if_absent and if_match is None:
                temporary.replace(path)
                return _tag(data)
            with locked(self.root / _LOCK):
                found = path.read_bytes() if path.exists() else None
                if found is not None if if_absent else found is None or _tag(found) != if_match:
                    raise ConflictError(f"{path} was written by somebody else")
                temporary.replace(path)
        return _tag(data)

    def put_file(self, key: str, path: Path) -> None:
        target = self.local(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _written(target) as temporary:
            shutil.copyfile(path, temporary)
            _sync(temporary)
            temporary.replace(target)

    def get(self, key: str) -> tuple[bytes, str]:
        with self._opened(key) as file:
            data = file.read()
        return data, _tag(data)

    def get_start(self, key: str, size: int) -> bytes:
        with self._opened(key) as file:
            return file.read(size)

    @contextmanager
    def _opened(self, key: str) -> Iterator[BinaryIO]:
        path = self.local(key)
        if not path.is_file():  # nothing, or what is no object: to read a pipe would wait for its other end
            raise MissingError(key)
        try:
            file = open(path, "rb")  # noqa: SIM115  # its errors are told from those of the block
        except FileNotFoundError:
            raise MissingError(key) from None
        with file:
            yield file

    def get_file(self, key: str, path: Path) -> None:
        # A local copy is interrupted only if the machine or process ends, so nothing is kept for continuing it.
        with _written(path) as temporary:
            try:
                shutil.copyfile(self.local(key), temporary)
            except (FileNotFoundError, IsADirectoryError):
                raise MissingError(key) from None
            temporary.replace(path)

    def find(self, prefix: str) -> list[Listed]:
        found = (self._listed(path) for path in self._files(prefix) if not self._hidden(path))
        return sorted((each for each in found if each), key=lambda each: each.key)

    def delete(self, keys: Iterable[str]) -> None:
        for path in map(self.local, keys):
            path.unlink(missing_ok=True)
            for parent in path.parents:
                if parent == self.root:
                    break
                try:
                    parent.rmdir()
                except OSError:  # it is not empty, or another process deleted it
                    break

    def leftovers(self, prefix: str) -> list[Listed]:
        found = (self._listed(path) for path in self._files(prefix) if self._hidden(path) and path.name != _LOCK)
        return sorted((each for each in found if each), key=lambda each: each.key)

    def discard(self, leftover: Listed) -> None:
        self.delete([leftover.key])

    def local(self, key: str) -> Path:
        return self.root / key

    def uri(self, key: str) -> str:
        return str(self.local(key).resolve())

    def _files(self, prefix: str) -> Iterator[Path]:
        # Only the folder in which the prefix ends is walked, since a store has thousands of trials' folders.
        start = self.root / prefix.rpartition("/")[0]
        for folder, _, names in os.walk(start):
            for path in (Path(folder, name) for name in names):
                if path.relative_to(self.root).as_posix().startswith(prefix):
                    yield path

    def _hidden(self, path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(self.root).parts)

    def _listed(self, path: Path) -> Listed | None:
        try:
            found = path.lstat()  # a link may lead into nothing
        except FileNotFoundError:
            return None  # deleted while the folder was read
        key = path.relative_to(self.root).as_posix()
        return Listed(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """A unique hidden path beside `path`; a file that is still there at the end of the block is deleted."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    with named(path, temporary):
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
