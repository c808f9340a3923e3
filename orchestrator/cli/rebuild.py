"""`gansweep rebuild-tracking`: writes what MLflow lacks of a sweep."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rich.console import Console

from orchestrator.driver.follower import finish_tracking
from orchestrator.driver.ownership import check_own_store
from orchestrator.paths import mlflow_uri, sweep_names
from orchestrator.study.lease import running_driver
from orchestrator.study.study import SweepStudy
from orchestrator.tracking.address import tracker_of_environment, tracking_uri
from orchestrator.tracking.retry_queue import RetryQueue
from orchestrator.tracking.sqlite_file import move_aside
from orchestrator.tracking.tracker import Tracker
from trainers.errors import InputError


def rebuild_tracking(study: SweepStudy, root: Path, console: Console) -> None:
    """Writes what MLflow lacks of a sweep: everything, if its records are lost.

    A database below `root` that MLflow cannot use is moved aside first. Raises InputError if a driver is at work, since
    it writes to MLflow itself, if the store is another study's, or if MLflow cannot be reached.
    """
    if running_driver(study.limits.claims, study.folder):
        raise InputError(f"{study.sweep.name}: a driver is at work and writes to MLflow itself; stop it first")
    check_own_store(study)
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    if (notice := tracker_of_environment(study.sweep)) is not None:
        say(notice)
    if tracking_uri(study.sweep, root) == mlflow_uri(root) and (aside := move_aside(root)) is not None:
        say(f"MLflow could not use its database, which is kept as {aside}; a new one is written")
        if others := [name for name in sweep_names(root) if name != study.folder.name]:
            say(f"it had the runs of other sweeps too; `gansweep rebuild-tracking NAME` writes: {', '.join(others)}")
    with RetryQueue(partial(_open_thorough_tracker, root, study), say) as queue:
        if not finish_tracking(study, queue, say):
            raise InputError(f"{study.sweep.name}: not all is written, for the reason above; try again later")


def _open_thorough_tracker(root: Path, study: SweepStudy) -> Tracker:
    return Tracker(root, study.sweep, study.id, thorough=True)
