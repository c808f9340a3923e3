"""The composition root: study + Ray + store + tracker -> a sweep run to its end.

There is no separate way to resume: launching a sweep that exists goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from orchestrator.cluster.nodes import check_address, check_fits, check_shared, cluster, room_for
from orchestrator.cluster.trial import prepare_scoring
from orchestrator.decisions.failures import Failure
from orchestrator.driver.progress import Progress, failure_line, final_line
from orchestrator.driver.warm_start import earlier_studies, lessons
from orchestrator.report import write_report
from orchestrator.store import TrialStore, check_store, store_of
from orchestrator.study.lease import driven, driving, holder
from orchestrator.study.records import TrialRecord
from orchestrator.study.status import SweepStatus, read_status, status_of
from orchestrator.study.storage import keep_sweep
from orchestrator.study.study import SweepStudy
from orchestrator.tracking.process import GridsOf, TrackerProcess
from orchestrator.tracking.retry_queue import Relay
from search_spaces.sweep import Sweep, check_sweep, diff
from trainers.errors import InputError
from trainers.run import pick_device

if TYPE_CHECKING:
    from orchestrator.tracking.retry_queue import AnyTracker
    from orchestrator.tracking.tracker import Tracker

REPORT = "report.html"


def cache_of(root: Path) -> Path:
    """Folder of trained and downloaded extractors, shared by the sweeps below `root`."""
    return root / "cache"


def launch(sweep: Sweep, root: Path, console: Console, address: str | None = None) -> SweepStatus:
    """Begins or continues `sweep` and runs it until its budget is used and its finals are scored, or Ctrl-C.

    It runs on the Ray cluster at `address`, by default on this machine alone.

    A sweep that exists takes over a changed budget of the file. Raises InputError before anything starts where the
    sweep cannot run, where it exists under the same name with other settings, or where another driver is at work on
    it; LeaseLostError where another driver has taken over since.
    """
    folder = root / sweep.name
    known = SweepStudy.open(folder, sweep.study.storage)
    if known is not None and (but_budget := known.sweep.model_copy(update={"budget": sweep.budget})) != sweep:
        raise InputError(
            f"{sweep.name}: a sweep of this name exists with other settings; "
            f"give this one another --name, or change no more than its budget\n{diff(but_budget, sweep)}"
        )
    if address is None:
        check_fits(sweep)
    else:
        check_shared(sweep)
        check_address(address)
    check_sweep(sweep, cache_of(root))
    check_store(sweep)
    if known is None or not known.taught:
        earlier_studies(sweep, root)
    if known is not None and _same_budget(known, sweep) and _complete(known) and _left_in_order(known):
        folder.mkdir(parents=True, exist_ok=True)
        keep_sweep(folder, known.sweep)
        console.print(f"sweep {sweep.name} is complete")
        return status_of(known)
    with TrackerProcess() as tracker, _room_at(address, sweep):
        folder.mkdir(parents=True, exist_ok=True)
        study = known or SweepStudy.create(folder, sweep)
        with driving(sweep.name, folder, study.lease_records, console.print) as lease:
            study.drive(lease)
            if not _same_budget(study, sweep):
                study.change_budget(sweep.budget)
                console.print(f"sweep {sweep.name}: from now on its budget is {sweep.budget}", highlight=False)
            keep_sweep(folder, study.sweep)
            if not _complete(study):
                _drive(study, root, console, tracker, address)
            else:
                _track_what_is_missing(study, root, console, tracker)
    return read_status(folder)


@contextmanager
def _room_at(address: str | None, sweep: Sweep) -> Iterator[None]:
    """The cluster at `address`, which has room for a trial. This machine's own is started later, beside other work."""
    if address is None:
        yield
    else:
        with cluster(address):
            room_for(sweep.resources)
            yield


def _same_budget(study: SweepStudy, sweep: Sweep) -> bool:
    """Whether `sweep` has the budget of the file launched last, or the one that holds: nobody wants another one."""
    return sweep.budget in (study.budget_in_file, study.sweep.budget)


def _complete(study: SweepStudy) -> bool:
    found = status_of(study)
    return found.state == "complete" and not found.finals_missing


