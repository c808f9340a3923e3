"""A probe of a store: tries out what a sweep needs of it, with one object that is deleted again."""

from __future__ import annotations

from contextlib import suppress
from uuid import uuid4

from orchestrator.store.objects import ConflictError, Objects, RefusedError, UnavailableError
from trainers.errors import InputError

PROBES = "probe/"
"""The prefix of the keys that `probe` writes; garbage collection deletes what an interrupted one left there."""
UNFENCED = (
    "without such conditions two attempts at a trial may write at once: use a server that obeys If-None-Match and "
    "If-Match, or accept that risk by store.unfenced: true"
)


def probe(objects: Objects) -> None:
    """Lists, writes, reads and deletes an object, and repeats conditional puts that must be refused.

    No object is left behind, unless deleting fails. Raises what `objects` raises, and InputError if a condition is
    ignored or not accepted, or if another content is read than was written.
    """
    key = f"{PROBES}{uuid4().hex}"
    objects.find(PROBES)  # if the store does not answer, it fails here, and there is nothing to delete
    try:
        objects.put(key, b"plain")
        objects.delete([key])
        _try_conditions(objects, key)
    except BaseException:
        with suppress(UnavailableError, OSError):  # the first error says more
            objects.delete([key])
        raise
    objects.delete([key])


def _try_conditions(objects: Objects, key: str) -> None:
    try:
        old = objects.put(key, b"first", if_absent=True)
        tag = objects.put(key, b"second", if_match=old)
    except RefusedError as error:  # the same without a condition was accepted
        raise InputError(f"writing on a condition is refused: {error}; {UNFENCED}") from None
    _must_refuse(objects, key, "if absent", if_absent=True)
    _must_refuse(objects, key, "if it matches", if_match=old)
    if objects.get(key) != (b"second", tag):
        raise InputError("what was read is not what was written")


def _must_refuse(
    objects: Objects, key: str, words: str, *, if_absent: bool = False, if_match: str | None = None
) -> None:
    with suppress(ConflictError):
        objects.put(key, b"refused", if_absent=if_absent, if_match=if_match)
        raise InputError(
            f"an existing object was overwritten by a put {words}, which the server had to refuse; {UNFENCED}"
        )
