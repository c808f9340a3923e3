"""A study's trials as its sampler sees them, which is to learn from their parameters and not from their lengths."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Container, Sequence
from heapq import nsmallest

import optuna
from optuna.trial import FrozenTrial, TrialState

from orchestrator.decisions.objectives import hours_at_full_length
from orchestrator.study.records import PAUSED, TrialCache, notes_of
from search_spaces.samplers import Tpe
from search_spaces.sweep import Sweep
from trainers.evaluation.scores import METRICS

#: As many as a sampler's model of a rung stands on at least.
FEWEST_AT_RUNG = 10
#: As many as TPE models at most, and as many as it takes for good ones of 250 or more (its gamma).
MOST_MODELLED, GOOD = 256, 25

Rank = tuple[float, ...]


class SamplerView:
    """The trials of `sweep` for its sampler.

    Where trials are paused, those that reached a rung are complete and worth their best value until there. It is the
    longest rung that FEWEST_AT_RUNG trials reached (as in BOHB; Falkner, Klein and Hutter, 2018): else an early trial
    that went far would count for more than a later one that is better and has just begun. Where trials are stopped,
    TPE ranks pruned ones itself; for samplers that learn from complete ones alone they are complete, with their best.

    By several objectives TPE ranks complete ones alone too, and looks at the best tenth of all: so many reach the rung.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._several = len(sweep.objectives) > 1
        self._length = TrialCache(lambda trial: max(_scores(trial, sweep), default=0))
        self._rank = TrialCache(lambda trial, rung: _rank(trial, sweep, rung))
        self._valued = TrialCache(lambda trial, rung: _valued(trial, sweep, rung))

    def show(self, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """What is seen of `trials`, which are never changed in place."""
        rung, sampler = self._rung(trials), self._sweep.sampler
        if isinstance(sampler, Tpe) and not self._several:
            most = max(MOST_MODELLED, sampler.startup)
            trials = subsample(trials, most, lambda trial: self._rank(trial, rung))
        return trials if rung is None else [self._valued(trial, rung) for trial in trials]

    def _rung(self, trials: Sequence[FrozenTrial]) -> int | None:
        """At which trials are compared; 0 for the last of each, None where the sampler ranks them itself."""
        if self._sweep.pruner.pauses:
            lengths = sorted(map(self._length, trials), reverse=True)
            fewest = max(FEWEST_AT_RUNG, math.ceil(len(trials) / 10) if self._several else 0)
            common = lengths[fewest - 1] if len(lengths) >= fewest else 0
            return max((rung for rung in self._sweep.rungs if rung <= common), default=self._sweep.rungs[0])
        return 0 if self._several or self._sweep.sampler.complete_only else None


def subsample(trials: Sequence[FrozenTrial], most: int, rank: Callable[[FrozenTrial], Rank]) -> Sequence[FrozenTrial]:
    """At most so many of `trials`, in order: the best by `rank`, the newest others, and an even sample of the rest.

    TPE's model of good trials stands on the same ones as ever, and its model of all others on fewer. What an ask costs
    no longer grows with the sweep.
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
    """As TPE ranks them: by value where complete, the others after them by length, then by their last value."""
    cost = METRICS[sweep.score.metric].cost
    values = trial.intermediate_values
    last = max(values, default=0)
    if rung is None and trial.state is TrialState.COMPLETE:
        return (0, cost(trial.value))
    if rung is not None and last >= rung and trial.state.is_finished():
        return (0, min(cost(value) for step, value in values.items() if step <= rung))
    return (1, -last, cost(values[last])) if values else (2,)


def _valued(trial: FrozenTrial, sweep: Sweep, rung: int) -> FrozenTrial:
    """`trial` with its best value until `rung`, 0 being its last one; complete if it ended and came so far.

    One that goes on keeps a value, since NSGA-II may have made it a parent while it was paused.
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
    """By images. Optuna keeps no intermediate values of several objectives: there they are among our own notes."""
    scores: dict[int, float] = trial.intermediate_values
    if len(sweep.objectives) > 1:
        metric = sweep.score.metric
        notes = [note for note in notes_of(trial.user_attrs) if metric in note["scores"]]
        scores = {note["images"]: note["scores"][metric]["value"] for note in notes}
    return scores


class SampledStudy(optuna.Study):  # type: ignore[misc]  # optuna is not checked
    """The study as samplers see it: a paused trial counts as pruned at its last rung, not as a failing one under way.

    TPE takes running trials for bad ones. A finished trial cannot be opened again, so in the storage it stays running.
    """

    def __init__(self, study: optuna.Study, sweep: Sweep) -> None:
        super().__init__(study.study_name, study._storage)
        self.prior_trials: Sequence[FrozenTrial] = ()
        """Trials of other sweeps, which samplers take for trials of this one."""
        # With another pruner, Optuna would give its samplers all trials in place of those that are shown here.
        self.pruner = optuna.pruners.NopPruner()
        self._view, self._pruned = SamplerView(sweep), TrialCache(_as_pruned)
        self._known: Sequence[FrozenTrial] = ()
        self._seen: Sequence[FrozenTrial] = ()
        """What `_known` looks like: a sampler looks five times at the same trials."""

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        known = [*self.prior_trials, *super()._get_trials(deepcopy=False, use_cache=use_cache)]
        if len(known) != len(self._known) or any(map(operator.is_not, known, self._known)):
            shown = [self._pruned(trial) if trial.user_attrs.get(PAUSED) else trial for trial in known]
            self._known, self._seen = known, self._view.show(shown)
        return [trial for trial in self._seen if states is None or trial.state in states]


def _copy(trial: FrozenTrial) -> FrozenTrial:
    # `copy` takes five times as long.
    twin = FrozenTrial.__new__(FrozenTrial)
    twin.__dict__.update(trial.__dict__)
    return twin


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    if trial.state.is_finished():
        return trial
    pruned = _copy(trial)
    pruned.state = TrialState.PRUNED
    return pruned
