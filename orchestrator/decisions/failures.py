"""Kinds of failures of trials: how each is recognised, whether it counts against the trial, and its message."""

from __future__ import annotations

import errno
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.addresses import masked

#: A trial fails for good after so many failures for which it may be to blame.
MOST_FAILURES = 3
#: It also does after so many of one other kind, so that no trial is repeated for ever.
MOST_OF_OTHERS = 20
_LONGEST = 300
_FRAME = '  File "'


LOST_NODE, FULL_DISK, OTHER_INPUTS = "lost-node", "full-disk", "other-inputs"
_DISK = "|".join(str(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS))


@dataclass(frozen=True)
class Kind:
    """One kind of failure of a trial's process."""

    name: str
    pattern: str
    """Regular expression found in Ray's account of it, which is a traceback or sentences of Ray's own."""
    blames_trial: bool
    """Whether the trial may be to blame: its limit is MOST_FAILURES then, and MOST_OF_OTHERS otherwise."""
    message: str
    """One sentence for people; {} is the exception."""


#: A failure is of the first kind whose pattern is found.
KINDS = (
    Kind(
        "cuda-out-of-memory",
        r"^torch\.(cuda\.)?OutOfMemoryError\b|CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED",
        True,
        "CUDA out of memory: choose a smaller batch or width, or fewer trials per GPU (resources.trials_per_gpu)",
    ),
    Kind(
        "bad-checkpoint",
        r"^(\w+\.)*CheckpointError\b",
        False,
        "{}: the disk or the store damages files",
    ),
    Kind(OTHER_INPUTS, r"^(\w+\.)*OtherInputsError\b", False, "{}"),
    Kind(
        FULL_DISK,
        rf"^(\w+\.)*SpoolFullError\b|^OSError: \[Errno ({_DISK})\]|\(os error ({_DISK})\)",
        False,
        "{}",
    ),
    Kind("drained-node", r"^(\w+\.)*NodeDrainedError\b", False, "{}: it goes on elsewhere from its last rung"),
    Kind(
        LOST_NODE,
        # A node that vanishes can tell nobody: Ray calls the actor unavailable until the node is declared dead.
        r"^The actor died because its node has died|the actor's node was|\AThe actor \w+ is unavailable"
        r"|^(\w+\.)*NodeLostError\b",
        False,
        "its node was lost, or the connection to it",
    ),
    Kind(
        "killed-worker",
        r"\AThe (actor|worker) died unexpectedly|node running low on memory|^(\w+\.)*WorkerKilledError\b",
        True,
        "its process was killed: unless somebody did so, give trials more memory, or run fewer at once (resources)",
    ),
    Kind("error", r"", True, "{}"),
)
#: Not a failure of a process: the study ends a trial that diverged.
NAN = "nan"
#: Notes on a trial.
FAILURES, LOG = "failures", "log"


@dataclass(frozen=True)
class Failure:
    """One failure in an attempt at a trial."""

    attempt: int
    kind: str
    message: str


def failures_of(notes: Mapping[str, Any]) -> tuple[Failure, ...]:
    """The failures among the notes on a trial, in order."""
    return tuple(Failure(**each) for each in notes.get(FAILURES, ()))


def failure_of(attempt: int, account: str) -> Failure:
    """The failure that Ray describes in `account`."""
    kind = next(kind for kind in KINDS if re.search(kind.pattern, account, re.MULTILINE))
    return Failure(attempt, kind.name, kind.message.format(raised(account)))


def damaged_checkpoint(attempt: int, message: str) -> Failure:
    """A damaged checkpoint that was passed over; the trial goes on."""
    return Failure(attempt, "bad-checkpoint", printable(message)[:_LONGEST])


def reason_to_fail(failures: Sequence[Failure]) -> str | None:
    """Why a trial with these failures has failed for good; None if it may go on."""
    counts, blamed = Counter(failure.kind for failure in failures), {kind.name for kind in KINDS if kind.blames_trial}
    own = sum(count for kind, count in counts.items() if kind in blamed)
    others = max((count for kind, count in counts.items() if kind not in blamed), default=0)
    if own < MOST_FAILURES and others < MOST_OF_OTHERS:
        return None
    return f"{failures[-1].message} (failures: {in_words(counts)})"


def reason_to_end_sweep(failure: Failure) -> str | None:
    """Why no trial of the sweep can go on after this failure of one; None if the others can.

    On a full disk, or on a node with other inputs, each trial would fail as often as it may, and be lost.
    """
    if failure.kind == FULL_DISK:
        return f"{failure.message}; make space, then resume the sweep"
    if failure.kind == OTHER_INPUTS:
        return f"{failure.message.partition(': ')[2]}; give all nodes the same data and weights"
    return None


def in_words(counts: Counter[str] | dict[str, int]) -> str:
    """Text such as `2 killed-worker, 1 error`; empty without any failure."""
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)


def raised(account: str) -> str:
    """The exception of a traceback in one line, or the last line of another text."""
    lines = [line for line in printable(account).splitlines() if line.strip()] or [""]
    frames = [index for index, line in enumerate(lines) if line.startswith(_FRAME)]
    after = lines[frames[-1] + 1 :] if frames else lines[-1:]
    return next((line for line in after if not line.startswith(" ")), lines[-1])[:_LONGEST]


def printable(text: str) -> str:
    """`text` without colours, characters that some databases refuse, and what looks like a key or a password."""
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    return masked(re.sub(r"[^\n\t\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]", "", plain))
