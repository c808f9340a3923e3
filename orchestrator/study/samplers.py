"""Optuna's samplers for the trial at one position of a sweep. All their state is in the study.

A sampler is made anew for each trial and seeded by (seed, position), so that no restart repeats or skips a draw. GP
fits its process to the trials anew; CMA-ES keeps its distribution, and NSGA-II its generations, with the trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

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
from optuna.trial import FrozenTrial, Trial, TrialState

from orchestrator.study.foreign import import_class, make_object, naming_class, takes_argument
from orchestrator.study.pruners import named_pruner
from search_spaces.samplers import CmaEs, Gp, Grid, NamedSampler, Nsga2, Qmc, Sampler, Tpe
from search_spaces.space import Dimension, Space, grid
from search_spaces.sweep import Sweep
from trainers.evaluation.scores import METRICS
from trainers.seeds import seed_of

#: Children that NSGA-II tries before one is drawn at random.
TRIES = 20


def sampler_of(sweep: Sweep, position: int) -> BaseSampler:
    """The sampler of the trial at `position`, which is one of the sweep's points, one of the grid, or drawn."""
    chosen = sweep.sampler
    point = dict(sweep.points[position]) if position < len(sweep.points) else {}
    if isinstance(chosen, Grid):
        return PartialFixedSampler(next(islice(grid(sweep.space), position, None)), RandomSampler())
    seed = seed_of(chosen.base_seed, position) % 2**32
    if isinstance(chosen, Qmc):
        return PartialFixedSampler({**sobol(sweep.space, chosen.seed, position), **point}, RandomSampler(seed=seed))
    sampler = _optuna_sampler(chosen, seed, sweep.space)
    if not point:
        return sampler
    # Otherwise a distribution over fewer dimensions would become the state of CMA-ES.
    return PartialFixedSampler(point, RandomSampler(seed=seed) if isinstance(chosen, CmaEs) else sampler)


def naming_sampler(chosen: Sampler) -> AbstractContextManager[None]:
    """Raises InputError that names the sampler's class if that is of another package and raises in the block."""
    return naming_class(chosen.class_path, "sampler") if isinstance(chosen, NamedSampler) else nullcontext()


def check_named_classes(sweep: Sweep) -> list[str]:
    """Imports and makes the pruner and the sampler that `sweep` names by class; returns messages for people.

    Raises InputError if a class cannot be imported, is of another kind, or does not take its arguments.
    """
    named_pruner(sweep.pruner, sweep.rungs)
    if not isinstance(sweep.sampler, NamedSampler):
        return []
    _named_sampler(sweep.sampler, seed=0)
    if _takes_seed(sweep.sampler):
        return []
    return [f"sampler {sweep.sampler.title} takes no seed: another run of this sweep draws other parameters"]


def sobol(space: Space, seed: int, position: int) -> dict[str, Any]:
    """Point number `position` of the scrambled Sobol' sequence, one coordinate for each dimension of `space`.

    Dimensions that are inactive in a trial have coordinates too: conditions do not change the others' sequence.
    """
    # Half a second to import.
    import numpy as np
    from scipy.stats import qmc

    searched = [dimension for dimension in space if dimension.kind != "constant"]
    if not searched:
        return {}
    engine = qmc.Sobol(len(searched), scramble=True, rng=np.random.default_rng(seed))
    if position:  # it refuses 0
        engine.fast_forward(position)
    shares = engine.random(1)[0]
    return {dimension.name: dimension.quantile(float(share)) for dimension, share in zip(searched, shares, strict=True)}


def as_trial(sweep: Sweep, number: int, prior: Mapping[str, Any]) -> FrozenTrial:
    """A prior trial, `{params, values}` with scores by images, as a trial of `sweep`."""
    values = {int(images): value for images, value in prior["values"].items()}
    whole = max(values) >= sweep.rungs[-1]
    best = METRICS[sweep.score.metric].best(values.values())
    searched = {d.name: _distribution(d) for d in sweep.space if d.kind != "constant" and d.name in prior["params"]}
    trial = optuna.trial.create_trial(
        state=TrialState.COMPLETE if whole else TrialState.PRUNED,
        value=best if whole else None,
        params={name: prior["params"][name] for name in searched},
        distributions=searched,
        intermediate_values=values,
    )
    trial.number = trial._trial_id = number
    return trial


def _distribution(dimension: Dimension) -> BaseDistribution:
    """The Optuna distribution of `dimension`."""
    if dimension.kind == "choice":
        return CategoricalDistribution(dimension.values)
    if dimension.kind == "int":
        return IntDistribution(int(dimension.low), int(dimension.high))
    return FloatDistribution(dimension.low, dimension.high, log=dimension.kind == "log_uniform")


def suggested(trial: Trial, dimension: Dimension) -> Any:
    """The value of `dimension` in `trial`: drawn by its sampler, or the one that was drawn before."""
    if dimension.kind == "choice":
        return trial.suggest_categorical(dimension.name, dimension.values)
    if dimension.kind == "int":
        return trial.suggest_int(dimension.name, int(dimension.low), int(dimension.high))
    return trial.suggest_float(dimension.name, dimension.low, dimension.high, log=dimension.kind == "log_uniform")


class DistinctNsga2(NSGAIISampler):  # type: ignore[misc]  # optuna is not checked
    """NSGA-II without children that repeat a trial, since they would get the same score."""

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        known = [other.params for other in study._get_trials(deepcopy=False)]
        for _ in range(TRIES):
            child: dict[str, Any] = super().sample_relative(study, trial, search_space)
            # What a mutation leaves out is drawn anew.
            if len(child) < len(search_space) or not any(child.items() <= params.items() for params in known):
                return child
        return {}


def _optuna_sampler(chosen: Sampler, seed: int, space: Space) -> BaseSampler:
    """Optuna's sampler, or one of another package, for the next trial."""
    if isinstance(chosen, Tpe):
        return TPESampler(seed=seed, n_startup_trials=chosen.startup, multivariate=True, group=True)
    if isinstance(chosen, Gp):
        return GPSampler(seed=seed, n_startup_trials=chosen.startup)
    if isinstance(chosen, Nsga2):
        return DistinctNsga2(seed=seed, population_size=chosen.population)
    if isinstance(chosen, CmaEs):
        # With a margin, whole numbers keep a minimum probability of change (Hamano et al., 2022).
        whole = any(dimension.kind == "int" for dimension in space)
        first = chosen.startup
        return CmaEsSampler(seed=seed, n_startup_trials=first, with_margin=whole, warn_independent_sampling=False)
    if isinstance(chosen, NamedSampler):
        return _named_sampler(chosen, seed)
    return RandomSampler(seed=seed)


def _named_sampler(chosen: NamedSampler, seed: int) -> BaseSampler:
    seeded = {"seed": seed} if _takes_seed(chosen) else {}
    sampler: BaseSampler = make_object(chosen.class_path, {**seeded, **chosen.arguments}, BaseSampler, "sampler")
    return sampler


def _takes_seed(chosen: NamedSampler) -> bool:
    """Whether the sampler of another package can be seeded."""
    return takes_argument(import_class(chosen.class_path, BaseSampler, "sampler"), "seed")
