"""`gansweep repair`: puts a journal that can be read in place of a damaged one, which stays beside it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from orchestrator.decisions.objectives import directions
from orchestrator.paths import JOURNAL, SWEEP_FILE
from orchestrator.store import MissingError, Objects, UnavailableError, store_of
from orchestrator.store.fencing import holder
from orchestrator.store.ownership import OWNER
from orchestrator.study.formats import SWEEP
from orchestrator.study.journal import DamagedJournalError, Journal, lock_file
from orchestrator.study.journal_lines import CREATE_STUDY, STUDY_NOTE, TRIAL_NOTE, NewerRecordError, Record, written
from orchestrator.study.lease import claims, without_driver
from orchestrator.study.missing import missing_sweep
from orchestrator.study.records import PAUSED, RUNG, missing_params
from orchestrator.study.requests import budget_note, trials_added
from orchestrator.study.salvage import WORKER, Salvage, salvage
from orchestrator.study.storage import ID, kept_sweep
from search_spaces.sweep import Sweep, read_kept
from trainers.config import KIMG
from trainers.data.files import replaced
from trainers.errors import InputError

_ATTEMPT = "attempt"
#: Most places of the file that are listed one by one.
_MOST_LISTED = 20


def repair(folder: Path, dry_run: bool = False) -> list[str]:
    """Replaces the journal of the sweep in `folder` by what is whole of it, and returns in lines what was found.

    The damaged journal is kept as `study.journal.damaged-N`. If the journal is whole, or with `dry_run`, nothing is
    changed. Raises InputError if there is no journal, if nothing of it is whole, if a driver is at work, if the sweep's
    text is lost, or if its store cannot be read.
    """
    path = folder / JOURNAL
    if not path.exists():
        raise _no_journal(folder)
    try:
        Journal(str(path)).read_logs(0)
    except DamagedJournalError:
        data = path.read_bytes()
    else:
        return [f"{folder.name}: {path} is whole; there is nothing to repair"]
    records, lines = _repaired(data, folder)
    if dry_run:
        return [*lines, "this is a dry run: nothing is changed"]
    with without_driver(folder.name, folder, claims(_notes(records))):
        backup = _replace(path, data, written(records, 0, 0))
    return [*lines, f"the damaged journal is kept as {backup}"]


def _no_journal(folder: Path) -> InputError:
    if not (folder / SWEEP_FILE).exists():
        return missing_sweep(folder)
    if kept_sweep(folder).study.storage is None:
        return InputError(f"{folder.name}: {folder / JOURNAL} is missing; restore it from a backup")
    return InputError(f"{folder.name}: a database keeps its study, so that it has no journal")


def _replace(path: Path, before: bytes, after: bytes) -> Path:
    """Puts `after` in place of `before`, of which a copy is kept; returns the copy's path."""
    with open(path, "rb") as file:
        lock_file(file, path, fcntl.LOCK_EX)
        if file.read() != before:
            raise InputError(f"{path}: it has changed while it was examined; run the command again")
        backup = next(each for n in count(1) if not (each := path.with_name(f"{path.name}.damaged-{n}")).exists())
        with replaced(backup) as temporary:
            shutil.copy2(path, temporary)
            _sync(temporary)
        with replaced(path) as temporary:
            temporary.write_bytes(after)
            _sync(temporary)
    return backup


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _repaired(data: bytes, folder: Path) -> tuple[list[Record], list[str]]:
    """The records of the repaired journal, and in lines what was found."""
    try:
        found = salvage(data, _name(folder))
    except NewerRecordError as error:
        raise InputError(f"{folder / JOURNAL}: a line {error}") from None
    if not found.kept:
        raise InputError(f"{folder / JOURNAL}: nothing of it is whole; restore it from a backup")
    sweep = _sweep(found, folder)
    try:
        objects = store_of(sweep, folder).objects
        said = _complete_study(found, sweep, folder, objects)
        if found.most_lost:
            known = {number for number in _trials_in_store(objects) if number < len(_trials(found)) + found.most_lost}
            found.reserve(1 + max(known, default=-1))
        trials = _trials(found)
        unknown = {trial.number for trial in trials if missing_params(sweep, trial.params)} - set(found.lost)
        found.drop(unknown)
        whole = [trial for trial in trials if trial.number not in found.lost]
        said += [*_lost_trials(found, unknown), *_lost_rungs(whole, sweep)]
        complete = {trial.number for trial in whole if trial.state is TrialState.COMPLETE}
        found.reopen({trial.number for trial in whole if trial.number in complete and _missing_rungs(trial, sweep)})
        found.forget_values({(t.number, step) for t in _trials(found) for step in _values_without_rung(t)})
        records = [*(record for _, record in found.kept), *_going_on(found, objects)]
    except (UnavailableError, OSError) as error:
        raise InputError(f"the store of sweep {sweep.name} is needed, and cannot be read: {error}") from None
    title = f"{folder.name}: {len(whole)} of {len(trials)} trials can be kept"
    return records, [title, *_faults(found, data.split(b"\n")), *said]


