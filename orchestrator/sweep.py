"""The composition root: study + Ray + store + tracker -> a sweep run to its end.

There is no separate way to resume: launching a sweep that exists goes on with it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from orchestrator.progress import Progress, final_line
from orchestrator.report import write_report
from orchestrator.status import SweepStatus, driver_lock, read_status, status_of
from orchestrator.store import store_of
from orchestrator.study import SweepStudy
from orchestrator.trial import prepare_scoring
from search_spaces.sweep import Sweep, check_sweep, diff
from trainers.errors import InputError
from trainers.run import pick_device

if TYPE_CHECKING:
    from orchestrator.tracking import Tracker

REPORT = "report.html"


def cache_of(root: Path) -> Path:
    """Folder of trained and downloaded extractors, shared by the sweeps below `root`."""
    return root / "cache"


def launch(sweep: Sweep, root: Path, console: Console) -> SweepStatus:
    """Begins or continues `sweep` and runs it until its budget is used and its finals are scored, or Ctrl-C.

    Raises InputError before anything starts where the sweep cannot run, where it exists under the same name with
    other settings, or where another driver is at work on it.
    """
    folder = root / sweep.name
    known = SweepStudy.open(folder)
    if known is not None and known.sweep != sweep:
        raise InputError(
            f"{sweep.name}: a sweep of this name exists with other settings; "
            f"give this one another --name, or launch it unchanged\n{diff(known.sweep, sweep)}"
        )
    check_sweep(sweep, cache_of(root))
    with driver_lock(folder):
        study = SweepStudy.open(folder) or SweepStudy.create(folder, sweep)
        (folder / "sweep.yaml").write_text(sweep.normalised())
        found = status_of(study)
        if found.state == "complete" and not found.finals_missing:
            console.print(f"sweep {sweep.name} is complete")
        else:
            _drive(study, root, console)
    return read_status(folder)


def _drive(study: SweepStudy, root: Path, console: Console) -> None:
    # Cluster, tracker and extractor each take seconds to get ready, and none needs the others.
    with ThreadPoolExecutor(2) as pool, Progress(console, study.sweep) as progress:
        progress.say(f"sweep {study.sweep.name}: {study.sweep.budget.trials} trials below {study.folder}")
        preparing = pool.submit(prepare_scoring, study.sweep, cache_of(root), pick_device())
        opening = pool.submit(_open_tracker, root, study.sweep)
        from orchestrator import tune

        with tune.cluster():
            concurrent = tune.capacity(study.sweep)
            _, evaluator = preparing.result()
            progress.say(f"extractor {evaluator.extractor.id}; {concurrent} trials at a time")
            tracker = opening.result()
            follower = _Follower(study, tracker, progress)
            if status_of(study).state != "complete":
                tune.run_trials(study, cache_of(root), concurrent, follower)
            if missing := status_of(study).finals_missing:
                numbers = ", ".join(str(record.number) for record in missing)
                progress.say(f"finals: trials {numbers} on {study.sweep.finals.samples:,} images each")
                with suppress(KeyboardInterrupt):  # as among trials: what is done is kept and shown
                    tune.run_finals(study, cache_of(root), concurrent, missing, follower)
        _finish_tracking(study, tracker)


def _open_tracker(root: Path, sweep: Sweep) -> Tracker:
    from orchestrator.tracking import Tracker

    return Tracker(root, sweep)


def _finish_tracking(study: SweepStudy, tracker: Tracker) -> None:
    status, store = status_of(study), store_of(study.sweep, study.folder)
    for record in status.records:  # a driver may have died between study and tracker
        tracker.sync(record, store.grids(record.number))
    report = study.folder / REPORT
    write_report(status, study, report)
    tracker.finish(status, report)


class _Follower:
    """Carries what happens to the trials to the tracker and the screen."""

    def __init__(self, study: SweepStudy, tracker: Tracker, progress: Progress) -> None:
        self._study, self._tracker, self._progress = study, tracker, progress
        self._store = store_of(study.sweep, study.folder)

    def changed(self, number: int) -> None:
        """Trial `number` has begun, passed a rung or ended."""
        status = status_of(self._study)
        record = status.records[number]
        self._tracker.sync(record, self._store.grids(number))
        self._progress.show(status, record)

    def scored(self, number: int) -> None:
        """The best checkpoint of trial `number` has been scored again, or could not be."""
        record = status_of(self._study).records[number]
        self._tracker.sync(record, self._store.grids(number))
        self._progress.say(final_line(record))
