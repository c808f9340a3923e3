"""A sweep's study: which trials exist, what they scored, and what becomes of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, Trial, TrialState

from orchestrator.decisions.budget import TrialUse, trial_use
from orchestrator.decisions.failures import FAILURES, LOG, Failure, failures_of, reason_to_fail
from orchestrator.decisions.objectives import directions, gpu_hours
from orchestrator.study import prior_trials
from orchestrator.study.formats import SWEEP, read_notes, rewrite_notes, write_first_notes
from orchestrator.study.importances import importances
from orchestrator.study.inputs import StudyInputs
from orchestrator.study.lease import ClaimNotes, Lease
from orchestrator.study.limits import Limits
from orchestrator.study.notes import StudyNotes
from orchestrator.study.pruners import ask_once, named_pruner
from orchestrator.study.records import (
    FAULT,
    NODES,
    PAUSED,
    REASON,
    RUNG,
    Final,
    TrialCache,
    TrialReader,
    TrialRecord,
    attributes_of,
    notes_of,
)
from orchestrator.study.sampler_view import SampledStudy
from orchestrator.study.samplers import naming_sampler, sampler_of, suggested
from orchestrator.study.storage import ID, FencedStorage, create_study, find_study, with_id
from search_spaces.pruners.rule import CONTINUE, Answer, Choice, Curve, Policy, replay, slice_end
from search_spaces.space import suggest
from search_spaces.sweep import Sweep, read_kept
from trainers.config import KIMG
from trainers.evaluation.scores import METRICS
from trainers.rungs import Rung, best_rung

_ATTEMPT, _FINAL = "attempt", "final:"

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class Decision(Enum):
    """What becomes of a trial after a rung."""

    CONTINUE = "continue"
    COMPLETE = "complete"
    PRUNE = "prune"
    PAUSE = "pause"
    """Its slice has ended: it frees its place and may go on from its checkpoint later."""
    MEASURE = "measure"
    """The pruner is undecided: the last rung is scored again on more images before it is recorded."""


@dataclass(frozen=True)
class Ticket:
    """One attempt at one trial: the first one, or one that goes on after a crash or an interruption."""

    number: int
    params: dict[str, Any]
    attempt: int


class SweepStudy:
    """One sweep's study, which one driver writes and anybody may read.

    Its parts: limits (budget, requests, lease), inputs, notes, the storage with the driver's fence, the samplers' view.
    """

    def __init__(self, folder: Path, sweep: Sweep, study: optuna.Study) -> None:
        self.folder = folder
        self._study = study
        self._storage: FencedStorage = study._storage
        self._notes = StudyNotes(study, sweep.name)
        self.limits = Limits(sweep, self._notes, lambda: map(self._use, self._trials()))
        self.inputs = StudyInputs(self._notes, self.records)
        self._sampling = SampledStudy(study, sweep)
        self._sampling.prior_trials = prior_trials.from_notes(self._notes.values, sweep)
        self._live: dict[int, Trial] = {}
        """Trials that this driver has handed out, by number."""
        self._reader = TrialReader(sweep)
        self._use = TrialCache(self._use_of)
        self._slice_ends: dict[int, int] = {}
        """The rung at which each live trial pauses."""
        self._metric = METRICS[sweep.score.metric]

    @classmethod
    def create(cls, folder: Path, sweep: Sweep, counts: bool = True) -> SweepStudy:
        """Begins the study of a new sweep, which keeps the defaults of its systems as they are now.

        If it does not `count` yet, `open` finds none until `upgrade` is called.
        """
        sweep = sweep.with_defaults()
        study = with_id(create_study(folder, sweep.study.storage, sweep.name, directions(sweep)))
        if counts:
            write_first_notes(study, sweep)
        return cls(folder, sweep, study)

    @classmethod
    def open(cls, folder: Path, storage: str | None = None) -> SweepStudy | None:
        """The study kept in `folder`, or in the database that its sweep or `storage` names; None if there is none.

        Raises InputError if the database cannot be reached, if the study is kept elsewhere than in `storage`, or if a
        newer program wrote it.
        """
        study, place = find_study(folder, storage, SWEEP)
        if study is None:
            return None
        sweep = read_kept(read_notes(study.user_attrs, folder.name)[SWEEP])
        # A database may have moved since.
        return cls(folder, sweep.model_copy(update={"study": sweep.study.model_copy(update={"storage": place})}), study)

    def upgrade(self) -> None:
        """Brings the study to this program's format, and records the defaults of its systems if it has none yet.

        For a driver that holds the lease. Afterwards no later release changes the configurations of its trials.
        """
        self.limits.original = self.limits.original.with_defaults()
        rewrite_notes(self._study, self._storage, self.limits.original)
        self.refresh()

    @property
    def id(self) -> str:
        """Tells this study from others of the same name."""
        return str(self._notes.get(ID, self.sweep.name))

    @property
    def sweep(self) -> Sweep:
        """The sweep with the budget that holds now."""
        return self.limits.sweep

    @property
    def lease_records(self) -> ClaimNotes:
        """The records in which drivers claim this study. The fence does not check them, since it depends on them."""
        # Read as they are, whatever their format: a driver must learn that a newer program has taken over.
        inner, key = self._storage.inner, self._study._study_id
        return ClaimNotes(partial(inner.get_study_user_attrs, key), partial(inner.set_study_user_attr, key))

    def drive(self, lease: Lease) -> None:
        """Makes this process the driver: from now on every write checks `lease` first."""
        self.limits.lease = lease
        self._storage.fence(lease)
        self.refresh()

    def refresh(self) -> None:
        """Reads the notes that others have written since."""
        self.limits.refresh()

    def next_ticket(self) -> Ticket | None:
        """A trial to work on: one that a dead driver left running, else a paused or a new one, as the policy says.

        None if there is none at the moment. If no trial is live either, the paused ones are pruned, and the sweep ends.
        """
        self.refresh()
        left = self._left_running()
        if self.limits.leaving:
            return None
        limit = self.limits.limit(spent := self.limits.spent())
        choice: Choice = left[0] if left else None
        if not left and (limit is None or limit.allows_promotion):
            choice = self._policy.choose(limit is None)
        if choice is None:
            if not self._live:
                self._prune_paused()
            return None
        if choice == "start":
            # A sampler that was pickled or restarted would replay its random numbers: seed it by position.
            self._sampling.sampler = sampler_of(self.sweep, spent.trials)
            with naming_sampler(self.sweep.sampler):
                trial = self._sampling.ask()
            self._policy.started(trial.number)
        else:
            # If its driver died while asking, some parameters are missing. They are drawn as they would have been.
            self._sampling.sampler = sampler_of(self.sweep, choice)
            running = self._trials(TrialState.RUNNING)
            trial = Trial(self._sampling, next(t._trial_id for t in running if t.number == choice))
            trial.set_user_attr(PAUSED, False)
        with self._storage.transaction(), naming_sampler(self.sweep.sampler):
            params = suggest(self.sweep.space, lambda dimension: suggested(trial, dimension))
            attempt = int(attributes_of(trial).get(_ATTEMPT, 0)) + 1
            trial.set_user_attr(_ATTEMPT, attempt)
        self._live[trial.number] = trial
        passed = self._rungs(trial)
        self._slice_ends[trial.number] = slice_end(self._policy, self.sweep.rungs, passed[-1].images if passed else 0)
        return Ticket(trial.number, params, attempt)

    def report(self, number: int, history: Sequence[Rung]) -> Decision:
        """Records every rung of `history` that the study lacks and decides what becomes of the trial.

        A diverged trial is pruned with its reason; one at the last rung is complete with its best score so far. Before
        the last rung a trial is pruned by a verdict of `stop_on` or by the pruner, or paused at the end of its slice.
        If the pruner is undecided, the last rung is not recorded yet: the answer is MEASURE.
        """
        self._storage.check()  # also before MEASURE, which writes nothing to the study
        self.refresh()
        trial, last = self._live[number], history[-1]
        answer = self._judge(history)
        settled = f"{RUNG}{last.images}" in attributes_of(trial) or self.limits.reason_to_end(number)
        if answer.kind == "measure" and not settled:
            return self._release(number) if self.limits.leaving else Decision.MEASURE
        with self._storage.transaction():
            kept = attributes_of(trial)
            self._keep(trial, [rung for rung in history if f"{RUNG}{rung.images}" not in kept])
        if last.diverged:
            return self._end(number, Decision.PRUNE, f"diverged at {last.images / KIMG:g} kimg: {last.diverged}")
        if last.images >= self.sweep.rungs[-1]:
            return self._end(number, Decision.COMPLETE, None)
        if (reason := self.limits.reason_to_end(number) or self._stopped(last)) is not None:
            return self._end(number, Decision.PRUNE, reason)
        if self._optuna_pruner is not None:
            answer = ask_once(self._optuna_pruner, self._study, self._storage, trial, last.images)
        if answer.kind == "prune":
            where = f"{self.sweep.pruner.title} pruner at {last.images / KIMG:g} kimg"
            return self._end(number, Decision.PRUNE, f"{where}: {answer.reason}" if answer.reason else where)
        if last.images >= self._slice_ends[number]:
            trial.set_user_attr(PAUSED, True)
            self._policy.paused(number, self._curve(history))
            return self._release(number)
        return self._release(number) if self.limits.leaving else Decision.CONTINUE

    def _keep(self, trial: Trial, rungs: Sequence[Rung]) -> None:
        for rung in rungs:
            # With several objectives Optuna takes no intermediate values.
            if self._metric.name in rung.scores and len(self.sweep.objectives) == 1:
                trial.report(rung.scores[self._metric.name].value, rung.images)
            trial.set_user_attr(f"{RUNG}{rung.images}", rung.to_json())

    def images_to_measure(self, history: Sequence[Rung]) -> int | None:
        """On how many images the last rung must be scored again; None if it need not be."""
        return self._judge(history).images or None

    def _judge(self, history: Sequence[Rung]) -> Answer:
        """The answer of our own pruner's rule for a trial with this history."""
        last = history[-1]
        if last.diverged or last.images >= self.sweep.rungs[-1] or self._stopped(last):
            return CONTINUE
        most = self.sweep.score.samples * 2**self.sweep.score.doublings
        complete = (self._curve(self._rungs(trial)) for trial in self._trials(TrialState.COMPLETE))
        return self.sweep.pruner.judge(self._curve(history), complete, most)

    @cached_property
    def _optuna_pruner(self) -> BasePruner | None:
        """The sweep's pruner if it is one of Optuna's. Only a driver needs it; its class is imported here."""
        return named_pruner(self.sweep.pruner, self.sweep.rungs)

    def record_failure(self, number: int, failure: Failure) -> bool:
        """Keeps a failure with its trial; False if it was kept already."""
        trial = self._live[number]
        if failure in (known := failures_of(trial.user_attrs)):
            return False
        trial.set_user_attr(FAILURES, [asdict(each) for each in (*known, failure)])
        return True

    def record_nodes(self, number: int, nodes: Sequence[str]) -> None:
        """Keeps the nodes of the workers of a live trial."""
        trial = self._live[number]
        if attributes_of(trial).get(NODES) != list(nodes):
            trial.set_user_attr(NODES, list(nodes))

    def record_crash(self, number: int, failure: Failure, log: str) -> bool:
        """Keeps why a process died, and its log. Returns whether the trial may go on; else it has failed."""
        trial = self._live[number]
        trial.set_user_attr(LOG, log)
        self.record_failure(number, failure)
        if (reason := reason_to_fail(failures_of(trial.user_attrs))) is not None:
            self.fail(number, reason)
            return False
        self._release(number)
        return True

    def fail(self, number: int, reason: str) -> None:
        """Ends a trial whose process failed for good."""
        trial = self._live.pop(number)
        trial.set_user_attr(REASON, reason)
        self._study.tell(trial, state=TrialState.FAIL)
        self._policy.ended(number, self._curve(self._rungs(trial)))

    def record_final(self, number: int, final: Final) -> None:
        """Keeps the final scores of an ended trial's best checkpoint."""
        self._notes.write(f"{_FINAL}{number}", final.to_json())  # Optuna lets nobody add to a trial that has ended

    def fail_final(self, number: int, fault: str) -> None:
        """Keeps why the best checkpoint of an ended trial could not be scored."""
        self._notes.write(f"{_FINAL}{number}", {FAULT: fault})

    def records(self) -> list[TrialRecord]:
        """Every trial by number."""
        self.refresh()
        return [self._record(trial) for trial in self._trials()]

    def record(self, number: int) -> TrialRecord:
        """Trial `number`, as this process knows it."""
        return self._record(self._trials()[number])

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        return self._reader.record(trial, self._notes.get(f"{_FINAL}{trial.number}", {}))

    @property
    def has_prior_trials(self) -> bool:
        """Whether `keep_prior_trials` was called, even with no trials."""
        return prior_trials.LAST in self._notes.values

    def keep_prior_trials(self, trials: Sequence[Mapping[str, Any]]) -> None:
        """Keeps the trials of a warm start, `{params, values}` with scores by images; once for the whole sweep.

        They are no trials of this study: only its sampler ever sees them.
        """
        for key, text in prior_trials.as_notes(trials):
            self._notes.write(key, text)
        self._sampling.prior_trials = prior_trials.from_notes(self._notes.values, self.sweep)

    def importances(self) -> dict[str, float]:
        """As `importances.importances`; a pruned trial counts with the best score it reached."""
        scored = zip(self._trials(), self.records(), strict=True)
        return importances([(t, r.best.scores[self._metric.name].cost) for t, r in scored if r.best is not None])

    def _stopped(self, rung: Rung) -> str | None:
        """The gravest verdict on `rung` that ends a trial, as a reason."""
        for kind, _, evidence in (verdict.partition(": ") for verdict in rung.verdicts):
            if kind in self.sweep.stop_on:
                return f"{kind} at {rung.images / KIMG:g} kimg: {evidence}"
        return None

    def _release(self, number: int) -> Decision:
        """Ends the work of this driver on a trial, which stays as it is and may go on later."""
        del self._live[number]
        return Decision.PAUSE

    def _left_running(self) -> list[int]:
        """Trials whose driver or process died. Those that must end or have failed are ended here and left out."""
        running = [t for t in self._trials(TrialState.RUNNING) if t.number not in self._live]
        left = {t.number: t for t in running if not t.user_attrs.get(PAUSED)}
        # Their driver died before it ended them.
        failed = {n: why for n, t in left.items() if (why := reason_to_fail(failures_of(t.user_attrs))) is not None}
        off = {n: why for n in left if (why := self.limits.reason_to_end(n)) is not None}
        for number, reason in (off | failed).items():
            self._live[number] = Trial(self._study, left[number]._trial_id)
            self.fail(number, reason) if number in failed else self._end(number, Decision.PRUNE, reason)
        return [number for number in left if number not in off | failed]

    def _use_of(self, trial: FrozenTrial) -> TrialUse:
        ended = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        return trial_use(trial.number, ended, notes_of(trial.user_attrs), self._metric)

    def _end(self, number: int, decision: Decision, reason: str | None) -> Decision:
        trial = self._live.pop(number)
        with self._storage.transaction():
            if reason is not None:
                trial.set_user_attr(REASON, reason)
            if decision is Decision.COMPLETE:
                best = best_rung(self._rungs(trial), self._metric.name)
                assert best is not None  # a complete trial has passed at least one sound rung
                used = gpu_hours(self.sweep, notes_of(attributes_of(trial)))
                self._study.tell(trial, [best.scores[self._metric.name].value, *used[-1:]])
            else:
                self._study.tell(trial, state=TrialState.PRUNED)
        self._policy.ended(number, self._curve(self._rungs(trial)))
        return decision

    def _prune_paused(self) -> None:
        """Prunes the paused trials, since nothing will promote them any more."""
        for frozen in self._trials(TrialState.RUNNING):
            trial, rungs = Trial(self._study, frozen._trial_id), self._rungs(frozen)
            trial.set_user_attr(REASON, f"paused at {rungs[-1].images / KIMG:g} kimg and never promoted")
            self._study.tell(trial, state=TrialState.PRUNED)

    @cached_property
    def _policy(self) -> Policy:
        """The policy after all events of this study's trials so far; only the driver has one."""
        policy = self.sweep.pruner.policy()
        for trial in self._trials():
            rungs, paused = self._rungs(trial), bool(trial.user_attrs.get(PAUSED))
            curves = [self._curve(rungs[: count + 1]) for count in range(len(rungs))]
            replay(policy, self.sweep.rungs, trial.number, curves, paused, trial.state.is_finished())
        return policy

    def _curve(self, rungs: Sequence[Rung]) -> Curve:
        scores = tuple(rung.scores.get(self._metric.name) for rung in rungs)
        return Curve(tuple(rung.images for rung in rungs), scores)

    def _rungs(self, trial: Trial | FrozenTrial) -> tuple[Rung, ...]:
        return self._reader.rungs(trial.number, attributes_of(trial))

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return list(self._study.get_trials(deepcopy=False, states=states or None))
