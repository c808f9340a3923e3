"""The study: which trials exist, what they scored, and what becomes of them. The only home of optuna."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from orchestrator import pruning
from orchestrator.finals import Final
from search_spaces.settings import Median, Percentile
from search_spaces.space import Dimension, grid, suggest
from search_spaces.sweep import Pruner, Sweep, parse_sweep
from trainers.batches import seed_of
from trainers.config import KIMG
from trainers.evaluation.scores import METRICS, Judgement, Score
from trainers.run import Rung

JOURNAL = "study.journal"
_SWEEP = "sweep"
_ATTEMPT = "attempt"
_REASON = "reason"
_RUNG = "rung:"
_FINAL = "final:"
_FAULT = "fault"

#: With fewer trials a variance says nothing about a parameter.
FEWEST_FOR_IMPORTANCES = 4

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class Decision(Enum):
    """What becomes of a trial after a rung."""

    CONTINUE = "continue"
    COMPLETE = "complete"
    PRUNE = "prune"
    MEASURE = "measure"
    """Too near the line: its last rung is scored again on twice the images before it is recorded."""


@dataclass(frozen=True)
class Ticket:
    """One attempt at one trial: the first one, or one that goes on after a crash or an interruption."""

    number: int
    params: dict[str, Any]
    attempt: int


@dataclass(frozen=True)
class TrialRecord:
    """What the study knows of one trial."""

    number: int
    state: str
    """running, complete, pruned or failed."""
    params: dict[str, Any]
    rungs: tuple[Rung, ...]
    """In order of images; empty before the first."""
    best: Rung | None
    """The rung with the best score; None before the first sound rung."""
    reason: str | None
    """Why it was pruned or failed."""
    final: Final | None = None
    """What its best checkpoint scored at the end of the sweep; None where nobody asked, or in vain."""
    final_fault: str | None = None
    """Why its best checkpoint could not be scored."""


class SweepStudy:
    """One sweep's study in a journal file; a driver writes it, anybody may read it."""

    def __init__(self, folder: Path, sweep: Sweep, study: optuna.Study) -> None:
        self.folder = folder
        self.sweep = sweep
        self._study = study
        self._live: dict[int, Trial] = {}
        self._metric = METRICS[sweep.score.metric]
        study.pruner = _pruner(sweep.pruner, sweep.rungs)

    @classmethod
    def create(cls, folder: Path, sweep: Sweep) -> SweepStudy:
        """Begins the study of a new sweep."""
        direction = "minimize" if METRICS[sweep.score.metric].minimise else "maximize"
        study = optuna.create_study(
            storage=_storage(folder), study_name=sweep.name, direction=direction, load_if_exists=True
        )
        study.set_user_attr(_SWEEP, sweep.normalised())
        return cls(folder, sweep, study)

    @classmethod
    def open(cls, folder: Path) -> SweepStudy | None:
        """The study kept in `folder`; None where there is none."""
        if not (folder / JOURNAL).exists():
            return None
        storage = _storage(folder)
        studies = storage.get_all_studies()
        if not studies or _SWEEP not in studies[0].user_attrs:
            return None  # a driver died before the sweep was recorded: nothing was ever asked
        sweep = parse_sweep(studies[0].user_attrs[_SWEEP])
        return cls(folder, sweep, optuna.load_study(study_name=studies[0].study_name, storage=storage))

    def next_ticket(self) -> Ticket | None:
        """A trial to work on: one that a dead driver left running, else a new one while the budget lasts."""
        orphan = next((t for t in self._trials(TrialState.RUNNING) if t.number not in self._live), None)
        if orphan is not None:
            trial = Trial(self._study, orphan._trial_id)
        elif len(self._trials()) < self.sweep.budget.trials:
            # A sampler that was pickled or restarted would replay its random numbers: seed it by position.
            self._study.sampler = _sampler(self.sweep, len(self._trials()))
            trial = self._study.ask()
        else:
            return None
        params = suggest(self.sweep.space, lambda dimension: _suggest(trial, dimension))
        attempt = int(trial.user_attrs.get(_ATTEMPT, 0)) + 1
        trial.set_user_attr(_ATTEMPT, attempt)
        self._live[trial.number] = trial
        return Ticket(trial.number, params, attempt)

    def report(self, number: int, history: Sequence[Rung]) -> Decision:
        """Records every rung of `history` that the study lacks and decides what becomes of the trial.

        A diverged trial is pruned with its reason; one at the last rung is complete with its best score so far; one
        before it is pruned on a verdict of `stop_on`, else on its scores. Where these are too near the line, the last
        rung is not recorded yet: the answer is MEASURE.
        """
        trial, last = self._live[number], history[-1]
        if f"{_RUNG}{last.images}" not in trial.user_attrs and self.images_to_measure(history) is not None:
            return Decision.MEASURE
        for rung in history:
            if f"{_RUNG}{rung.images}" in trial.user_attrs:
                continue
            if self._metric.name in rung.scores:
                trial.report(rung.scores[self._metric.name].value, rung.images)
            trial.set_user_attr(f"{_RUNG}{rung.images}", rung.to_json())
        if last.diverged:
            return self._end(number, Decision.PRUNE, f"diverged at {last.images / KIMG:g} kimg: {last.diverged}")
        if last.images >= self.sweep.rungs[-1]:
            return self._end(number, Decision.COMPLETE, None)
        if (reason := self._stopped(last) or self._beaten(trial, history)) is not None:
            return self._end(number, Decision.PRUNE, reason)
        return Decision.CONTINUE

    def images_to_measure(self, history: Sequence[Rung]) -> int | None:
        """On how many images the last rung of `history` must be scored again; None where it is decided, or for good."""
        line, best, last = self._line(history), self._best_score(history), history[-1]
        if line is None or best is None or best is not last.scores.get(self._metric.name) or self._stopped(last):
            return None
        if pruning.against(best, line) is not Judgement.UNDECIDED:
            return None
        return pruning.more_images(best, self.sweep.score.samples * 2**self.sweep.score.doublings)

    def fail(self, number: int, reason: str) -> None:
        """Ends a trial whose process failed for good."""
        trial = self._live.pop(number)
        trial.set_user_attr(_REASON, reason)
        self._study.tell(trial, state=TrialState.FAIL)

    def record_final(self, number: int, final: Final) -> None:
        """Keeps what the best checkpoint of an ended trial scored."""
        # Optuna lets nobody add to a trial that has ended.
        self._study.set_user_attr(f"{_FINAL}{number}", final.to_json())

    def fail_final(self, number: int, fault: str) -> None:
        """Keeps why the best checkpoint of an ended trial could not be scored."""
        self._study.set_user_attr(f"{_FINAL}{number}", {_FAULT: fault})

    def records(self) -> list[TrialRecord]:
        """Every trial by number."""
        attributes = self._study.user_attrs
        return [self._record(trial, attributes.get(f"{_FINAL}{trial.number}", {})) for trial in self._trials()]

    def importances(self) -> dict[str, float]:
        """Share of each parameter in the variance of the trials' best scores, largest first (fANOVA; Hutter, 2014).

        A pruned trial counts with the best score it reached. Parameters that not all trials have, and constant ones,
        have no share. Empty with fewer than FEWEST_FOR_IMPORTANCES scored trials.
        """
        scored = [(trial, record.best) for trial, record in zip(self._trials(), self.records(), strict=True)]
        finished = [
            optuna.trial.create_trial(
                params=trial.params,
                distributions=trial.distributions,
                value=best.scores[self._metric.name].value,
            )
            for trial, best in scored
            if best is not None
        ]
        if len(finished) < FEWEST_FOR_IMPORTANCES:
            return {}
        # scikit-learn, which fANOVA stands on, takes two seconds to import.
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        copy = optuna.create_study(direction=self._study.direction)
        copy.add_trials(finished)
        return dict(get_param_importances(copy, evaluator=FanovaImportanceEvaluator(seed=0)))

    def _stopped(self, rung: Rung) -> str | None:
        """The gravest verdict on `rung` that ends a trial, as a reason."""
        for kind, _, evidence in (verdict.partition(": ") for verdict in rung.verdicts):
            if kind in self.sweep.stop_on:
                return f"{kind} at {rung.images / KIMG:g} kimg: {evidence}"
        return None

    def _beaten(self, trial: Trial, history: Sequence[Rung]) -> str | None:
        """Why the pruner ends the trial; None where it goes on."""
        where = f"{self.sweep.pruner.name} pruner at {history[-1].images / KIMG:g} kimg"
        if trial.should_prune():  # of those that rank trials by their values
            return where
        line, best = self._line(history), self._best_score(history)
        if line is None or best is None or pruning.against(best, line) is not Judgement.WORSE:
            return None
        return f"{where}: {self._metric.name} {_with_error(best)} against {_with_error(line)}"

    def _best_score(self, history: Sequence[Rung]) -> Score | None:
        return pruning.best_until(history, self._metric.name, history[-1].images)

    def _line(self, history: Sequence[Rung]) -> Score | None:
        """What a trial must reach at the last rung of `history`; None where the pruner draws no line there.

        It is drawn by the best scores until then of the complete trials, as many of them as `startup` at least.
        """
        pruner, images = self.sweep.pruner, history[-1].images
        if not isinstance(pruner, Median | Percentile) or not pruner.warmup <= images < self.sweep.rungs[-1]:
            return None
        complete = [_rungs(trial.user_attrs) for trial in self._trials(TrialState.COMPLETE)]
        scores = [score for rungs in complete if (score := pruning.best_until(rungs, self._metric.name, images))]
        if len(scores) < max(1, pruner.startup):
            return None
        return pruning.line(scores, pruner.percentile if isinstance(pruner, Percentile) else 50.0)

    def _end(self, number: int, decision: Decision, reason: str | None) -> Decision:
        trial = self._live.pop(number)
        if reason is not None:
            trial.set_user_attr(_REASON, reason)
        if decision is Decision.COMPLETE:
            best = _best(_rungs(trial.user_attrs), self._metric.name, self._metric.minimise)
            assert best is not None  # a complete trial has passed at least one sound rung
            self._study.tell(trial, best.scores[self._metric.name].value)
        else:
            self._study.tell(trial, state=TrialState.PRUNED)
        return decision

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        trials: list[FrozenTrial] = self._study.get_trials(deepcopy=False, states=states or None)
        return trials

    def _record(self, trial: FrozenTrial, final: dict[str, Any]) -> TrialRecord:
        rungs = _rungs(trial.user_attrs)
        return TrialRecord(
            number=trial.number,
            state={"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower()),
            params=suggest(self.sweep.space, lambda dimension: trial.params.get(dimension.name)),
            rungs=rungs,
            best=_best(rungs, self._metric.name, self._metric.minimise),
            reason=trial.user_attrs.get(_REASON),
            final=Final.from_json(final) if final and _FAULT not in final else None,
            final_fault=final.get(_FAULT),
        )


def _with_error(score: Score) -> str:
    return f"{score.value:.4g}" if score.stderr is None else f"{score.value:.4g} ± {score.stderr:.2g}"


def _storage(folder: Path) -> JournalStorage:
    path = str(folder / JOURNAL)
    return JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))


