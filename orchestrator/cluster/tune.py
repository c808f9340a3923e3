"""Runs the study's trials with Ray Tune: places them on the cluster and reports their rungs to the study."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.error import TuneError
from ray.tune.execution import class_cache
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from orchestrator.cluster import signals
from orchestrator.cluster.listener import Listener
from orchestrator.cluster.nodes import Capacity, bundles
from orchestrator.cluster.trainable import REPORT, Trainable, log_tail
from orchestrator.decisions.failures import damaged_checkpoint, failure_of, reason_to_end_sweep
from orchestrator.paths import TUNE, process_log
from orchestrator.store import store_of
from orchestrator.study.study import Decision, SweepStudy, Ticket
from trainers.errors import InputError, named
from trainers.rungs import Rung

# Tune would pass AWS's keys to its processes through Ray, which writes them into logs that everybody can read.
# Processes on this machine inherit the keys, and other machines have their own.
class_cache.ENV_VARS_TO_PROPAGATE.difference_update(
    {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
)


class _Transient:
    """Has an empty pickle: Tune pickles searcher and scheduler into its experiment state, which nothing reads here."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _Transient:
        return self


class _StudySearcher(_Transient, Searcher):  # type: ignore[misc]
    """Hands Tune the study's trials, as many at a time as fit on the cluster."""

    def __init__(self, study: SweepStudy, common: dict[str, Any], capacity: Capacity, listener: Listener) -> None:
        super().__init__()
        self._study, self._common, self._capacity, self._listener = study, common, capacity, listener
        self.live: dict[str, Ticket] = {}
        """The trials that Tune runs, by Tune's id."""
        self.rungs: dict[str, dict[int, Rung]] = {}
        """What the attempts in `live` have reported, by Tune's id and by images."""
        self.errors: dict[str, str] = {}
        """Ray's error text of each live trial whose process failed, by Tune's id."""
        self._end: InputError | None = None
        """Why no trial can go on: a disk is full, or a node has other inputs than the study."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        # Tune calls this ten times a second, so a signal or a lost lease is noticed here first.
        signals.check()
        self._study.limits.check()
        if self._end is not None:
            raise self._end
        if len(self.live) >= self._capacity.trials(idle=not self.live):
            return None
        ticket = self._study.next_ticket()
        if ticket is None:
            return None if self.live else Searcher.FINISHED
        self.live[trial_id], self.rungs[trial_id] = ticket, {}
        self._listener.changed(ticket.number)
        return {**self._common, "number": ticket.number, "params": ticket.params, "attempt": ticket.attempt}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        ticket = self.live.pop(trial_id)
        del self.rungs[trial_id]
        if not error:
            return
        signals.check_death()  # with the driver's end it is no failure of its trial
        text = self.errors.pop(trial_id)
        failure = failure_of(ticket.attempt, text)
        log = log_tail(process_log(self._study.folder, ticket.number, ticket.attempt), text)
        goes_on = self._study.record_crash(ticket.number, failure, log)
        self._listener.failed(ticket.number, failure)
        if reason := reason_to_end_sweep(failure):
            text = f"sweep {self._study.sweep.name}: trial {ticket.number}: {reason}"
            self._end = InputError(text)  # raised in `suggest`, after all errors of this moment are recorded
        if not goes_on:
            self._listener.changed(ticket.number)

    def set_search_properties(self, *args: Any, **kwargs: Any) -> bool:
        return True

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the study keeps the whole state."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing: the study has the whole state."""


class _StudyScheduler(_Transient, FIFOScheduler):  # type: ignore[misc]
    """Reports each rung to the study and answers with its decision."""

    def __init__(self, study: SweepStudy, searcher: _StudySearcher, listener: Listener) -> None:
        super().__init__()
        self._study, self._searcher, self._listener = study, searcher, listener
        self._store = store_of(study.sweep, study.folder)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        ticket = self._searcher.live[trial.trial_id]
        number = ticket.number
        report = json.loads(result[REPORT])
        for message in report["damaged"]:
            if self._study.record_failure(number, failure := damaged_checkpoint(ticket.attempt, message)):
                self._listener.failed(number, failure)
        passed = self._searcher.rungs[trial.trial_id]
        passed |= {rung.images: rung for rung in map(Rung.from_json, report["rungs"])}
        history = list(passed.values())
        self._study.record_nodes(number, report["nodes"])
        decision = self._study.report(number, history)
        if decision is Decision.MEASURE:
            samples = self._study.images_to_measure(history)
            assert samples is not None  # else the study does not decide to measure
            self._store.request(number, history[-1].images, samples)
            return str(TrialScheduler.CONTINUE)
        self._listener.changed(number)
        return str(TrialScheduler.CONTINUE if decision is Decision.CONTINUE else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # Right after this Tune calls `on_trial_complete` of the searcher, without the error. The first line of the file
        # is Tune's own, with number and date.
        self._searcher.errors[trial.trial_id] = Path(trial.error_file).read_text().partition("\n")[2]


@signals.uninterrupted  # the study and Tune are not interrupted while they write
def run_trials(study: SweepStudy, cache: Path, capacity: Capacity, listener: Listener) -> None:
    """Runs the study's trials until its budget is used; needs a started cluster.

    After a signal it raises KeyboardInterrupt and leaves the trials' processes to the end of the cluster. Raises
    InputError if no trial can go on: a disk is full, or a node of the cluster has other inputs than the study.
    """
    inputs, scratch = study.inputs.recorded, study.folder / TUNE
    shutil.rmtree(scratch, ignore_errors=True)
    common = {
        "sweep": study.sweep.normalised(),
        "folder": str(study.folder.resolve()),
        "cache": str(cache.resolve()),
        "inputs": inputs.to_json() if inputs else None,
        "resources": capacity.want.model_dump_json(),
    }
    searcher = _StudySearcher(study, common, capacity, listener)
    resources = tune.PlacementGroupFactory(bundles(capacity.want))
    # The study keeps the reason of a failure; Tune would print its traceback between the lines of progress.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    tuner = tune.Tuner(
        tune.with_resources(Trainable, resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=_StudyScheduler(study, searcher, listener),
            num_samples=-1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(scratch.resolve()),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),  # the study decides which trials go on
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    try:
        with named(study.folder):
            tuner.fit()
    except TuneError as error:  # Tune puts the text of an error of ours into one of its own
        raise (error.__context__ or error) from None
    finally:
        # A thread that was left behind after a signal may come here when another driver is at work in this folder.
        if study.limits.lease is None or study.limits.lease.held:
            shutil.rmtree(scratch, ignore_errors=True)