def _name(folder: Path) -> str | None:
    """The sweep's name, as its file says; None if that cannot be read."""
    try:
        return kept_sweep(folder).name
    except InputError:
        return None


def _sweep(found: Salvage, folder: Path) -> Sweep:
    """The sweep, as the journal or the file beside it has it. Raises InputError if neither has it."""
    notes = _notes(record for _, record in found.kept)
    if SWEEP in notes:
        return read_kept(notes[SWEEP])
    try:
        return kept_sweep(folder)
    except InputError:
        text = f"neither {JOURNAL} nor {SWEEP_FILE} has the text of the sweep any more; restore one from a backup"
        raise InputError(f"{folder}: {text}") from None


def _complete_study(found: Salvage, sweep: Sweep, folder: Path, objects: Objects) -> list[str]:
    """Adds what a study cannot be without, from the sweep and its store. Returns what was lost."""
    notes, said = _notes(record for _, record in found.kept), []
    if SWEEP not in notes:
        said.append(f"  the sweep's text and budget are taken from {folder / SWEEP_FILE}")
        found.kept.append((None, _study_note(SWEEP, sweep.normalised())))
        key, budget = budget_note(sweep.budget, notes)
        if key not in notes and trials_added(notes):  # the budget in the file has them already
            found.kept.append((None, _study_note(key, budget)))
    if found.kept[0][1]["op_code"] != CREATE_STUDY:
        codes = [int(StudyDirection[each.upper()]) for each in directions(sweep)]
        begun = {"op_code": CREATE_STUDY, "worker_id": WORKER, "study_name": sweep.name, "directions": codes}
        found.kept.insert(0, (None, begun))
    if ID not in notes:
        known = _id_in_store(objects)
        said.append(f"  the study's id is lost{', and taken from its store' if known else '; MLflow gets new runs'}")
        if known is not None:
            found.kept.append((None, _study_note(ID, known)))
    return said


def _study_note(key: str, value: Any) -> Record:
    return {"op_code": STUDY_NOTE, "worker_id": WORKER, "study_id": 0, "user_attr": {key: value}}


def _id_in_store(objects: Objects) -> str | None:
    try:
        return str(json.loads(objects.get(OWNER)[0])["id"])
    except (MissingError, ValueError, TypeError, KeyError):
        return None


def _attempt_in_store(objects: Objects, number: int) -> int:
    try:
        found = holder(objects, number)
    except ValueError:  # the object is damaged
        found = None
    return found[0] if found else 0


def _trials_in_store(objects: Objects) -> set[int]:
    return {int(each.key.split("/")[1]) for each in objects.find("trials/") if each.key.split("/")[1].isdecimal()}


def _notes(records: Iterator[Record] | Sequence[Record]) -> dict[str, Any]:
    """The notes on the study among `records`."""
    return {k: v for each in records if each["op_code"] == STUDY_NOTE for k, v in each["user_attr"].items()}


class _Memory(BaseJournalBackend):  # type: ignore[misc]  # optuna is not checked
    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records

    def read_logs(self, log_number_from: int) -> Sequence[Record]:
        return self._records[log_number_from:]

    def append_logs(self, logs: list[Record]) -> None:
        raise NotImplementedError


def _trials(found: Salvage) -> list[FrozenTrial]:
    """The trials as Optuna reads them from the records that are kept."""
    storage = JournalStorage(_Memory([record for _, record in found.kept]))
    (study,) = storage.get_all_studies()
    return list(storage.get_all_trials(study._study_id))


