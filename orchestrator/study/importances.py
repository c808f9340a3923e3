"""Which parameters the scores of a sweep depend on."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial

#: With fewer trials a variance says nothing about a parameter.
FEWEST_FOR_IMPORTANCES = 4


def importances(scored: Sequence[tuple[FrozenTrial, float]]) -> dict[str, float]:
    """Share of each parameter in the variance of the trials' scores, largest first (fANOVA; Hutter, 2014).

    Parameters that not all trials have, and constant ones, have no share. Empty with fewer than
    FEWEST_FOR_IMPORTANCES trials.
    """
    if len(scored) < FEWEST_FOR_IMPORTANCES:
        return {}
    # scikit-learn, which fANOVA uses, takes two seconds to import.
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    study = optuna.create_study()
    study.add_trials(
        optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=score)
        for trial, score in scored
    )
    return dict(get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0)))
