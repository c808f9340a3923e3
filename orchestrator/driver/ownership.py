"""Connects a study with its store: no command works on a store that belongs to another study."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.paths import DRIVER_LOCK, JOURNAL, STORE, sweep_names
from orchestrator.store import ConflictError, MissingError, Objects, UnavailableError, store_of
from orchestrator.store.adoption import KnownTrial, Trials
from orchestrator.store.ownership import ForeignStoreError, check_owner, claim_owner, is_own, is_unused
from orchestrator.study.lease import hold_lease
from orchestrator.study.storage import begun_id
from orchestrator.study.study import SweepStudy
from search_spaces.sweep import Sweep
from trainers.errors import InputError


def check_store_owner(sweep: Sweep, folder: Path, find: Callable[[], SweepStudy | None]) -> None:
    """Raises ForeignStoreError if the store of `sweep` cannot be that of the study in `folder`. Writes nothing.

    `find` opens that study and returns None if there is none yet; it is called only if the store is in use. Raises
    InputError if the store cannot be used.
    """
    with _store(sweep, folder) as objects:
        if is_unused(objects):
            return
    study = find()
    # A driver that died after it took the store may have left a study that does not count yet.
    owner = study.id if study else begun_id(folder, sweep.study.storage)
    trials = _known(study)
    with _store(sweep, folder) as objects:
        check_owner(objects, owner, trials)


def check_own_store(study: SweepStudy) -> None:
    """As `check_store_owner`, for an open study."""
    check_store_owner(study.sweep, study.folder, lambda: study)


def take_store(study: SweepStudy) -> None:
    """Makes the store that of the study, for a driver that holds the lease. Raises as `check_store_owner`."""
    trials = _known(study)
    with _store(study.sweep, study.folder) as objects:
        claim_owner(objects, study.id, trials)


def take_idle_store(study: SweepStudy, say: Callable[[str], None]) -> None:
    """As `take_store`, for a complete sweep, which has no driver. Leaves a store as it is that cannot be used now."""
    try:
        if is_own(store_of(study.sweep, study.folder).objects, study.id):
            return
    except (UnavailableError, OSError) as error:
        say(f"warning: the store of sweep {study.sweep.name}: {error}")
        return
    with hold_lease(study.sweep.name, study.folder, study.lease_records, say):
        take_store(study)


def check_scored(source: Path, root: Path) -> None:
    """Raises ForeignStoreError if `source` is in a store that a sweep below `root` names, but that is another's."""
    for place in (each.parent for each in source.resolve().parents if each.name == "trials"):
        for name in {place.name, place.parent.name} & set(sweep_names(root)):
            study = SweepStudy.open(root / name)
            if study is not None:
                with _store(study.sweep, study.folder) as objects:
                    if objects.uri("") == str(place):
                        is_own(objects, study.id)


@contextmanager
def undone_if_foreign(folder: Path) -> Iterator[None]:
    """If the block raises ForeignStoreError, deletes what was begun in `folder` of a study that does not count yet."""
    try:
        yield
    except ForeignStoreError:
        if SweepStudy.open(folder) is None:
            for name in (JOURNAL, DRIVER_LOCK):
                (folder / name).unlink(missing_ok=True)
            with suppress(OSError):  # something else is there
                folder.rmdir()
        raise


@contextmanager
def _store(sweep: Sweep, folder: Path) -> Iterator[Objects]:
    try:
        yield store_of(sweep, folder).objects
    except (UnavailableError, MissingError, ConflictError, OSError) as error:
        raise InputError(f"sweep {sweep.name}: the store {sweep.store.path or folder / STORE}: {error}") from None


def _known(study: SweepStudy | None) -> Trials:
    """What the study knows of its trials now; nothing if there is no study."""
    records = {record.number: record for record in study.records()} if study else {}

    def known(number: int) -> KnownTrial | None:
        record = records.get(number)
        if study is None or record is None:
            return None
        if not record.params_known:
            return KnownTrial(None, None, record.rungs)
        return KnownTrial(*study.sweep.configure(record.params), record.rungs, study.sweep.rungs)

    return known