def _rungs(attributes: Mapping[str, Any]) -> tuple[Rung, ...]:
    found = [Rung.from_json(record) for key, record in attributes.items() if key.startswith(_RUNG)]
    return tuple(sorted(found, key=lambda rung: rung.images))


def _best(rungs: Sequence[Rung], metric: str, minimise: bool) -> Rung | None:
    sound = [rung for rung in rungs if metric in rung.scores]
    return min(sound, key=lambda rung: rung.scores[metric].value * (1 if minimise else -1), default=None)


def _suggest(trial: Trial, dimension: Dimension) -> Any:
    if dimension.kind == "choice":
        return trial.suggest_categorical(dimension.name, dimension.values)
    if dimension.kind == "int":
        return trial.suggest_int(dimension.name, int(dimension.low), int(dimension.high))
    return trial.suggest_float(dimension.name, dimension.low, dimension.high, log=dimension.kind == "log_uniform")


def _sampler(sweep: Sweep, position: int) -> optuna.samplers.BaseSampler:
    """The sampler of the trial at `position`, which is one of the sweep's points, one of the grid, or drawn."""
    if sweep.sampler.name == "grid":
        point = next(islice(grid(sweep.space), position, None))
        return optuna.samplers.PartialFixedSampler(point, optuna.samplers.RandomSampler())
    sampler: optuna.samplers.BaseSampler
    seed = seed_of(sweep.sampler.seed, position) % 2**32
    if sweep.sampler.name == "random":
        sampler = optuna.samplers.RandomSampler(seed=seed)
    else:
        startup = sweep.sampler.startup
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, group=True)
    if position < len(sweep.points):
        return optuna.samplers.PartialFixedSampler(dict(sweep.points[position]), sampler)
    return sampler


def _pruner(pruner: Pruner, rungs: Sequence[int]) -> optuna.pruners.BasePruner:
    """Optuna's pruner for those that rank trials; the others, which draw a line, are ours."""
    if pruner.name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=rungs[0], reduction_factor=pruner.reduction)
    if pruner.name == "hyperband":
        return optuna.pruners.HyperbandPruner(rungs[0], rungs[-1], pruner.reduction)
    return optuna.pruners.NopPruner()