def _going_on(found: Salvage, objects: Objects) -> Iterator[Record]:
    """What trials that go on need: the number of the last attempt, and a rung if they are paused.

    The store, which has the number, refuses an attempt with a smaller one.
    """
    for trial in _trials(found):
        if trial.state.is_finished():
            continue
        attempt = _attempt_in_store(objects, trial.number)
        if attempt > trial.user_attrs.get(_ATTEMPT, 0):
            yield _trial_note(trial.number, _ATTEMPT, attempt)
        if trial.user_attrs.get(PAUSED) and not _passed(trial):
            yield _trial_note(trial.number, PAUSED, False)


def _trial_note(trial: int, key: str, value: Any) -> Record:
    return {"op_code": TRIAL_NOTE, "worker_id": WORKER, "trial_id": trial, "user_attr": {key: value}}


def _faults(found: Salvage, contents: Sequence[bytes]) -> Iterator[str]:
    """What is wrong with the file, by its lines."""
    runs: list[list[int]] = []
    for number in sorted(found.faults):
        if runs and number == runs[-1][-1] + 1 and found.faults[number] == found.faults[number - 1]:
            runs[-1].append(number)
        else:
            runs.append([number])
    for run in runs[:_MOST_LISTED]:
        lines = f"lines {run[0]} to {run[-1]}" if len(run) > 1 else f"line {run[0]}{_seems(contents[run[0] - 1])}"
        yield f"  left out: {lines}: {found.faults[run[0]]}"
    if len(runs) > _MOST_LISTED:
        yield f"  left out: {sum(map(len, runs[_MOST_LISTED:]))} more lines"
    if found.moved:
        yield "  lines stood in the wrong order, and are put back by their numbers"
    if found.missing is None:
        yield "  no line has a checksum: a value that was changed inside a line is not noticed"
    elif found.missing:
        yield f"  records that are lost by the count of the checksums: {found.missing}"


def _seems(content: bytes) -> str:
    """To what a damaged line seems to belong, as far as it can be read."""
    trial = re.search(rb'"trial_id":(\d{1,9})\b', content)
    note = re.search(rb'"(?:user_attr|param_name)":(?:\{)?"([\w: -]{1,40})"', content)
    parts = [f"trial {trial[1].decode()}" if trial else "", note[1].decode() if note else ""]
    known = ", ".join(filter(None, parts))
    return f" (it seems to be of {known})" if known else ""


def _lost_trials(found: Salvage, unknown: set[int]) -> Iterator[str]:
    for trial, records in sorted(found.lost.items()):
        what = "a parameter of it" if trial in unknown else "its creation"
        yield f"  trial {trial} counts as failed, since {what} is lost; {records} whole records of it are left out"


def _passed(trial: FrozenTrial) -> set[int]:
    """Images of the rungs that the trial has."""
    return {int(key.removeprefix(RUNG)) for key in trial.user_attrs if key.startswith(RUNG)}


def _missing_rungs(trial: FrozenTrial, sweep: Sweep) -> list[int]:
    """Images of the rungs that the trial must have passed and does not have."""
    passed = _passed(trial)
    last = sweep.rungs[-1] if trial.state is TrialState.COMPLETE else max(passed, default=0)
    if trial.user_attrs.get(PAUSED) and not trial.state.is_finished():
        last = max(last, sweep.rungs[0])
    return [images for images in sweep.rungs if images <= last and images not in passed]


def _values_without_rung(trial: FrozenTrial) -> set[int]:
    """Images of the values that a trial which goes on reports once more, with their rungs."""
    return set() if trial.state.is_finished() else set(trial.intermediate_values) - _passed(trial)


def _lost_rungs(trials: Sequence[FrozenTrial], sweep: Sweep) -> Iterator[str]:
    for trial in trials:
        if missing := _missing_rungs(trial, sweep):
            places = ", ".join(f"{images / KIMG:g}" for images in missing)
            ended = trial.state.is_finished() and trial.state is not TrialState.COMPLETE
            then = "" if ended else "; resume reads them from its checkpoint"
            yield f"  trial {trial.number}: its rungs at {places} kimg are lost{then}"
