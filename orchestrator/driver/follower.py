"""Carries what happens to the trials to the tracker and the screen, and at the end what they still lack."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.decisions.failures import Failure
from orchestrator.driver.progress import Progress, failure_line, final_line
from orchestrator.paths import REPORT
from orchestrator.report import write_report
from orchestrator.store import TrialStore, store_of
from orchestrator.study.records import TrialRecord
from orchestrator.study.status import status_of
from orchestrator.study.study import SweepStudy
from orchestrator.tracking.process import GridsOf
from orchestrator.tracking.retry_queue import Relay
from trainers.errors import InputError

if TYPE_CHECKING:
    from orchestrator.tracking.retry_queue import AnyTracker


class Follower:
    """Carries what happens to the trials to the tracker and the screen."""

    def __init__(self, study: SweepStudy, relay: Relay, progress: Progress) -> None:
        self._study, self._relay, self._progress = study, relay, progress
        self._grids = GridsOf(study.sweep.normalised(), study.folder)

    def changed(self, number: int) -> None:
        """Trial `number` has begun, passed a rung or ended."""
        self._study.check()
        record = self._study.record(number)
        self._relay.put(number, partial(_sync, record, self._grids))
        if record.state == "complete" and len(self._study.sweep.objectives) > 1:
            self._relay.put("front", partial(_mark, status_of(self._study).pareto))
        self._progress.show(record, self._study.sweep.budget.trials, partial(status_of, self._study))

    def failed(self, number: int, failure: Failure) -> None:
        """An attempt at trial `number` failed, which may go on all the same."""
        self._progress.say(failure_line(number, failure))

    def scored(self, number: int) -> None:
        """The best checkpoint of trial `number` has been scored again, or could not be."""
        self._study.check()
        record = self._study.record(number)
        self._relay.put(number, partial(_sync, record, self._grids))
        self._progress.say(final_line(record))


def finish_tracking(study: SweepStudy, relay: Relay, say: Callable[[str], object]) -> bool:
    """Writes the report and what the tracker lacks, the winner's model last; whether MLflow has all of it."""
    status, store, report = status_of(study), store_of(study.sweep, study.folder), study.folder / REPORT
    write_report(status, study, report)
    grids = GridsOf(study.sweep.normalised(), study.folder)
    for record in status.records:  # a driver may have died between study and tracker
        relay.put(record.number, partial(_sync, record, grids))
    if not relay.drain():
        return False
    relay.put("end", lambda tracker: tracker.finish(status, report))
    if status.state == "complete" and status.best is not None:
        relay.put("winner", partial(_register, status.best, store, say), alone=True)
    return relay.drain()


def _sync(record: TrialRecord, grids: GridsOf, tracker: AnyTracker) -> None:
    tracker.sync(record, grids)


def _mark(front: list[int], tracker: AnyTracker) -> None:
    tracker.mark(front)


def _register(winner: TrialRecord, store: TrialStore, say: Callable[[str], object], tracker: AnyTracker) -> None:
    assert winner.best is not None
    try:
        with store.at(winner.number, winner.best.images) as checkpoint:
            tracker.register(winner, checkpoint)
    except InputError as error:  # no other try will find it
        say(f"the winner is not registered: {error}")
