"""The store of a sweep: checkpoints and samples of every trial by number, on any kind of objects."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from orchestrator.store import checkpoints, fencing
from orchestrator.store.checkpoints import Damaged
from orchestrator.store.fencing import trial_key
from orchestrator.store.objects import MissingError, Objects, UnavailableError
from orchestrator.store.outbox import Outbox, Write
from orchestrator.store.ownership import ForeignStoreError, is_own
from orchestrator.store.spool import Spool, SpoolFullError, is_full, locked, remove, tries
from search_spaces.settings import Store
from trainers.checkpoint import CheckpointError, folder_name, images_of
from trainers.errors import InputError

T = TypeVar("T")

#: Names of sample grids: the images trained.
_SAMPLES = re.compile(r"[0-9]+\.png", re.ASCII)

_log = logging.getLogger(__name__)


class TrialStore:
    """The store of one sweep; `scratch` is a folder on this machine for the spool and for downloads.

    A store that is unavailable does not end a trial at once: what must be written waits in the spool, what must be read
    is requested again for `patience` seconds, and what a trial can do without is left out.
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

        What earlier attempts left in the spool of this machine is published first. Raises UnavailableError if the store
        does not answer for `patience` seconds.
        """

        def drain_and_claim() -> None:
            self._outbox.drain()
            fencing.claim(self.objects, number, attempt)

        self._patiently(drain_and_claim, self.patience)

    def check(self, number: int, attempt: int) -> None:
        """Raises StaleAttemptError if a later attempt has claimed the trial, as if this process outlived its driver."""
        fencing.check(self.objects, number, attempt)

    def request(self, number: int, images: int, samples: int) -> None:
        """Asks the trial's process to score its rung at `images` again, on `samples` images.

        If the store is unavailable, the request is lost, and the trial goes on without a decision.
        """
        key, data = f"{trial_key(number)}/request", f"{images} {samples}".encode()
        self._if_available(lambda: self.objects.put(key, data), f"trial {number} is not scored again")

    def requested(self, number: int, images: int) -> int | None:
        """The number of images on which the rung at `images` is to be scored again; None if nobody asked for it."""
        if any(waiting == number for waiting, _ in self.spool.waiting()):
            return None  # the store has just been unavailable, probably for the driver too

        def read() -> bytes | None:
            try:
                return self.objects.get(f"{trial_key(number)}/request")[0]
            except MissingError:
                return None

        found = self._if_available(read, f"trial {number} is not scored again")
        if found is None:
            return None
        asked, samples = map(int, found.split())
        return samples if asked == images else None

    def publish(self, number: int, attempt: int, write: Write, best: Collection[int], final: bool = False) -> None:
        """Publishes what `write` writes, and deletes all checkpoints except the newest and those at the images `best`.

        If the store's objects are files, `write` must delete checkpoints itself.

        If the store is unavailable, everything waits in the spool and this returns; but if the spool is full, or if
        this is the trial's `final` rung, it waits for the store. Raises StaleAttemptError if a later attempt has the
        trial, SpoolFullError if the spool or the disk is full.
        """
        folder = self.objects.local(trial_key(number))
        if folder is None:
            self._outbox.publish(number, attempt, write, best, final, self.patience)
            return
        self.check(number, attempt)
        try:
            written = write(folder)
            checkpoints.set_latest(self.objects, trial_key(number), written.name)
        except OSError as error:
            if not is_full(error):
                raise
            raise SpoolFullError(f"the disk of the store {folder} is full: {error}; free it, then go on") from None

    def drain(self, wait: bool) -> None:
        """Publishes what trials that have ended left in the spool of this machine.

        If the store is unavailable, this repeats it for `patience` seconds with `wait`, else it gives up at once.
        """
        left = f"the spool {self.spool.folder} still waits"
        self._if_available(lambda: self._patiently(self._outbox.drain, self.patience if wait else 0), left)

    @contextmanager
    def newest(self, number: int, damaged: Damaged = lambda text: None) -> Iterator[Path | None]:
        """The folder of the trial's newest whole checkpoint, for the block; None if there is none.

        `damaged` gets a sentence for each damaged checkpoint, perhaps more than once. Raises UnavailableError.
        """
        with self._fetched(number, None, damaged) as found:
            yield found

    @contextmanager
    def at(self, number: int, images: int) -> Iterator[Path]:
        """As `newest`, for the checkpoint after `images` images. Raises InputError if it is missing or damaged."""
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
            # If a download is interrupted, its files stay, and the next one continues it.
            yield self._patiently(lambda: _fetch(self.objects, key, target, images, damaged), self.patience)
            remove(target)

    def may_be_of(self, study: str) -> bool:
        """Whether the store does not say that it belongs to another study than the one with this id; warns if it does.

        True if the store is unavailable.
        """
        try:
            self._if_available(lambda: is_own(self.objects, study), "its owner is not known")
        except ForeignStoreError as error:
            _log.warning("samples are left out: %s", error)
            return False
        return True

    def grids(self, number: int, required: bool = False) -> dict[int, Path]:
        """Sample grids of a trial by images trained, as files on this machine.

        If the store is unavailable, those that were not downloaded before are left out; if all are `required`, this
        raises UnavailableError instead.
        """
        key = f"{trial_key(number)}/samples/"
        if (folder := self.objects.local(key)) is None:
            folder = self.scratch / "samples" / f"{number:05d}"
            folder.mkdir(parents=True, exist_ok=True)
            if required:
                self._download_samples(key, folder)
            else:
                left_out = f"samples of trial {number} are left out"
                self._if_available(lambda: self._download_samples(key, folder), left_out)
        return {int(path.stem): path for path in sorted(folder.glob("[0-9]*.png"))}

    def _download_samples(self, key: str, folder: Path) -> None:
        for each in self.objects.find(key):
            name = each.key.removeprefix(key)
            # Whoever else writes to the bucket must not choose a place on this machine, as `../` would.
            if _SAMPLES.fullmatch(name) and not (folder / name).exists():
                self.objects.get_file(each.key, folder / name)

    def location(self, number: int, images: int) -> str | None:
        """The folder or URI of the checkpoint after `images` images, or None. Raises UnavailableError."""
        key = trial_key(number)
        found = [name for name in checkpoints.names(self.objects, key) if images_of(name) == images]
        return self.objects.uri(checkpoints.key_of(key, found[0])) if found else None

    def _patiently(self, action: Callable[[], T], patience: float) -> T:
        """The result of `action`, which is repeated for `patience` seconds if the store is unavailable."""
        for is_last in tries(patience):
            try:
                return action()
            except UnavailableError as error:
                if is_last:
                    raise UnavailableError(f"the store has not answered for {patience:.0f} s: {error}") from None
        raise AssertionError  # the last try returns or raises

    def _if_available(self, action: Callable[[], T], consequence: str) -> T | None:
        """The result of `action`; if the store is unavailable, None and a warning with the `consequence`."""
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
