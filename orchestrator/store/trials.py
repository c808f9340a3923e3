"""The store of a sweep: checkpoints and samples of every trial by number, over any kind of objects."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from orchestrator.store import checkpoints, fencing
from orchestrator.store.checkpoints import Damaged
from orchestrator.store.fencing import trial_key
from orchestrator.store.objects import MissingError, Objects, UnavailableError
from orchestrator.store.outbox import Outbox, Write
from orchestrator.store.spool import Spool, SpoolFullError, forget, is_full, locked, tries
from search_spaces.settings import Store
from trainers.checkpoint import CheckpointError, folder_name, images_of
from trainers.errors import InputError

T = TypeVar("T")

_log = logging.getLogger(__name__)


class TrialStore:
    """One sweep's store; `scratch` is a folder of this machine for what is on its way to it or from it.

    A store that is away ends nothing. What must be written waits in the spool, what must be read is waited for
    (`patience`, in seconds), and what a trial can do without is left out.
    """

    patience = 3600.0

    def __init__(self, objects: Objects, scratch: Path, settings: Store | None = None) -> None:
        settings = settings or Store()
        self.objects, self.keep = objects, settings.keep
        self.scratch = scratch
        self.spool = Spool(scratch / "spool", settings.spool.max_gb)
        self._outbox = Outbox(objects, self.spool, settings.keep.last)

    def claim(self, number: int, attempt: int) -> None:
        """Gives the trial to `attempt` and fences off earlier ones. Raises StaleAttemptError if a later one has it.

        What earlier attempts left in this machine's spool is published first.
        """

        def drained_and_claimed() -> None:
            self._outbox.drain()
            fencing.claim(self.objects, number, attempt)

        self._patiently(drained_and_claimed, self.patience)

    def check(self, number: int, attempt: int) -> None:
        """Raises StaleAttemptError where a later attempt has claimed the trial (a process that outlived its driver)."""
        fencing.check(self.objects, number, attempt)

    def request(self, number: int, images: int, samples: int) -> None:
        """Asks the trial's process to score its rung at `images` again, on `samples` images.

        Where the store is away the trial is not asked and goes on, undecided.
        """
        key, data = f"{trial_key(number)}/request", f"{images} {samples}".encode()
        self._or_without(lambda: self.objects.put(key, data), f"trial {number} is not scored again")

    def requested(self, number: int, images: int) -> int | None:
        """The number of images on which the rung at `images` is to be scored again; None where nobody asked."""

        if any(waiting == number for waiting, _ in self.spool.waiting()):
            return None  # the store has just been away, for the driver too

        def read() -> bytes | None:
            try:
                return self.objects.get(f"{trial_key(number)}/request")[0]
            except MissingError:
                return None

        found = self._or_without(read, f"trial {number} is not scored again")
        if found is None:
            return None
        asked, samples = map(int, found.split())
        return samples if asked == images else None

    def publish(self, number: int, attempt: int, write: Write, best: Collection[int], final: bool = False) -> None:
        """Publishes what `write` writes; keeps no checkpoints but the newest and those at the images `best`.

        In a store of files `write` sees to that itself.

        While the store is away all of it waits in the spool and this returns, unless the spool is full or this was
        the trial's `final` rung: then it waits for the store. Raises StaleAttemptError where a later attempt has the
        trial, SpoolFullError where there is no room.
        """
        folder = self.objects.local(trial_key(number))
        if folder is None:
            self._outbox.publish(number, attempt, write, best, final, self.patience)
            return
        self.check(number, attempt)
        try:
            written = write(folder)
            checkpoints.point_to(self.objects, trial_key(number), written.name)
        except OSError as error:
            if not is_full(error):
                raise
            raise SpoolFullError(f"the disk of the store {folder} is full: {error}; free it, then go on") from None

    def drain(self, wait: bool) -> None:
        """Publishes what trials that have ended left in this machine's spool; may `wait` for a store that is away."""
        left = f"the spool {self.spool.folder} still waits"
        self._or_without(lambda: self._patiently(self._outbox.drain, self.patience if wait else 0), left)

    @contextmanager
    def newest(self, number: int, damaged: Damaged = lambda text: None) -> Iterator[Path | None]:
        """The folder of the trial's newest whole checkpoint, for as long as the block lasts; None without one.

        `damaged` is told of those that are passed over, perhaps more than once.
        """
        with self._fetched(number, None, damaged) as found:
            yield found

    @contextmanager
    def at(self, number: int, images: int) -> Iterator[Path]:
        """As `newest`, the checkpoint at `images`. Raises InputError where it is missing or damaged."""
        with self._fetched(number, images) as found:
            if found is None:
                raise InputError(
                    f"{self.objects.uri(trial_key(number))}: no checkpoint called checkpoints/{folder_name(images)}"
                )
            yield found

    @contextmanager
    def _fetched(self, number: int, images: int | None, damaged: Damaged = lambda text: None) -> Iterator[Path | None]:
        target, key = self.scratch / "fetched" / f"{number:05d}", trial_key(number)
        if self.objects.local(key) is not None:
            yield _fetch(self.objects, key, target, images, damaged)
            return
        with locked(target.with_name(f".{target.name}.lock")):
            # What breaks off stays there: the next one goes on from it.
            yield self._patiently(lambda: _fetch(self.objects, key, target, images, damaged), self.patience)
            forget(target)

    def grids(self, number: int) -> dict[int, Path]:
        """Sample grids of a trial by images trained, as files of this machine; those that can be had at once."""
        key = f"{trial_key(number)}/samples/"
        if (folder := self.objects.local(key)) is None:
            folder = self.scratch / "samples" / f"{number:05d}"
            folder.mkdir(parents=True, exist_ok=True)
            self._or_without(lambda: self._bring_samples(key, folder), f"samples of trial {number} are left out")
        return {int(path.stem): path for path in sorted(folder.glob("[0-9]*.png"))}

    def _bring_samples(self, key: str, folder: Path) -> None:
        for each in self.objects.find(key):
            path = folder / each.key.removeprefix(key)
            if not path.exists():
                self.objects.get_file(each.key, path)

    def location(self, number: int, images: int) -> str | None:
        """The folder or URI of the checkpoint at `images`; None where there is none. Raises UnavailableError."""
        key = trial_key(number)
        found = [name for name in checkpoints.names(self.objects, key) if images_of(name) == images]
        return self.objects.uri(checkpoints.key_of(key, found[0])) if found else None

    def _patiently(self, action: Callable[[], T], patience: float) -> T:
        """`action` as soon as the store lets it; UnavailableError where it does not in `patience` seconds."""
        for over in tries(patience):
            try:
                return action()
            except UnavailableError as error:
                if over:
                    raise UnavailableError(f"the store has not answered for {patience:.0f} s: {error}") from None
        raise AssertionError  # there is a last try

    def _or_without(self, action: Callable[[], T], consequence: str) -> T | None:
        try:
            return action()
        except UnavailableError as error:
            _log.warning("%s: %s", consequence, error)
            return None


def _fetch(objects: Objects, key: str, target: Path, images: int | None, damaged: Damaged) -> Path | None:
    try:
        return checkpoints.fetch(objects, key, target, images, damaged)
    except CheckpointError as error:
        raise InputError(str(error)) from None
