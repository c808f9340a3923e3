"""A pruner and a sampler as another package would write them for Optuna; tests name them by class in sweep files."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.pruners import BasePruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial


class EverySecond(BasePruner):  # type: ignore[misc]  # optuna is not checked
    """Prunes trials with odd numbers at their first value above `limit`."""

    def __init__(self, limit: float = 0.0) -> None:
        self.limit = limit

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        last = trial.last_step
        return trial.number % 2 == 1 and last is not None and trial.intermediate_values[last] > self.limit


class CountingHalving(SuccessiveHalvingPruner):  # type: ignore[misc]
    """Optuna's successive halving, which writes to the study before it answers; counts how often it was asked."""

    asked: int = 0

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        type(self).asked += 1
        return bool(super().prune(study, trial))


class Raising(BasePruner):  # type: ignore[misc]
    """Fails as soon as it is asked."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        raise ZeroDivisionError("of no use")


class Corner(BaseSampler):  # type: ignore[misc]
    """Gives every number its lower bound; takes no seed."""

    def __init__(self, first: Any = None, fails: bool = False) -> None:
        self.first, self.fails = first, fails

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        return {}

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, param_name: str, distribution: Any) -> Any:
        if self.fails:
            raise KeyError("no such corner")
        return getattr(distribution, "low", self.first or getattr(distribution, "choices", (None,))[0])


class Seeded(RandomSampler):  # type: ignore[misc]
    """Random draws from a seed."""

    def __init__(self, seed: int | None = None, spread: float = 1.0) -> None:
        super().__init__(seed=seed)
        self.spread = spread


class Exploding(BasePruner):  # type: ignore[misc]
    """Cannot be made."""

    def __init__(self) -> None:
        raise RuntimeError("no licence")

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        raise NotImplementedError
