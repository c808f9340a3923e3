"""A study's trials as its sampler sees them: it must learn from their parameters, not from their lengths."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Container, Sequence
from heapq import nsmallest
from typing import TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState

from orchestrator.decisions.objectives import hours_at_full_length
from orchestrator.study.records import PAUSED, TrialCache, notes_of
from search_spaces.samplers import Tpe
from search_spaces.sweep import Sweep
from trainers.evaluation.scores import METRICS

#: Fewest trials for a sampler's model at a rung.
FEWEST_AT_RUNG = 10
#: Most trials that TPE models, and how many of 250 or more it takes for good ones (its gamma).
MOST_MODELLED, GOOD = 256, 25

Rank = tuple[float, ...]
Each = TypeVar("Each")


class SamplerView:
    """The trials of `sweep` for its sampler.

    If the pruner pauses trials, those that reached a certain rung are shown as complete, with their best value up to
    it. It is the longest rung that FEWEST_AT_RUNG trials reached (as in BOHB; Falkner, Klein and Hutter, 2018):
    otherwise a long early trial would rank above a better one that has just begun. If the pruner stops trials, TPE
    ranks pruned ones itself; samplers that learn only from complete ones see them as complete, with their best value.

    With several objectives TPE ranks only complete trials too, and models the best tenth: so many must reach the rung.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._several = len(sweep.objectives) > 1
        self._length = TrialCache(lambda trial: max(_scores(trial, sweep), default=0))
        self._rank = TrialCache(lambda trial, rung: _rank(trial, sweep, rung))
        self._valued = TrialCache(lambda trial, rung: _valued(trial, sweep, rung))

    def show(self, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """`trials` as the sampler sees them; the given objects are not changed."""
        rung, sampler = self._rung(trials), self._sweep.sampler
        if isinstance(sampler, Tpe) and not self._several:
            most = max(MOST_MODELLED, sampler.startup)
            trials = subsample(trials, most, lambda trial: self._rank(trial, rung))
        return trials if rung is None else [self._valued(trial, rung) for trial in trials]

    def _rung(self, trials: Sequence[FrozenTrial]) -> int | None:
        """The rung at which trials are compared; 0 for the last of each, None if the sampler ranks them itself."""
        if self._sweep.pruner.pauses:
            lengths = sorted(map(self._length, trials), reverse=True)
            fewest = max(FEWEST_AT_RUNG, math.ceil(len(trials) / 10) if self._several else 0)
            common = lengths[fewest - 1] if len(lengths) >= fewest else 0
            return max((rung for rung in self._sweep.rungs if rung <= common), default=self._sweep.rungs[0])
        return 0 if self._several or self._sweep.sampler.complete_only else None


def subsample(trials: Sequence[Each], most: int, rank: Callable[[Each], Rank]) -> Sequence[Each]:
    """At most `most` of `trials`, in order: the best by `rank`, the newest others, and an even sample of the rest.

    TPE models the same good trials as without this, and fewer of the others, so that the cost of an ask does not grow
    with the sweep.
    """
    if len(trials) <= most:
        return trials
    best = set(nsmallest(GOOD, range(len(trials)), key=lambda index: rank(trials[index])))
    others = [index for index in range(len(trials)) if index not in best]
    older, newest = others[:-GOOD], others[-GOOD:]
    count = most - 2 * GOOD
    sample = [older[place * len(older) // count] for place in range(count)]
    return [trials[index] for index in sorted([*best, *sample, *newest])]


def _rank(trial: FrozenTrial, sweep: Sweep, rung: int | None) -> tuple[float, ...]:
    """The rank that TPE gives a trial: complete ones first, by value; then the others by length and last value."""
    cost = METRICS[sweep.score.metric].cost
    values = trial.intermediate_values
    last = max(values, default=0)
    if rung is None and trial.state is TrialState.COMPLETE:
        return (0, cost(trial.value))
    if rung is not None and last >= rung and trial.state.is_finished():
        return (0, min(cost(value) for step, value in values.items() if step <= rung))
    return (1, -last, cost(values[last])) if values else (2,)


def _valued(trial: FrozenTrial, sweep: Sweep, rung: int) -> FrozenTrial:
    """`trial` with its best value up to `rung` (0: its last one); complete if it ended and reached that rung.

    A trial that goes on gets a value too, since NSGA-II may have made it a parent while it was paused.
    """
    scores = _scores(trial, sweep)
    values = [value for step, value in scores.items() if not rung or step <= rung]
    if not values:
        return trial
    seen = _copy(trial)
    if trial.state in (TrialState.PRUNED, TrialState.COMPLETE) and max(scores) >= rung:
        seen.state = TrialState.COMPLETE
    seen.values = [METRICS[sweep.score.metric].best(values)]
    if len(sweep.objectives) > 1:
        passed = [note for note in notes_of(trial.user_attrs) if not rung or note["images"] <= rung]
        seen.values = [*seen.values, hours_at_full_length(sweep, passed)]
    return seen


def _scores(trial: FrozenTrial, sweep: Sweep) -> dict[int, float]:
    """Scores by images. Optuna keeps no intermediate values of several objectives, so they come from our notes."""
    scores: dict[int, float] = trial.intermediate_values
    if len(sweep.objectives) > 1:
        metric = sweep.score.metric
        notes = [note for note in notes_of(trial.user_attrs) if metric in note["scores"]]
        scores = {note["images"]: note["scores"][metric]["value"] for note in notes}
    return scores


class SampledStudy(optuna.Study):  # type: ignore[misc]  # optuna is not checked
    """The study as samplers see it: a paused trial is shown as pruned at its last rung, not as running.

    TPE takes running trials for bad ones. In the storage a paused trial stays running, since no finished one can go on.
    """

    def __init__(self, study: optuna.Study, sweep: Sweep) -> None:
        super().__init__(study.study_name, study._storage)
        self.prior_trials: Sequence[FrozenTrial] = ()
        """Trials of other sweeps, which are shown to samplers as trials of this one."""
        # With another pruner, Optuna would give its samplers all trials in place of those that are shown here.
        self.pruner = optuna.pruners.NopPruner()
        self._view, self._pruned = SamplerView(sweep), TrialCache(_as_pruned)
        self._known: Sequence[FrozenTrial] = ()
        self._seen: Sequence[FrozenTrial] = ()
        """`_known` as it is shown, kept because a sampler asks for the same trials five times."""

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        known = [*self.prior_trials, *super()._get_trials(deepcopy=False, use_cache=use_cache)]
        if len(known) != len(self._known) or any(map(operator.is_not, known, self._known)):
            shown = [self._pruned(trial) if trial.user_attrs.get(PAUSED) else trial for trial in known]
            self._known, self._seen = known, self._view.show(shown)
        return [trial for trial in self._seen if states is None or trial.state in states]


def _copy(trial: FrozenTrial) -> FrozenTrial:
    # Takes a fifth of the time of `copy.copy`.
    twin = FrozenTrial.__new__(FrozenTrial)
    twin.__dict__.update(trial.__dict__)
    return twin


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    if trial.state.is_finished():
        return trial
    pruned = _copy(trial)
    pruned.state = TrialState.PRUNED
    return pruned
