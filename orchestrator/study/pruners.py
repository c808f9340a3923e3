"""Optuna's pruners in our sweeps, and our pruners in anybody's Optuna study."""

from __future__ import annotations

import math
from collections.abc import Sequence

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from orchestrator.study.foreign import made
from search_spaces.pruners.rule import Curve, Pruner
from trainers.evaluation.scores import Score


def named_pruner(pruner: Pruner, rungs: Sequence[int]) -> BasePruner | None:
    """The Optuna pruner that `pruner` names, made anew; None if `pruner` has a rule of our own.

    Raises InputError if its class cannot be imported, is no pruner, or does not take its arguments.
    """
    named = pruner.optuna_pruner(rungs)
    return None if named is None else made(*named, BasePruner, "pruner")


class RulePruner(BasePruner):  # type: ignore[misc]  # optuna is not checked
    """One of our pruners in a plain Optuna study: `create_study(pruner=RulePruner(Median()))`.

    Values have no standard errors there, so a trial is pruned as soon as its value is worse, however little. Raises
    ValueError for a pruner that pauses trials, which a plain study cannot resume, and for one of Optuna's.
    """

    def __init__(self, pruner: Pruner) -> None:
        if pruner.pauses or pruner.optuna_pruner((1, 2)) is not None:
            raise ValueError(f"{pruner.title} has no rule that prunes; use median, percentile, patient or threshold")
        self._pruner = pruner

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether `trial` is to be pruned after the value that it has just reported."""
        curve = _curve(trial, study.direction)
        if not curve.steps:
            return False
        if math.isnan(trial.intermediate_values[curve.steps[-1]]):
            return True
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        others = (_curve(other, study.direction) for other in complete)
        return self._pruner.judge(curve, others, most_images=0).kind == "prune"


def _curve(trial: FrozenTrial, direction: StudyDirection) -> Curve:
    # The metrics stand for the direction alone.
    metric = "is" if direction == StudyDirection.MAXIMIZE else "fid"
    values = sorted(trial.intermediate_values.items())
    scores = [None if math.isnan(value) else Score(metric, value, None, 0, "", "", 0) for _, value in values]
    return Curve(tuple(step for step, _ in values), tuple(scores))
