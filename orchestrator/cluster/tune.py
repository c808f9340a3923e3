"""Places trials on a Ray cluster and carries their reports to the study."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.execution import class_cache
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from orchestrator.cluster.finals import score_final
from orchestrator.cluster.nodes import Room, bundles, draining
from orchestrator.cluster.trial import SweepTrial
from orchestrator.cluster.workers import Team, limit_memory, this_node
from orchestrator.decisions.failures import MOST_FAILURES, Failure, damaged, failure_of, log_tail, raised
from orchestrator.store import store_of
from orchestrator.study.records import TrialRecord
from orchestrator.study.study import Decision, SweepStudy, Ticket
from search_spaces.settings import Resources
from search_spaces.sweep import Sweep, parse_sweep
from trainers.rungs import Rung

# Tune would hand the keys to its processes by way of Ray, which writes them into its logs for everybody to read. On
# this machine they are inherited; every other one has keys of its own.
class_cache.ENV_VARS_TO_PROPAGATE.difference_update(
    {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
)
#: Below the sweep's folder, for as long as trials run.
_SCRATCH = ".tune"
#: Seconds between two looks, by a trial, whether its nodes are to be taken away.
_LOOK = 1.0


class Listener(Protocol):
    """Told, in the driver's process, what the study already knows."""

    def changed(self, number: int) -> None:
        """Trial `number` has begun, passed a rung or ended."""

    def failed(self, number: int, failure: Failure) -> None:
        """An attempt at trial `number` failed, which may go on all the same."""

    def scored(self, number: int) -> None:
        """The best checkpoint of trial `number` has been scored again, or could not be."""


class NodeDrainedError(Exception):
    """The trial is saved and must go on elsewhere."""


