"""A probe of a store: tries out what a sweep needs of it, with one object that is deleted again."""

from __future__ import annotations

from contextlib import suppress
from uuid import uuid4

from orchestrator.store.objects import ConflictError, Objects, UnavailableError
from trainers.errors import InputError

PROBES = "probe/"
"""The prefix of the keys that `probe` writes; garbage collection deletes what an interrupted one left there."""


def probe(objects: Objects) -> None:
    """Lists, writes, reads and deletes an object, and repeats conditional puts that must be refused.

    No object is left behind, unless deleting fails. Raises what `objects` raises, and InputError if a condition is
    ignored or if another content is read than was written.
    """
    key = f"{PROBES}{uuid4().hex}"
    objects.find(PROBES)  # if the store does not answer, it fails here, and there is nothing to delete
    try:
        old = objects.put(key, b"first", if_absent=True)
        tag = objects.put(key, b"second", if_match=old)
        _must_refuse(objects, key, "if absent", if_absent=True)
        _must_refuse(objects, key, "if it matches", if_match=old)
        if objects.get(key) != (b"second", tag):
            raise InputError("what was read is not what was written")
    except BaseException:
        with suppress(UnavailableError, OSError):  # the first error says more
            objects.delete([key])
        raise
    objects.delete([key])


def _must_refuse(
    objects: Objects, key: str, words: str, *, if_absent: bool = False, if_match: str | None = None
) -> None:
    with suppress(ConflictError):
        objects.put(key, b"refused", if_absent=if_absent, if_match=if_match)
        raise InputError(f"an existing object was overwritten by a put {words}, which the server had to refuse")
