"""Fencing of attempts at a trial: only the highest attempt that has claimed the trial may write."""

from __future__ import annotations

from orchestrator.store.objects import ConflictError, MissingError, Objects


class StaleAttemptError(Exception):
    """A later attempt at the same trial has taken over; this one must write nothing more."""


def trial_key(number: int) -> str:
    """The prefix of the keys of all objects of a trial."""
    return f"trials/{number:05d}"


def claim(objects: Objects, number: int, attempt: int) -> None:
    """Gives the trial to `attempt` and fences off earlier ones. Raises StaleAttemptError if a later one has it."""
    while True:
        tag = _checked(objects, number, attempt)
        try:
            objects.put(f"{trial_key(number)}/attempt", str(attempt).encode(), if_absent=tag is None, if_match=tag)
            return
        except ConflictError:
            continue  # another attempt was faster; the next round compares its number


def check(objects: Objects, number: int, attempt: int) -> None:
    """Raises StaleAttemptError if a later attempt has claimed the trial, as if this process outlived its driver."""
    _checked(objects, number, attempt)


def holder(objects: Objects, number: int) -> tuple[int, str] | None:
    """The attempt that has claimed the trial, and the tag of the object that says so; None if none has."""
    try:
        content, tag = objects.get(f"{trial_key(number)}/attempt")
    except MissingError:
        return None
    return int(content), tag


def _checked(objects: Objects, number: int, attempt: int) -> str | None:
    found = holder(objects, number)
    if found is None:
        return None
    by, tag = found
    if by > attempt:
        raise StaleAttemptError(f"trial {number}: attempt {attempt} was superseded by attempt {by}")
    return tag
