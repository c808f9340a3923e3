"""What a store must be able to do with named pieces of data, and what may go wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol


class MissingError(Exception):
    """There is no object of this key."""


class ConflictError(Exception):
    """Somebody else has written the object: the condition of a conditional put does not hold."""


class UnavailableError(Exception):
    """The store does not answer, or refuses to; the message says why. Whoever can waits and tries again."""


@dataclass(frozen=True)
class Listed:
    """An object, or the leftover of one that was never finished."""

    key: str
    size: int
    """Bytes; 0 where the leftover's is unknown."""
    modified: datetime
    """With time zone."""
    upload: str | None = None
    """The id of an unfinished upload."""


class Objects(Protocol):
    """Objects by key, such as `trials/00005/latest`; a key's parts are plain words, none of which starts with a dot.

    Each put and each delete of one key is atomic: a reader finds the old object or the new one, whole. What has been
    put is seen by everybody at once. Any operation may raise UnavailableError, and may then have happened or not.
    """

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Writes an object and returns its tag; raises ConflictError where it exists, or has another tag.

        A put that was repeated after a lost answer conflicts with itself: after ConflictError read what is there.
        """

    def put_file(self, key: str, path: Path) -> None:
        """Writes the file `path` as an object, in parts where it is large. Raises FileNotFoundError without one."""

    def get(self, key: str) -> tuple[bytes, str]:
        """An object and its tag, which changes with its content; raises MissingError."""

    def get_file(self, key: str, path: Path) -> None:
        """Writes an object to the file `path`, whose folder exists; raises MissingError.

        What arrived before a transfer broke off lies beside `path` under a hidden name; the next call goes on from it.
        """

    def find(self, prefix: str) -> list[Listed]:
        """Every object whose key starts with `prefix`, by key."""

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes objects; those that are not there are no fault."""

    def leftovers(self, prefix: str) -> list[Listed]:
        """What writers that died below `prefix` left behind, unseen by `find`."""

    def discard(self, leftover: Listed) -> None:
        """Deletes a leftover."""

    def local(self, key: str) -> Path | None:
        """Where the object, or the folder of objects, lies as a file on this machine; None where objects are no files.

        Whoever writes there directly does so in one atomic step.
        """

    def uri(self, key: str) -> str:
        """How people and other programs name the object."""
