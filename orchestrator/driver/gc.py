"""Garbage collection: lists and deletes the orphans in a sweep's store."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from orchestrator.driver.ownership import check_own_store, take_store
from orchestrator.store import UnavailableError, orphans, store_of
from orchestrator.study.lease import hold_lease
from orchestrator.study.missing import missing_sweep
from orchestrator.study.study import SweepStudy
from trainers.errors import InputError
from trainers.rungs import worth_keeping

MB = 10**6


def collect(folder: Path, storage: str | None, dry_run: bool, say: Callable[[str], None]) -> None:
    """Deletes the orphans of the sweep in `folder`, or only lists them; `say` prints a line for each, and the sum.

    Raises InputError if there is no such sweep, if a driver is at work on it (it may be writing what looks unfinished),
    if the store is another study's, whose trials would all be orphans, or if the store does not answer.
    """
    study = SweepStudy.open(folder, storage)
    if study is None:
        raise missing_sweep(folder, storage)
    with nullcontext() if dry_run else hold_lease(folder.name, folder, study.lease_records, say):
        check_own_store(study) if dry_run else take_store(study)
        store, metric = store_of(study.sweep, study.folder), study.sweep.score.metric
        kept = {each.number: worth_keeping(each.rungs, metric, store.keep.best) for each in study.records()}
        try:
            found = orphans(store, kept)
            for orphan in found:
                say(f"{orphan.where}: {orphan.why}, {orphan.size / MB:.3g} MB")
                if not dry_run:
                    orphan.delete()
        except UnavailableError as error:
            raise InputError(f"{folder.name}: the store does not answer: {error}") from None
    done = "would be deleted" if dry_run else "deleted"
    say(f"{len(found)} orphans, {sum(orphan.size for orphan in found) / MB:.3g} MB {done}")
