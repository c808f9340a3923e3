"""Optuna's pruners in our sweeps, and our pruners in anybody's Optuna study."""

from __future__ import annotations

import math
from collections.abc import Sequence

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from orchestrator.study.foreign import make_object, naming_class
from orchestrator.study.records import attributes_of
from orchestrator.study.storage import FencedStorage
from search_spaces.pruners import PRUNERS
from search_spaces.pruners.rule import CONTINUE, Answer, Curve, Pruner, prune
from trainers.evaluation.scores import Score

#: Start of the key of a trial's note on the verdict of an Optuna pruner; the images of the rung follow.
_VERDICT = "verdict:"


def named_pruner(pruner: Pruner, rungs: Sequence[int]) -> BasePruner | None:
    """The Optuna pruner that `pruner` names, made anew; None if `pruner` has a rule of our own.

    Raises InputError if its class cannot be imported, is no pruner, or does not take its arguments.
    """
    named = pruner.optuna_pruner(rungs)
    return None if named is None else make_object(*named, BasePruner, "pruner")


def ask_once(pruner: BasePruner, study: optuna.Study, storage: FencedStorage, trial: Trial, images: int) -> Answer:
    """The answer of an Optuna pruner for `trial` after the rung at `images`, which has been recorded.

    Its verdict is kept with the trial before it acts, and the pruner is asked only once about each rung: Optuna's
    successive halving records the trial's rung before it answers, so its second answer would differ. In a journal, the
    notes of the pruner and its verdict are one transaction, so it cannot read its own notes before it has answered.
    Raises InputError if the pruner raises.
    """
    key = f"{_VERDICT}{images}"
    if key not in attributes_of(trial):
        path = f"{type(pruner).__module__}:{type(pruner).__name__}"
        with storage.transaction(), naming_class(path, "pruner"):
            trial.set_user_attr(key, bool(pruner.prune(study, storage.get_trial(trial._trial_id))))
    return prune("") if attributes_of(trial)[key] else CONTINUE


class RulePruner(BasePruner):  # type: ignore[misc]  # optuna is not checked
    """One of our pruners in a plain Optuna study: `create_study(pruner=RulePruner(Median()))`.

    Values have no standard errors there, so a trial is pruned as soon as its value is worse, however little. Raises
    ValueError for a pruner that pauses trials, which a plain study cannot resume, and for one of Optuna's.
    """

    def __init__(self, pruner: Pruner) -> None:
        if pruner.pauses or pruner.optuna_pruner((1, 2)) is not None:
            ruling = ", ".join(name for name, kind in PRUNERS.items() if kind.judge is not Pruner.judge)
            raise ValueError(f"{pruner.title} has no rule that prunes; allowed are {ruling}")
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
    # Only the direction of these metrics matters.
    metric = "is" if direction == StudyDirection.MAXIMIZE else "fid"
    values = sorted(trial.intermediate_values.items())
    scores = [None if math.isnan(value) else Score(metric, value, None, 0, "", "", 0) for _, value in values]
    return Curve(tuple(step for step, _ in values), tuple(scores))
