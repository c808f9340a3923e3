"""Optuna's samplers for the trial at one position of a sweep: all state is the study's, none is an object's.

A sampler is made anew for each trial and seeded by (seed, position), so that no restart repeats or skips a draw. GP
fits its process to the trials anew; CMA-ES keeps its distribution, and NSGA-II its generations, with the trials.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Container, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    PartialFixedSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial, TrialState

from orchestrator.objectives import hours_at_full_length
from orchestrator.records import PAUSED, notes_of
from search_spaces.samplers import CmaEs, Gp, Grid, Nsga2, Qmc, Random, Tpe
from search_spaces.settings import FreezeThaw, Halving
from search_spaces.space import Dimension, Space, grid
from search_spaces.sweep import Sweep
from trainers.batches import seed_of
from trainers.evaluation.scores import METRICS

#: As many as a sampler's model of a rung stands on at least.
FEWEST_AT_RUNG = 10
#: Children of NSGA-II before one is drawn at random.
TRIES = 20


def sampler_of(sweep: Sweep, position: int) -> BaseSampler:
    """The sampler of the trial at `position`, which is one of the sweep's points, one of the grid, or drawn."""
    chosen = sweep.sampler
    point = dict(sweep.points[position]) if position < len(sweep.points) else {}
    if isinstance(chosen, Grid):
        return PartialFixedSampler(next(islice(grid(sweep.space), position, None)), RandomSampler())
    seed = seed_of(chosen.seed, position) % 2**32
    if isinstance(chosen, Qmc):
        return PartialFixedSampler({**sobol(sweep.space, chosen.seed, position), **point}, RandomSampler(seed=seed))
    sampler = _drawing(chosen, seed, sweep.space)
    if not point:
        return sampler
    # A distribution over fewer dimensions would become the state of CMA-ES.
    return PartialFixedSampler(point, RandomSampler(seed=seed) if isinstance(chosen, CmaEs) else sampler)


def sobol(space: Space, seed: int, position: int) -> dict[str, Any]:
    """Point number `position` of the scrambled Sobol' sequence, one coordinate for each dimension of `space`.

    Dimensions that are inactive in a trial keep their coordinates: conditions leave the others' sequence as it is.
    """
    from scipy.stats import qmc  # half a second to import

    searched = [dimension for dimension in space if dimension.kind != "constant"]
    if not searched:
        return {}
    engine = qmc.Sobol(len(searched), scramble=True, rng=np.random.default_rng(seed))
    if position:  # nought is an error
        engine.fast_forward(position)
    shares = engine.random(1)[0]
    return {dimension.name: dimension.at(float(share)) for dimension, share in zip(searched, shares, strict=True)}


def as_seen(sweep: Sweep, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
    """`trials` for the sweep's sampler, which is to learn from their parameters and not from their lengths.

    Where trials are paused, those that reached a rung are complete and worth their best value until there. It is the
    longest rung that FEWEST_AT_RUNG trials reached (as in BOHB; Falkner, Klein and Hutter, 2018): else an early trial
    that went far would count for more than a later one that is better and has just begun. Where trials are stopped,
    TPE ranks pruned ones itself; for samplers that learn from complete ones alone they are complete, with their best.

    By several objectives TPE ranks complete ones alone too, and looks at the best tenth of all: so many reach the rung.
    """
    several = len(sweep.objectives) > 1
    if isinstance(sweep.pruner, FreezeThaw | Halving):
        lengths = [max(_scores(trial, sweep), default=0) for trial in trials]
        fewest = max(FEWEST_AT_RUNG, math.ceil(len(trials) / 10) if several else 0)
        reached = [rung for rung in sweep.rungs if sum(length >= rung for length in lengths) >= fewest]
        rung = max(reached, default=sweep.rungs[0])
    elif several or isinstance(sweep.sampler, Gp | CmaEs | Nsga2):
        rung = 0
    else:
        return trials
    return [_valued(trial, sweep, rung) for trial in trials]


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
    seen.values = [min(values) if METRICS[sweep.score.metric].minimise else max(values)]
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

    sweep: Sweep
    lessons: Sequence[FrozenTrial] = ()
    """Trials of other sweeps, which samplers take for trials of this one."""
    _known: Sequence[FrozenTrial] = ()
    _seen: Sequence[FrozenTrial] = ()
    """What `_known` looks like: a sampler looks five times at the same trials, which are never changed in place."""

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        known = [*self.lessons, *super()._get_trials(deepcopy=False, use_cache=use_cache)]
        if len(known) != len(self._known) or any(map(operator.is_not, known, self._known)):
            shown = [_as_pruned(trial) if trial.user_attrs.get(PAUSED) else trial for trial in known]
            self._known, self._seen = known, as_seen(self.sweep, shown)
        return [trial for trial in self._seen if states is None or trial.state in states]


def as_trial(sweep: Sweep, number: int, lesson: Mapping[str, Any]) -> FrozenTrial:
    """A trial of another sweep, `{params, values}` with scores by images, as a trial of `sweep`."""
    values = {int(images): value for images, value in lesson["values"].items()}
    whole = max(values) >= sweep.rungs[-1]
    best = (min if METRICS[sweep.score.metric].minimise else max)(values.values())
    searched = {d.name: _distribution(d) for d in sweep.space if d.kind != "constant" and d.name in lesson["params"]}
    trial = optuna.trial.create_trial(
        state=TrialState.COMPLETE if whole else TrialState.PRUNED,
        value=best if whole else None,
        params={name: lesson["params"][name] for name in searched},
        distributions=searched,
        intermediate_values=values,
    )
    trial.number = trial._trial_id = number
    return trial


def _distribution(dimension: Dimension) -> BaseDistribution:
    """From which the study draws such a dimension."""
    if dimension.kind == "choice":
        return CategoricalDistribution(dimension.values)
    if dimension.kind == "int":
        return IntDistribution(int(dimension.low), int(dimension.high))
    return FloatDistribution(dimension.low, dimension.high, log=dimension.kind == "log_uniform")


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


class DistinctNsga2(NSGAIISampler):  # type: ignore[misc]  # optuna is not checked
    """NSGA-II without children that repeat a trial: they would score what that one scored."""

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        known = [other.params for other in study._get_trials(deepcopy=False)]
        for _ in range(TRIES):
            child: dict[str, Any] = super().sample_relative(study, trial, search_space)
            # What a mutation leaves out is drawn anew.
            if len(child) < len(search_space) or not any(child.items() <= params.items() for params in known):
                return child
        return {}


def _drawing(chosen: Tpe | Random | Gp | CmaEs | Nsga2, seed: int, space: Space) -> BaseSampler:
    if isinstance(chosen, Random):
        return RandomSampler(seed=seed)
    if isinstance(chosen, Tpe):
        return TPESampler(seed=seed, n_startup_trials=chosen.startup, multivariate=True, group=True)
    if isinstance(chosen, Gp):
        return GPSampler(seed=seed, n_startup_trials=chosen.startup)
    if isinstance(chosen, Nsga2):
        return DistinctNsga2(seed=seed, population_size=chosen.population)
    # With a margin, whole numbers keep a least probability of change (Hamano et al., 2022).
    whole = any(dimension.kind == "int" for dimension in space)
    return CmaEsSampler(seed=seed, n_startup_trials=chosen.startup, with_margin=whole, warn_independent_sampling=False)
