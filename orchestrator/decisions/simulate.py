"""A sweep replayed from recorded learning curves, in simulated time, by the same decisions as a real one."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search_spaces.pruners.rule import Curve, Pruner, Unpruned, slice_end
from trainers.evaluation.scores import Score

#: Fractions of the budget at which regrets are given.
FRACTIONS = (0.1, 0.25, 0.5, 1.0)
#: Most points of a budget at which best values are compared.
POINTS = 10_000


@dataclass(frozen=True)
class RecordedCurve:
    """The whole curve of one candidate; less is better."""

    name: str
    rungs: tuple[int, ...]
    """The rungs at which it was measured: epochs, or fiftieths of its own length."""
    steps: tuple[int, ...]
    """Steps trained up to each rung, increasing."""
    values: tuple[float, ...]
    """One value for each rung; infinite for NaN."""

    def until(self, passed: int) -> Curve:
        """The first `passed` rungs as a pruner sees them."""
        return Curve(self.rungs[:passed], self._scores[:passed])

    @cached_property
    def _scores(self) -> tuple[Score, ...]:
        # Recorded values have no standard error; less is better, as with FID.
        return tuple(Score("fid", value, None, 0, "recorded", "recorded", 0) for value in self.values)


@dataclass(frozen=True)
class Replay:
    """One simulated sweep."""

    used: tuple[int, ...]
    """Steps of all trials together, at each measurement."""
    best: tuple[float, ...]
    """The best value known then."""
    started: int
    stopped: int
    """Trials that did not reach their end."""

    def best_after(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """The best value known after each of `steps`; infinite before the first measurement."""
        known = np.array([math.inf, *self.best])
        return known[np.searchsorted(self.used, steps, side="right")]


@dataclass(frozen=True)
class Summary:
    """The result of a pruner with several seeds."""

    pruner: str
    budget: int
    workers: int
    seeds: int
    speedup_over_random: dict[str, float | None]
    """mean: budget / step at which the mean best value reaches that of random search at the budget; min, max: over
    seeds. None if it never does."""
    regret: dict[str, float]
    """Mean best value less the best possible one, by fraction of the budget."""
    trials_started: float
    trials_pruned: float
    steps_saved: float
    best_value: float
    best_possible: float


def replay(curves: Sequence[RecordedCurve], pruner: Pruner, budget: int, workers: int, seed: int) -> Replay:
    """One sweep over `curves` in the order that `seed` gives, ended after `budget` steps of training.

    A step takes one unit of time on each of `workers`; a value is known when its last step has been trained.
    """
    order = np.random.default_rng(seed).permutation(len(curves))
    return _Sweep([curves[index] for index in order], pruner).run(budget, workers)


def simulate(curves: Sequence[RecordedCurve], pruner: Pruner, budget: int | None, workers: int, seeds: int) -> Summary:
    """Compares `pruner` with random search, which trains every candidate to its end. No `budget` means all steps."""
    every = sum(curve.steps[-1] for curve in curves)
    total = budget or every
    ours, random = (
        [replay(curves, kind, total, workers, seed) for seed in range(seeds)] for kind in (pruner, Unpruned())
    )
    grid = np.unique(np.linspace(1, total, min(total, POINTS)).round().astype(np.int64))
    own, other = (np.array([one.best_after(grid) for one in group]) for group in (ours, random))
    mean, possible = own.mean(axis=0), min(min(curve.values) for curve in curves)
    single = [_speedup(grid, one, target[-1]) for one, target in zip(own, other, strict=True)]
    reached = [value for value in single if value is not None]
    return Summary(
        pruner=pruner.name,
        budget=total,
        workers=workers,
        seeds=seeds,
        speedup_over_random={
            "mean": _speedup(grid, mean, float(other[:, -1].mean())),
            "min": min(reached) if len(reached) == seeds else None,
            "max": max(reached, default=None),
        },
        regret={f"{part:g}": float(mean[max(0, round(part * len(grid)) - 1)] - possible) for part in FRACTIONS},
        trials_started=float(np.mean([one.started for one in ours])),
        trials_pruned=float(np.mean([one.stopped for one in ours])),
        steps_saved=1 - float(np.mean([one.used[-1] for one in ours])) / every,
        best_value=float(mean[-1]),
        best_possible=possible,
    )


@dataclass
class _Trial:
    """A candidate that has begun."""

    number: int
    curve: RecordedCurve
    passed: int = 0
    """How many rungs it has passed."""
    target: int = 0
    """The rung at which its slice ends."""

    @property
    def cost(self) -> int:
        """Steps to its next rung."""
        return self.curve.steps[self.passed] - (self.curve.steps[self.passed - 1] if self.passed else 0)

    @property
    def seen(self) -> Curve:
        return self.curve.until(self.passed)


class _Sweep:
    """Workers that ask for trials. Decisions see only what has been trained so far."""

    def __init__(self, candidates: Sequence[RecordedCurve], pruner: Pruner) -> None:
        self._candidates, self._pruner = candidates, pruner
        self._policy = pruner.policy()
        self._trials: list[_Trial] = []
        self._complete: list[Curve] = []

    def run(self, budget: int, workers: int) -> Replay:
        queue: list[tuple[int, int, _Trial]] = []
        used, planned, free, now = [0], 0, workers, 0
        best, order = [math.inf], 0
        while True:
            while free and planned < budget and (trial := self._next()) is not None:
                planned, free, order = planned + trial.cost, free - 1, order + 1
                heapq.heappush(queue, (now + trial.cost, order, trial))
            if not queue:
                break
            now, _, trial = heapq.heappop(queue)
            if used[-1] + trial.cost > budget:
                break
            used.append(used[-1] + trial.cost)
            trial.passed += 1
            best.append(min(best[-1], trial.curve.values[trial.passed - 1]))
            if self._goes_on(trial) and planned < budget:
                planned, order = planned + trial.cost, order + 1
                heapq.heappush(queue, (now + trial.cost, order, trial))
            else:
                free += 1
        stopped = sum(trial.passed < len(trial.curve.steps) for trial in self._trials)
        return Replay(tuple(used[1:]) or (0,), tuple(best[1:]) or (math.inf,), len(self._trials), stopped)

    def _next(self) -> _Trial | None:
        choice = self._policy.choose(len(self._trials) < len(self._candidates))
        if choice is None:
            return None
        if choice == "start":
            trial = _Trial(len(self._trials), self._candidates[len(self._trials)])
            self._trials.append(trial)
            self._policy.started(trial.number)
        else:
            trial = self._trials[choice]
        rungs = trial.curve.rungs
        trial.target = slice_end(self._policy, rungs, rungs[trial.passed - 1] if trial.passed else 0)
        return trial

    def _goes_on(self, trial: _Trial) -> bool:
        """Whether the trial keeps its worker after a rung."""
        if trial.passed == len(trial.curve.rungs):
            self._complete.append(trial.seen)
            self._policy.ended(trial.number, trial.seen)
        elif self._pruner.judge(trial.seen, self._complete, most_images=0).kind == "prune":
            self._policy.ended(trial.number, trial.seen)
        elif trial.curve.rungs[trial.passed - 1] >= trial.target:
            self._policy.paused(trial.number, trial.seen)
        else:
            return True
        return False


def _speedup(grid: NDArray[np.int64], best: NDArray[np.float64], target: float) -> float | None:
    reached = np.flatnonzero(best <= target)
    return float(grid[-1] / grid[reached[0]]) if len(reached) else None
