"""Orphans: what is in a store or its spool and belongs to no trial, or is no longer needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from orchestrator.store import checkpoints, fencing
from orchestrator.store.fencing import StaleAttemptError, trial_key
from orchestrator.store.objects import Listed
from orchestrator.store.probing import PROBES
from orchestrator.store.spool import bytes_below, remove
from orchestrator.store.trials import TrialStore
from trainers.checkpoint import MANIFEST

#: A checkpoint that was renamed for a new one that was never written; `checkpoint.recover` renames it back.
_SET_ASIDE = re.compile(r"/\.\d{10}\.\d+\.old/")


@dataclass(frozen=True)
class Orphan:
    """Something that can be deleted."""

    where: str
    size: int
    """Bytes; 0 if unknown, as for unfinished uploads."""
    why: str
    delete: Callable[[], None]


def orphans(store: TrialStore, kept: Mapping[int, Collection[int]]) -> list[Orphan]:
    """All orphans of the store. No driver may be at work: files that a trial is writing would count as orphans.

    `kept` has every trial of the study by number, with the images at which checkpoints are kept besides the newest.
    Raises UnavailableError.
    """
    found = [*_unknown_trials(store, kept), *_unfinished(store)]
    for number, best in kept.items():
        found += _checkpoints(store, number, best)
    return [*found, *_scratch(store, kept)]


def _unknown_trials(store: TrialStore, known: Collection[int]) -> Iterator[Orphan]:
    """Trials that the study does not know."""
    for trial, group in groupby(store.objects.find("trials/"), key=lambda each: each.key.split("/")[1]):
        if not (trial.isdecimal() and int(trial) in known):
            yield _orphan(store, f"trials/{trial}", list(group), "a trial that the study does not know")


def _unfinished(store: TrialStore) -> Iterator[Orphan]:
    """Files and uploads that were never finished, and objects of interrupted probes."""
    for probe in store.objects.find(PROBES):
        yield _orphan(store, probe.key, [probe], "left by a check of the store")
    for left in store.objects.leftovers(""):
        if not _SET_ASIDE.search(left.key):
            delete = partial(store.objects.discard, left)
            yield Orphan(store.objects.uri(left.key), left.size, "never finished", delete)


def _checkpoints(store: TrialStore, number: int, best: Collection[int]) -> Iterator[Orphan]:
    key = trial_key(number)
    found = checkpoints.contents(store.objects, key)
    whole = [name for name, files in found.items() if MANIFEST in files]
    why = dict.fromkeys(found.keys() - set(whole), "a checkpoint that was never finished")
    last = checkpoints.latest(store.objects, key)
    why |= dict.fromkeys(checkpoints.superseded(whole, last, best, store.keep.last), "a checkpoint that is superseded")
    for name in sorted(why):
        delete = partial(checkpoints.drop, store.objects, key, {name: found[name]})
        where = store.objects.uri(checkpoints.key_of(key, name))
        yield Orphan(where, sum(found[name].values()), why[name], delete)


def _scratch(store: TrialStore, known: Collection[int]) -> Iterator[Orphan]:
    """Files on this machine that no trial needs."""
    for number, attempt in store.spool.waiting():
        folder = store.spool.of(number, attempt)
        if number not in known:
            yield _folder(folder, "waits for the store, but the study does not know its trial")
            continue
        try:
            fencing.check(store.objects, number, attempt)
        except StaleAttemptError:
            yield _folder(folder, "waits for the store, but its attempt was superseded")
    for folder in sorted((store.scratch / "fetched").glob("[0-9]*")):
        yield _folder(folder, "an interrupted download")


def _folder(folder: Path, why: str) -> Orphan:
    return Orphan(str(folder), bytes_below(folder), why, partial(remove, folder))


def _orphan(store: TrialStore, key: str, found: list[Listed], why: str) -> Orphan:
    delete = partial(store.objects.delete, [each.key for each in found])
    return Orphan(store.objects.uri(key), sum(each.size for each in found), why, delete)
