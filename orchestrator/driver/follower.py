"""Shows what happens to the trials in the tracker and on the screen, and completes the tracker at the end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from orchestrator.decisions.failures import Failure
from orchestrator.driver.progress import Progress, failure_line, final_line
from orchestrator.paths import REPORT
from orchestrator.report import write_report
from orchestrator.store import TrialStore, store_of
from orchestrator.study.records import TrialRecord
from orchestrator.study.status import status_of
from orchestrator.study.study import SweepStudy
from orchestrator.tracking.interface import TrackerInterface
from orchestrator.tracking.process import StoredGrids
from orchestrator.tracking.retry_queue import RetryQueue
from trainers.errors import InputError


class Follower:
    """Shows what happens to the trials in the tracker and on the screen. See `cluster.listener.Listener`."""

    def __init__(self, study: SweepStudy, queue: RetryQueue, progress: Progress) -> None:
        self._study, self._queue, self._progress = study, queue, progress
        self._grids = StoredGrids(study.sweep.normalised(), study.folder)

    def changed(self, number: int) -> None:
        """Trial `number` has begun, passed a rung or ended."""
        self._study.limits.check()
        record = self._study.record(number)
        self._queue.put(number, partial(_sync, record, self._grids))
        if record.state == "complete" and len(self._study.sweep.objectives) > 1:
            self._queue.put("front", partial(_mark, status_of(self._study).pareto))
        self._progress.show(record, self._study.sweep.budget.trials, partial(status_of, self._study))

    def failed(self, number: int, failure: Failure) -> None:
        """An attempt at trial `number` failed; the trial may go on."""
        self._progress.say(failure_line(number, failure))

    def scored(self, number: int) -> None:
        """The best checkpoint of trial `number` was scored again, or that failed."""
        self._study.limits.check()
        record = self._study.record(number)
        self._queue.put(number, partial(_sync, record, self._grids))
        self._progress.say(final_line(record))


def finish_tracking(study: SweepStudy, queue: RetryQueue, say: Callable[[str], object]) -> bool:
    """Writes the report, then what the tracker lacks, the winner's model last. Returns whether the tracker has it.

    Raises LeaseLostError if another driver has taken over meanwhile: the tracker is its own then.
    """
    tracked = _finished(study, queue, say)
    study.limits.check()
    return tracked


def _finished(study: SweepStudy, queue: RetryQueue, say: Callable[[str], object]) -> bool:
    status, store, report = status_of(study), store_of(study.sweep, study.folder), study.folder / REPORT
    write_report(status, study, report)
    grids = StoredGrids(study.sweep.normalised(), study.folder, required=True)  # nobody would look for them again
    for record in status.records:  # a driver that was killed may not have written them
        queue.put(record.number, partial(_sync, record, grids))
    if not queue.drain():
        return False
    queue.put("end", lambda tracker: tracker.finish(status, report))
    if status.state == "complete" and status.best is not None:
        queue.put("winner", partial(_register, status.best, store, say), alone=True)
    return queue.drain()


def _sync(record: TrialRecord, grids: StoredGrids, tracker: TrackerInterface) -> None:
    tracker.sync(record, grids)


def _mark(front: list[int], tracker: TrackerInterface) -> None:
    tracker.mark(front)


def _register(winner: TrialRecord, store: TrialStore, say: Callable[[str], object], tracker: TrackerInterface) -> None:
    assert winner.best is not None
    try:
        with store.at(winner.number, winner.best.images) as checkpoint:
            tracker.register(winner, checkpoint)
    except InputError as error:  # the checkpoint is missing, and trying again would not help
        say(f"the winner is not registered: {error}")