def _left_in_order(study: SweepStudy) -> bool:
    """Whether the last driver came to its end: one that was killed may not have written report and tracker."""
    last = holder(study.claims)
    return last is None or last.state == "ended"


def _drive(study: SweepStudy, root: Path, console: Console, tracker: TrackerProcess, address: str | None) -> None:
    # Cluster, tracker and extractor each take seconds to get ready, and none needs the others.
    opening = partial(tracker.open, root, study.sweep.normalised(), study.id)
    with (
        ThreadPoolExecutor(1) as pool,
        Progress(console, study.sweep) as progress,
        Relay(opening, progress.say, study.check) as relay,
    ):
        relay.put("open", lambda tracker: None)
        progress.say(f"sweep {study.sweep.name}: budget {study.sweep.budget}, below {study.folder}")
        preparing = pool.submit(prepare_scoring, study.sweep, cache_of(root), pick_device())
        with cluster() if address is None else nullcontext():
            from orchestrator.cluster import tune
            from orchestrator.cluster.gpu_sharing import settled

            room = room_for(settled(study, progress.say))
            _, evaluator = preparing.result()
            progress.say(f"extractor {evaluator.extractor.id}; {room.trials(idle=True)} trials at a time")
            if study.sweep.warm_start and not study.taught:
                found = [lessons(study.sweep, earlier, evaluator) for earlier in earlier_studies(study.sweep, root)]
                study.teach([trial for each in found for trial in each.trials])
                progress.say("\n".join(map(str, found)))
            follower = _Follower(study, relay, progress)
            if status_of(study).state != "complete":
                with _lost_lease_first(study):
                    tune.run_trials(study, cache_of(root), room, follower)
            # What trials could not publish while the store was away is published before anybody asks for it.
            store_of(study.sweep, study.folder).drain(wait=status_of(study).state == "complete")
            missing = status_of(study).finals_missing
            if missing and not study.leaving:
                numbers = ", ".join(str(record.number) for record in missing)
                progress.say(f"finals: trials {numbers} on {study.sweep.finals.samples:,} images each")
                # As among trials, what is done is kept and shown.
                with _lost_lease_first(study), suppress(KeyboardInterrupt):
                    tune.run_finals(study, cache_of(root), room, missing, follower)
        study.check()
        if not _finish_tracking(study, relay, progress.say):
            progress.say(_missing(study))


def _track_what_is_missing(study: SweepStudy, root: Path, console: Console, tracker: TrackerProcess) -> None:
    say = partial(console.print, highlight=False, soft_wrap=True)
    with Relay(partial(tracker.open, root, study.sweep.normalised(), study.id), say, study.check) as relay:
        if not _finish_tracking(study, relay, say):
            say(_missing(study))


def _missing(study: SweepStudy) -> str:
    return f"tracking: something is missing; `gansweep rebuild-tracking {study.sweep.name}` writes it"


def rebuild_tracking(study: SweepStudy, root: Path, console: Console) -> None:
    """Writes whatever MLflow lacks of a sweep: all of it, where its records are lost.

    Raises InputError where a driver is at work on the sweep, which writes itself, or where MLflow is away.
    """
    if driven(study.claims, study.folder):
        raise InputError(f"{study.sweep.name}: a driver is at work and writes to MLflow itself; stop it first")
    say = partial(console.print, highlight=False, soft_wrap=True)
    with Relay(partial(_open_thorough_tracker, root, study), say) as relay:
        if not _finish_tracking(study, relay, say):
            raise InputError(f"{study.sweep.name}: not all is written, for the reason above; try again later")


@contextmanager
def _lost_lease_first(study: SweepStudy) -> Iterator[None]:
    """Where the lease is lost, that explains whatever else fails."""
    try:
        yield
    except Exception:
        study.check()
        raise
    study.check()


def _open_thorough_tracker(root: Path, study: SweepStudy) -> Tracker:
    from orchestrator.tracking.tracker import Tracker  # seconds to import

    return Tracker(root, study.sweep, study.id, thorough=True)


def _finish_tracking(study: SweepStudy, relay: Relay, say: Callable[[str], object]) -> bool:
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


class _Follower:
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
