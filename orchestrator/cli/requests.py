"""Asks a sweep from another shell or machine to stop, to pause, or to run more trials.

`folder` is the sweep's. If it does not exist here, the study is the one of that name in the database `storage`.
"""

from __future__ import annotations

from pathlib import Path

from orchestrator.cli.app import open_study
from orchestrator.decisions.budget import extended
from orchestrator.study.lease import Claim, running_driver
from orchestrator.study.requests import Request
from orchestrator.study.status import status_of
from orchestrator.study.study import SweepStudy
from search_spaces.advice import repeated_trials
from search_spaces.load import check_trials
from search_spaces.settings import MOST_TRIALS
from trainers.errors import InputError


def stop(folder: Path, storage: str | None, trial: int | None = None) -> str:
    """Asks the driver to stop the sweep, or one of its running trials, at the next rung; returns what will happen.

    Raises InputError if no driver is at work, or if the trial is neither running nor paused.
    """
    study = open_study(folder, storage)
    if trial is None:
        driver = _driver(study)
        study.limits.request(Request("stop", epoch=driver.epoch))
        return f"asked {driver.process} to stop {folder.name}: running trials end at their next rungs"
    records = study.records()
    if not 0 <= trial < len(records):
        raise InputError(f"{folder.name} has no trial {trial}; there are {len(records)}")
    if (state := records[trial].state) not in ("running", "paused"):
        raise InputError(f"{folder.name}: trial {trial} is {state} already")
    study.limits.request(Request("stop", trial=trial))
    return f"trial {trial} of {folder.name} ends at its next rung"


def pause(folder: Path, storage: str | None) -> str:
    """Asks the driver to end after the rungs under way. Raises InputError if no driver is at work."""
    study = open_study(folder, storage)
    driver = _driver(study)
    study.limits.request(Request("pause", epoch=driver.epoch))
    return f"asked {driver.process} to pause {folder.name} after the rungs under way"


def add_trials(folder: Path, storage: str | None, trials: int) -> str:
    """Adds `trials` to the budget of the sweep, whether it is running or complete; returns what will happen.

    Raises InputError if the budget does not limit the number of trials, or if the sweep cannot have so many.
    """
    study = open_study(folder, storage)
    if (before := study.sweep.budget.trials) is None:
        raise InputError(f"{folder.name}: its budget does not limit the number of trials: {study.sweep.budget}")
    most = MOST_TRIALS - before
    if not 1 <= trials <= most:
        raise InputError(f"add-trials {trials}: allowed are 1 to {most}")
    larger = study.sweep.model_copy(update={"budget": extended(study.sweep.budget, trials)})
    check_trials(larger, f"{folder.name} with {trials} more trials")
    study.limits.request(Request("add-trials", trials=trials))
    goes_on = "" if running_driver(study.limits.claims, folder) else f"; `gansweep resume {folder.name}` runs them"
    warned = "".join(f"\nwarning: {text}" for text in repeated_trials(larger))
    return f"{folder.name}: {before + trials} trials, {trials} of them new{goes_on}{warned}"


def _driver(study: SweepStudy) -> Claim:
    driver = running_driver(study.limits.claims, study.folder)
    if driver is None:
        raise InputError(f"{study.sweep.name} is {status_of(study).state}: no driver is at work")
    return driver
