"""The composition root: connects study, cluster, store and tracker, and runs a sweep to its end.

There is no separate way to resume: launching a sweep that exists continues it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from rich.console import Console

from orchestrator.cluster import signals
from orchestrator.cluster.nodes import capacity_for, check_address, check_fits, check_shared, cluster
from orchestrator.cluster.runs import Prepared, check_same_images, preparation
from orchestrator.driver.ending import lease_first, leave
from orchestrator.driver.follower import Follower, finish_tracking
from orchestrator.driver.ownership import check_store_owner, take_idle_store, take_store, undone_if_foreign
from orchestrator.driver.progress import Progress
from orchestrator.driver.warm_start import earlier_studies, prior_trials
from orchestrator.paths import SWEEP_FILE, cache_of
from orchestrator.store import check_store, store_of
from orchestrator.study.inputs import same_but_for_place
from orchestrator.study.lease import hold_lease, last_claim
from orchestrator.study.samplers import check_named_classes
from orchestrator.study.status import SweepStatus, read_status, status_of
from orchestrator.study.storage import keep_sweep, kept_sweep
from orchestrator.study.study import SweepStudy
from orchestrator.tracking.address import tracker_of_environment
from orchestrator.tracking.process import TrackerProcess
from orchestrator.tracking.retry_queue import RetryQueue
from search_spaces.load import check_sweep, read_images
from search_spaces.sweep import Sweep, changed_keys, completed, diff
from trainers.data.images import Images
from trainers.errors import InputError
from trainers.evaluation.evaluator import Evaluator


def launch(sweep: Sweep, root: Path, console: Console, address: str | None = None) -> SweepStatus:
    """Begins or continues `sweep` and runs it until its budget is used and its finals are scored.

    It runs on the Ray cluster at `address`, by default on this machine alone. After Ctrl-C, SIGTERM or SIGHUP it raises
    KeyboardInterrupt; what is done until then is kept, and is in the report.

    A sweep that exists keeps its value of each key that the file leaves out, and takes over a changed budget and a new
    place of its data. Raises InputError before any trial starts if the sweep cannot run, if it exists under the same
    name with other settings or other data, or if another driver is at work on it; LeaseLostError if another driver
    takes over later.
    """
    signals.read_grace()
    folder = root / sweep.name
    known = SweepStudy.open(folder, sweep.study.storage)
    if known is not None:
        sweep = _agreed(sweep, known.sweep, console)
    moved = known is not None and sweep.dataset != known.sweep.dataset
    if known is not None and not moved and _same_budget(known, sweep) and _complete(known) and _ended_properly(known):
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / SWEEP_FILE).exists() or kept_sweep(folder) != known.sweep:
            keep_sweep(folder, known.sweep)
        take_idle_store(known, console.print)
        found = status_of(known)
        console.print(f"sweep {sweep.name} {'is complete' if found.fault is None else 'has failed'}")
        return found
    if address is None:
        if notice := check_fits(sweep):
            console.print(notice, highlight=False, soft_wrap=True)
    else:
        check_shared(sweep)
        check_address(address)
    notices, images = check(sweep, root, lambda: known), read_images(sweep, cache_of(root))
    for notice in (*notices, *images[0].notices):
        console.print(f"warning: {notice}", highlight=False, soft_wrap=True)
    if known is not None and moved:
        check_same_images(sweep, images, known.inputs.known)
    if known is None or not known.has_prior_trials:
        earlier_studies(sweep, root)
    with TrackerProcess() as tracker, _cluster_at(address, sweep):
        folder.mkdir(parents=True, exist_ok=True)
        study = known or SweepStudy.create(folder, sweep, counts=False)
        with undone_if_foreign(folder), hold_lease(sweep.name, folder, study.lease_records, console.print) as lease:
            study.drive(lease)
            take_store(study)
            study.limits.move_data(sweep.dataset)
            study.upgrade()
            if not _same_budget(study, sweep):
                study.limits.change_budget(sweep.budget)
                console.print(f"sweep {sweep.name}: from now on its budget is {sweep.budget}", highlight=False)
            keep_sweep(folder, study.sweep)
            if not _complete(study):
                _drive(study, root, console, tracker, address, images)
            else:
                _track_what_is_missing(study, root, console, tracker)
    return read_status(folder)


def check(sweep: Sweep, root: Path, find: Callable[[], SweepStudy | None]) -> list[str]:
    """Checks the data, the extractor, the store, and the classes that `sweep` names.

    Starts nothing, and reads images only if the data's `verify` is false. `find` opens the sweep's study, if there is
    one. Returns what people should know all the same. Raises InputError with one line for each fault.
    """
    check_sweep(sweep, cache_of(root))
    check_store(sweep)
    check_store_owner(sweep, root / sweep.name, find)
    return [*check_named_classes(sweep), *filter(None, [tracker_of_environment(sweep)])]


def _agreed(sweep: Sweep, known: Sweep, console: Console) -> Sweep:
    """The sweep of a file as it goes on with the one that exists under its name.

    Raises InputError with a diff if the file gives a key another value, budget and place of the data excepted.
    """
    agreed = completed(sweep, known)
    free = {"budget": sweep.budget, "dataset": same_but_for_place(known.dataset, agreed.dataset)}
    allowed = known.model_copy(update=free)
    if agreed != allowed:
        raise InputError(
            f"{sweep.name}: a sweep of this name exists with other settings; give this one another --name, or change "
            f"no more than its budget and the place of its data\n{diff(allowed, agreed)}"
        )
    if kept := [key for key in changed_keys(sweep, agreed) if key != "defaults"]:
        text = f"sweep {sweep.name}: kept as in the existing sweep, since the file leaves it out: {', '.join(kept)}"
        console.print(text, highlight=False, soft_wrap=True)
    return agreed


@contextmanager
def _cluster_at(address: str | None, sweep: Sweep) -> Iterator[None]:
    """Connects to the cluster at `address` and checks that a trial fits on it. Without an address nothing happens yet.

    This machine's own cluster is started later, at the same time as the tracker and the extractor.
    """
    if address is None:
        yield
    else:
        with cluster(address):
            capacity_for(sweep.resources)
            yield


def _same_budget(study: SweepStudy, sweep: Sweep) -> bool:
    """Whether `sweep` asks for no new budget: its own is that of the file launched last, or the one in force."""
    return sweep.budget in (study.limits.budget_in_file, study.sweep.budget)


def _complete(study: SweepStudy) -> bool:
    found = status_of(study)
    return found.ended and not found.finals_missing


def _ended_properly(study: SweepStudy) -> bool:
    """Whether the last driver ended by itself: one that was killed may not have written report and tracker."""
    last = last_claim(study.limits.claims)
    return last is None or last.state == "ended"


def _drive(
    study: SweepStudy, root: Path, console: Console, tracker: TrackerProcess, address: str | None, images: Images
) -> None:
    # Cluster, tracker and extractor each take seconds to start, and do not depend on each other: they start together.
    opening = partial(tracker.open, root, study.sweep.normalised(), study.id)
    with (
        Progress(console, study.sweep) as progress,
        RetryQueue(opening, progress.say, study.limits.check) as queue,
    ):
        queue.put("open", lambda tracker: None)
        progress.say(f"sweep {study.sweep.name}: budget {study.sweep.budget}, below {study.folder}")
        learning = bool(study.sweep.warm_start) and not study.has_prior_trials
        earlier = earlier_studies(study.sweep, root) if learning else []
        preparing = signals.in_background(preparation(study, cache_of(root), earlier, images))
        try:
            with cluster() if address is None else nullcontext(), lease_first(study):
                _run(study, root, progress, queue, preparing, earlier)
            study.limits.check()
            tracked = finish_tracking(study, queue, progress.say)
        except KeyboardInterrupt:
            if not leave(study, queue):
                progress.say(_missing(study))
            raise
        if not tracked:
            progress.say(_missing(study))


def _run(
    study: SweepStudy,
    root: Path,
    progress: Progress,
    queue: RetryQueue,
    preparing: Future[Prepared],
    earlier: list[SweepStudy],
) -> None:
    """Trains the trials and scores the finals on the cluster that this process is connected to.

    A study that has not begun learns from the trials of the `earlier` ones.
    """
    from orchestrator.cluster import tune
    from orchestrator.cluster.finals import run_finals
    from orchestrator.cluster.gpu_sharing import with_shared_gpus

    _, evaluator, inputs = preparing.result()
    study.inputs.record(inputs)
    capacity = capacity_for(with_shared_gpus(study, progress.say))
    progress.say(f"extractor {evaluator.extractor.id}; {capacity.trials(idle=True)} trials at a time")
    if earlier:
        _keep_prior_trials(study, earlier, evaluator, progress)
    follower = Follower(study, queue, progress)
    if not status_of(study).ended:
        with _lost_lease_raised_first(study):
            tune.run_trials(study, cache_of(root), capacity, follower)
    # The finals read checkpoints: those that waited for an unavailable store are published first.
    store_of(study.sweep, study.folder).drain(wait=status_of(study).ended)
    missing = status_of(study).finals_missing
    if missing and not study.limits.leaving:
        numbers = ", ".join(str(record.number) for record in missing)
        progress.say(f"finals: trials {numbers} on {study.sweep.finals.samples:,} images each")
        with _lost_lease_raised_first(study):
            run_finals(study, cache_of(root), capacity, missing, follower)


def _keep_prior_trials(study: SweepStudy, earlier: list[SweepStudy], evaluator: Evaluator, progress: Progress) -> None:
    """Keeps the trials of earlier sweeps with the study, for its sampler, and says how many there are."""
    found = [prior_trials(study.sweep, each, evaluator) for each in earlier]
    study.keep_prior_trials([trial for each in found for trial in each.trials])
    progress.say("\n".join(map(str, found)))


def _track_what_is_missing(study: SweepStudy, root: Path, console: Console, tracker: TrackerProcess) -> None:
    say = partial(console.print, highlight=False, soft_wrap=True)
    with RetryQueue(partial(tracker.open, root, study.sweep.normalised(), study.id), say, study.limits.check) as queue:
        if not finish_tracking(study, queue, say):
            say(_missing(study))


def _missing(study: SweepStudy) -> str:
    return f"tracking: something is missing; `gansweep rebuild-tracking {study.sweep.name}` writes it"


@contextmanager
def _lost_lease_raised_first(study: SweepStudy) -> Iterator[None]:
    """Raises LeaseLostError in place of any other error of the block if the lease is lost, since that is the cause."""
    try:
        yield
    except Exception:
        study.limits.check()
        raise
    study.limits.check()
