"""The interface of a store of objects (named pieces of data), and the errors of its operations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol


class MissingError(Exception):
    """There is no object with this key."""


class ConflictError(Exception):
    """The condition of a conditional put does not hold: somebody else has written the object."""


class UnavailableError(Exception):
    """The store does not answer, or refuses the request; the message says why. Trying again later may help."""


class RefusedError(UnavailableError):
    """The server answered that it does not carry out such a request. Trying again seldom helps."""


@dataclass(frozen=True)
class Listed:
    """An object in a listing, or the leftover of one that was never finished."""

    key: str
    size: int
    """Bytes; 0 if the size of a leftover is unknown."""
    modified: datetime
    """With time zone."""
    upload: str | None = None
    """The id of an unfinished upload."""


class Objects(Protocol):
    """Objects by key, such as `trials/00005/latest`. No part of a key starts with a dot.

    Each put and each delete of one key is atomic: a reader gets the old object or the new one, whole. After a put every
    process reads the new object. Any operation may raise UnavailableError; it may have been carried out all the same.
    """

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Writes an object and returns its tag.

        Raises ConflictError if it exists, with `if_absent`, or if it does not have the tag `if_match`. A put that is
        repeated after a lost answer may conflict with itself, so the caller must read the object after ConflictError.
        """

    def put_file(self, key: str, path: Path) -> None:
        """Writes the file `path` as an object. Raises FileNotFoundError if there is no such file."""

    def get(self, key: str) -> tuple[bytes, str]:
        """An object and its tag, which changes with its content. Raises MissingError if there is no such object."""

    def get_start(self, key: str, size: int) -> bytes:
        """The first `size` bytes of an object, or all of a shorter one. Raises MissingError if there is none."""

    def get_file(self, key: str, path: Path) -> None:
        """Writes an object to the file `path`, whose folder must exist. Raises MissingError if there is no such object.

        If a transfer is interrupted, a hidden file beside `path` may keep what arrived, and the next call continues it.
        """

    def find(self, prefix: str) -> list[Listed]:
        """All objects whose keys start with `prefix`, in the order of their keys."""

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes objects; keys without an object are ignored."""

    def leftovers(self, prefix: str) -> list[Listed]:
        """What writers left that were killed while writing below `prefix`. `find` does not list it."""

    def discard(self, leftover: Listed) -> None:
        """Deletes a leftover."""

    def local(self, key: str) -> Path | None:
        """The path of the object, or of the folder of objects; None if objects are not files on this machine.

        Who writes there directly must do so in one atomic step.
        """

    def uri(self, key: str) -> str:
        """The object's path or URI, for people and other programs."""
