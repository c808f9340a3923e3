"""Which attempt at a trial may write: the one with the highest number that has claimed it."""

from __future__ import annotations

from orchestrator.store.objects import ConflictError, MissingError, Objects


class StaleAttemptError(Exception):
    """A newer attempt at the same trial has taken over; this one must write nothing more."""


def trial_key(number: int) -> str:
    """The key below which all of a trial lies."""
    return f"trials/{number:05d}"


def claim(objects: Objects, number: int, attempt: int) -> None:
    """Gives the trial to `attempt` and fences off earlier ones. Raises StaleAttemptError if a later one has it."""
    while True:
        tag = _checked(objects, number, attempt)
        try:
            objects.put(f"{trial_key(number)}/attempt", str(attempt).encode(), if_absent=tag is None, if_match=tag)
            return
        except ConflictError:
            continue  # another attempt was faster: which one?


def check(objects: Objects, number: int, attempt: int) -> None:
    """Raises StaleAttemptError where a later attempt has claimed the trial (a process that outlived its driver)."""
    _checked(objects, number, attempt)


def _checked(objects: Objects, number: int, attempt: int) -> str | None:
    try:
        holder, tag = objects.get(f"{trial_key(number)}/attempt")
    except MissingError:
        return None
    if int(holder) > attempt:
        raise StaleAttemptError(f"trial {number}: attempt {attempt} was superseded by attempt {int(holder)}")
    return tag
