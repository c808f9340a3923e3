"""When a sweep ends: what its trials have used, against its budget. Pure functions of what the study records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.settings import Budget, Resources
from trainers.evaluation.scores import Metric

HOUR = 3600.0
#: Limits that also end running trials, each at its next rung. With the other limits they run to their end.
_ENDING_TRIALS = ("hours", "gpu_hours", "money")
#: The first that is reached gives the reason.
_ORDER = (*_ENDING_TRIALS, "target", "patience", "trials")


@dataclass(frozen=True)
class TrialUse:
    """What one trial has used and reached."""

    number: int
    ended: bool
    """Complete or pruned. A failed trial has not ended in this sense: it says nothing about the search."""
    seconds: float
    """Time of training and scoring, up to the last rung."""
    best: float | None
    """Best score so far; None before the first."""


@dataclass(frozen=True)
class Spent:
    """What a sweep has used so far."""

    trials: int
    """All that have begun."""
    gpu_hours: float
    """Of GPUs, or of CPU cores if trials have no GPU."""
    hours: float
    """Hours in which a driver was at work."""
    since_best: int
    """Ended trials with a higher number than the best one, or than any while there is no best one."""
    best: float | None
    """Best score of all trials."""


@dataclass(frozen=True)
class Limit:
    """A limit of a budget that is reached: an amount is used up, or a goal is met."""

    name: str
    """As the key of the budget."""
    reason: str

    @property
    def ends_trials(self) -> bool:
        """Whether running trials end at their next rung."""
        return self.name in _ENDING_TRIALS

    @property
    def allows_promotion(self) -> bool:
        """Whether paused trials may still be promoted."""
        return self.name == "trials"


def trial_use(number: int, ended: bool, rungs: Iterable[Mapping[str, Any]], metric: Metric) -> TrialUse:
    """What a trial has used and reached, from its rungs as plain JSON."""
    passed = list(rungs)
    values = [rung["scores"][metric.name]["value"] for rung in passed if metric.name in rung["scores"]]
    seconds = sum(rung["train_seconds"] + rung["score_seconds"] for rung in passed)
    return TrialUse(number, ended, seconds, metric.best(values))


def spent(trials: Iterable[TrialUse], driver_seconds: float, resources: Resources, metric: Metric) -> Spent:
    """The sum over `trials`, in any order."""
    uses = sorted(trials, key=lambda use: use.number)
    scored = [(metric.cost(use.best), use.number, use.best) for use in uses if use.best is not None]
    _, best, value = min(scored, default=(0.0, -1, None))
    return Spent(
        trials=len(uses),
        gpu_hours=sum(use.seconds for use in uses) * devices(resources) / HOUR,
        hours=driver_seconds / HOUR,
        since_best=sum(use.ended and use.number > best for use in uses),
        best=value,
    )


def devices(resources: Resources) -> float:
    """GPUs of one trial, or CPU cores if it has no GPU."""
    return resources.workers_per_trial * (resources.gpu_share or resources.cpus_per_worker)


def reached_limit(budget: Budget, so_far: Spent, metric: Metric) -> Limit | None:
    """The limit that is reached, first one that ends running trials; None while new trials may begin.

    A limit that is reached stays reached, except for patience after an improvement.
    """
    reached = [name for name, (have, most) in _counted(budget, so_far).items() if have >= most]
    if budget.target is not None and so_far.best is not None:
        good = metric.cost(so_far.best) <= metric.cost(budget.target)
        reached += ["target"] if good else []
    name = min(reached, key=_ORDER.index, default=None)
    return None if name is None else Limit(name, f"budget: {_words(budget, so_far)[name]}")


def may_end_trials(budget: Budget) -> bool:
    """Whether the budget has a limit that ends running trials."""
    return any(getattr(budget, name) is not None for name in _ENDING_TRIALS)


def usage_text(budget: Budget, so_far: Spent) -> str:
    """What is used of each limit but the number of trials, in one line; empty if there is no other."""
    return "; ".join(words for name, words in _words(budget, so_far).items() if name != "trials")


def extended(budget: Budget, trials: int) -> Budget:
    """`budget` with `trials` more trials; unchanged if it does not limit their number."""
    return budget if budget.trials is None else budget.model_copy(update={"trials": budget.trials + trials})


def _counted(budget: Budget, so_far: Spent) -> dict[str, tuple[float, float]]:
    """The amount used and the limit, for each limit on an amount."""
    have = {
        "hours": so_far.hours,
        "gpu_hours": so_far.gpu_hours,
        "money": so_far.gpu_hours * (budget.price_per_gpu_hour or 0.0),
        "trials": so_far.trials,
        "patience": so_far.since_best,
    }
    most = {name: getattr(budget, name) for name in have}
    return {name: (have[name], most[name]) for name in have if most[name] is not None}


def _words(budget: Budget, so_far: Spent) -> dict[str, str]:
    texts = {
        "hours": "{:.4g} of {:g} hours",
        "gpu_hours": "{:.4g} of {:g} GPU-hours",
        "money": "{:.4g} of {:g} money",
        "trials": "{:g} of {:g} trials",
        "patience": "no improvement in {:g} of {:g} trials",
    }
    words = {name: texts[name].format(*amounts) for name, amounts in _counted(budget, so_far).items()}
    if budget.target is not None:
        best = "no score" if so_far.best is None else f"best {so_far.best:.4g}"
        words["target"] = f"{best} of target {budget.target:g}"
    return words
