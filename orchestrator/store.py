"""The store: checkpoints and samples of every trial, keyed by trial number. Here: a folder."""

from __future__ import annotations

import os
from pathlib import Path

from search_spaces.sweep import Sweep

_ATTEMPT = "attempt"
_REQUEST = "request"


class StaleAttemptError(Exception):
    """A newer attempt at the same trial has taken over; this one must write nothing more."""


class FolderStore:
    """A store in a folder that every trial's machine can reach."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def trial(self, number: int) -> Path:
        """The folder of one trial: `checkpoints/` and `samples/` lie in it."""
        return self.root / "trials" / f"{number:05d}"

    def claim(self, number: int, attempt: int) -> None:
        """Gives the trial to `attempt` and fences off earlier ones. Raises StaleAttemptError if a later one has it."""
        self.check(number, attempt)
        folder = self.trial(number)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{_ATTEMPT}.{os.getpid()}"
        temporary.write_text(str(attempt))
        temporary.replace(folder / _ATTEMPT)

    def check(self, number: int, attempt: int) -> None:
        """Raises StaleAttemptError where a later attempt has claimed the trial (a process that outlived its driver)."""
        try:
            holder = int((self.trial(number) / _ATTEMPT).read_text())
        except FileNotFoundError:
            return
        if holder > attempt:
            raise StaleAttemptError(f"trial {number}: attempt {attempt} was superseded by attempt {holder}")

    def request(self, number: int, images: int, samples: int) -> None:
        """Asks the trial's process to score its rung at `images` again, on `samples` images."""
        path = self.trial(number) / _REQUEST
        temporary = path.with_name(f".{_REQUEST}.{os.getpid()}")
        temporary.write_text(f"{images} {samples}")
        temporary.replace(path)

    def requested(self, number: int, images: int) -> int | None:
        """The number of images on which the rung at `images` is to be scored again; None where nobody asked."""
        try:
            asked, samples = map(int, (self.trial(number) / _REQUEST).read_text().split())
        except FileNotFoundError:
            return None
        return samples if asked == images else None

    def grids(self, number: int) -> dict[int, Path]:
        """Sample grids of a trial by images trained."""
        return {int(path.stem): path for path in sorted((self.trial(number) / "samples").glob("[0-9]*.png"))}


def store_of(sweep: Sweep, folder: Path) -> FolderStore:
    """The store a sweep names, or the one in its own folder."""
    return FolderStore(Path(sweep.store.path) / sweep.name if sweep.store.path else folder / "store")
