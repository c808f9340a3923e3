"""When a sweep ends: what its trials have used, against its budget. Pure functions of what the study records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.settings import Budget, Resources
from trainers.evaluation.scores import Metric

HOUR = 3600.0
#: Limits that also end trials under way, each at its next rung; under the others these run to their end.
_ENDING_TRIALS = ("hours", "gpu_hours", "money")
#: The first that is reached gives the reason.
_ORDER = (*_ENDING_TRIALS, "target", "patience", "trials")


@dataclass(frozen=True)
class TrialUse:
    """What one trial has used and reached."""

    number: int
    ended: bool
    """Complete or pruned. A failed trial has not ended in this sense: it says nothing of the search."""
    seconds: float
    """Of training and scoring, up to the last rung."""
    best: float | None
    """Best score so far; None before the first."""


@dataclass(frozen=True)
class Spent:
    """What a sweep has used so far."""

    trials: int
    """All that have begun."""
    gpu_hours: float
    """Of GPUs, or of CPU cores where trials have no GPU."""
    hours: float
    """In which a driver was at work."""
    since_best: int
    """Ended trials with a higher number than the best one, or than any while there is no best one."""
    best: float | None
    """Best score of all trials."""


@dataclass(frozen=True)
class Limit:
    """A part of a budget that is used, or a goal that is reached."""

    name: str
    """As the key of the budget."""
    reason: str

    @property
    def ends_trials(self) -> bool:
        """Whether trials under way end at their next rung."""
        return self.name in _ENDING_TRIALS

    @property
    def allows_promotion(self) -> bool:
        """Whether trials that have begun and wait may still go on."""
        return self.name == "trials"


def trial_use(number: int, ended: bool, rungs: Iterable[Mapping[str, Any]], metric: Metric) -> TrialUse:
    """The use of a trial from its rungs as plain JSON."""
    passed = list(rungs)
    values = [rung["scores"][metric.name]["value"] for rung in passed if metric.name in rung["scores"]]
    seconds = sum(rung["train_seconds"] + rung["score_seconds"] for rung in passed)
    return TrialUse(number, ended, seconds, metric.best(values))


def spent(trials: Iterable[TrialUse], driver_seconds: float, resources: Resources, metric: Metric) -> Spent:
    """The sum over `trials`, in whatever order they come."""
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
    """GPUs of one trial, or CPU cores where it has no GPU."""
    return resources.workers_per_trial * (resources.gpu_share or resources.cpus_per_worker)


def reached_limit(budget: Budget, so_far: Spent, metric: Metric) -> Limit | None:
    """The gravest limit that is reached, an urgent one before the others; None while new trials may begin.

    Whatever more is used, what is used up stays so; an improvement alone brings patience back.
    """
    reached = [name for name, (have, most) in _counted(budget, so_far).items() if have >= most]
    if budget.target is not None and so_far.best is not None:
        good = metric.cost(so_far.best) <= metric.cost(budget.target)
        reached += ["target"] if good else []
    name = min(reached, key=_ORDER.index, default=None)
    return None if name is None else Limit(name, f"budget: {_words(budget, so_far)[name]}")


def may_end_trials(budget: Budget) -> bool:
    """Whether the budget has a limit that ends trials under way."""
    return any(getattr(budget, name) is not None for name in _ENDING_TRIALS)


def usage_text(budget: Budget, so_far: Spent) -> str:
    """What is used of each limit but the number of trials, in one line; empty where there is no other."""
    return "; ".join(words for name, words in _words(budget, so_far).items() if name != "trials")


def extended(budget: Budget, trials: int) -> Budget:
    """The budget with so many more trials; one without a limit on trials stays as it is."""
    return budget if budget.trials is None else budget.model_copy(update={"trials": budget.trials + trials})


def _counted(budget: Budget, so_far: Spent) -> dict[str, tuple[float, float]]:
    """What is used and what there is, for each limit that counts upwards."""
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