class Trainable(tune.Trainable):  # type: ignore[misc]  # ray ships no types for it
    """A trial as Tune sees it: each step passes one rung. Tune's own checkpoints are not used.

    A report holds the rungs that are new since the one before, or were measured again; the first of an attempt all.
    """

    _team: Team | None = None
    """The other workers of this process's trials, from its first one on that has several."""
    _looked = -math.inf
    """When its nodes were last known to stay."""

    def setup(self, config: dict[str, Any]) -> None:
        self._config = config
        self._trial: SweepTrial | None = None  # the one before must leave its memory to the next
        self._told: dict[int, Rung] = {}
        _write_to(_log_of(Path(config["folder"]), config["number"], config["attempt"]))

    def step(self) -> dict[str, Any]:
        if time.monotonic() - self._looked >= _LOOK:
            if leaving := draining(self._nodes()):
                raise NodeDrainedError(f"{', '.join(leaving)} is about to be taken away")
            self._looked = time.monotonic()
        self._trial = self._trial or self._begin()  # not in `setup`, whose errors Ray tells in another way
        news = [rung for rung in self._trial.advance() if self._told.get(rung.images) is not rung]
        self._told |= {rung.images: rung for rung in news}
        told = {"news": [rung.to_json() for rung in news], "damaged": self._trial.damaged, "nodes": self._nodes()}
        return {"told": json.dumps(told)}

    def _begin(self) -> SweepTrial:
        config, want = self._config, Resources.model_validate_json(self._config["resources"])
        if want.workers_per_trial > 1 and self._team is None:
            self._team = Team(want)
        limit_memory(want.gpu_share)
        folder, cache = Path(config["folder"]), Path(config["cache"])
        return SweepTrial(
            _sweep(config["sweep"]), folder, cache, config["number"], config["params"], config["attempt"], self._team
        )

    def _nodes(self) -> list[str]:
        """Where the trial's workers are."""
        return self._team.nodes if self._team else [this_node()]

    def cleanup(self) -> None:
        if self._team is not None:
            self._team.dissolve()

    def get_auto_filled_metrics(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        """Tune's, without the configuration: the driver knows it, and would keep statistics of each number in it."""
        metrics = tune.Trainable.get_auto_filled_metrics(self, *arguments, **named)
        return {key: value for key, value in metrics.items() if key != "config"}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True


@lru_cache(maxsize=1)
def _sweep(text: str) -> Sweep:
    return parse_sweep(text)  # a process has one sweep and many trials


def _log_of(folder: Path, number: int, attempt: int) -> Path:
    """What the process of an attempt writes to its standard output and error, on its machine."""
    return folder / _SCRATCH / "logs" / f"{number:05d}-{attempt}"


def _write_to(log: Path) -> None:
    """From now on this process writes there, libraries below Python included."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)


class _Transient:
    """Tune pickles searcher and scheduler into its experiment state, from which nothing is ever restored here."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _Transient:
        return self


class _StudySearcher(_Transient, Searcher):  # type: ignore[misc]
    """Hands Tune the study's trials, as many at a time as there is room for."""

    def __init__(self, study: SweepStudy, common: dict[str, str], room: Room, listener: Listener) -> None:
        super().__init__()
        self._study, self._common, self._room, self._listener = study, common, room, listener
        self.live: dict[str, Ticket] = {}
        """By Tune's id."""
        self.rungs: dict[str, dict[int, Rung]] = {}
        """What the attempts in `live` have reported, by images."""
        self.accounts: dict[str, str] = {}
        """Ray's, of how the process of a live trial died."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        self._study.check()  # Tune asks ten times a second: the first to learn that another driver has taken over
        if len(self.live) >= self._room.trials(idle=not self.live):
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
        account = self.accounts.pop(trial_id)
        failure = failure_of(ticket.attempt, account)
        log = log_tail(_log_of(self._study.folder, ticket.number, ticket.attempt), account)
        goes_on = self._study.crashed(ticket.number, failure, log)
        self._listener.failed(ticket.number, failure)
        if not goes_on:
            self._listener.changed(ticket.number)

    def set_search_properties(self, *args: Any, **kwargs: Any) -> bool:
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study keeps all there is to know."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""


class _StudyScheduler(_Transient, FIFOScheduler):  # type: ignore[misc]
    """Reports each rung to the study and answers with its decision."""

    def __init__(self, study: SweepStudy, searcher: _StudySearcher, listener: Listener) -> None:
        super().__init__()
        self._study, self._searcher, self._listener = study, searcher, listener
        self._store = store_of(study.sweep, study.folder)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        ticket = self._searcher.live[trial.trial_id]
        number = ticket.number
        told = json.loads(result["told"])
        for message in told["damaged"]:
            if self._study.note(number, failure := damaged(ticket.attempt, message)):
                self._listener.failed(number, failure)
        passed = self._searcher.rungs[trial.trial_id]
        passed |= {rung.images: rung for rung in map(Rung.from_json, told["news"])}
        history = list(passed.values())
        self._study.place(number, told["nodes"])
        decision = self._study.report(number, history)
        if decision is Decision.MEASURE:
            samples = self._study.images_to_measure(history)
            assert samples is not None  # or the study would not ask
            self._store.request(number, history[-1].images, samples)
            return str(TrialScheduler.CONTINUE)
        self._listener.changed(number)
        return str(TrialScheduler.CONTINUE if decision is Decision.CONTINUE else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # Of an error the searcher is told right after, but not which one. Tune's line with number and date is left out.
        self._searcher.accounts[trial.trial_id] = Path(trial.error_file).read_text().partition("\n")[2]


def run_trials(study: SweepStudy, cache: Path, room: Room, listener: Listener) -> None:
    """Works through the study's trials until its budget is used or the user interrupts; needs a started cluster."""
    scratch = study.folder / _SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    common = {
        "sweep": study.sweep.normalised(),
        "folder": str(study.folder.resolve()),
        "cache": str(cache.resolve()),
        "resources": room.want.model_dump_json(),
    }
    searcher = _StudySearcher(study, common, room, listener)
    resources = tune.PlacementGroupFactory(bundles(room.want))
    # A failure's reason is kept by the study; Tune would print its traceback between the lines of progress.
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
            failure_config=tune.FailureConfig(max_failures=0),  # the study says who goes on
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    interrupt = signal.getsignal(signal.SIGINT)
    tuner.fit()
    if signal.getsignal(signal.SIGINT) is not interrupt:
        signal.signal(signal.SIGINT, interrupt)  # Tune leaves its own, which swallows the next Ctrl-C
    shutil.rmtree(scratch, ignore_errors=True)


def run_finals(
    study: SweepStudy, cache: Path, room: Room, finalists: Sequence[TrialRecord], listener: Listener
) -> None:
    """Scores the best checkpoints of `finalists` where trials run, with a worker's resources; needs a started cluster.

    The study keeps each as it is done; one that fails is kept with its reason. Ends early where the study is leaving.
    """
    want = room.want
    task = ray.remote(num_cpus=want.cpus_per_worker, num_gpus=want.gpu_share, max_retries=MOST_FAILURES - 1)(
        score_final
    )
    common = study.sweep.normalised(), study.folder.resolve(), cache.resolve()
    waiting = [(record.number, record.best.images) for record in finalists if record.best]
    running: dict[Any, int] = {}
    while (waiting or running) and not study.leaving:
        while waiting and len(running) < room.trials(idle=not running):
            number, images = waiting.pop(0)
            running[task.remote(*common, number, images)] = number
        ready, _ = ray.wait([*running], timeout=1)
        study.refresh()
        for done in ready:
            number = running.pop(done)
            try:
                final = ray.get(done)
            except RayError as error:
                study.fail_final(number, raised(str(error)))
            else:
                study.record_final(number, final)
            listener.scored(number)
