"""Which parameters the scores of a sweep depend on."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial

from orchestrator.study.sampler_view import subsample

#: With fewer trials a variance says nothing about a parameter.
FEWEST_FOR_IMPORTANCES = 4
#: Most trials that are analysed: the time grows with their square, and shares hardly change with more.
MOST_ANALYSED = 256


def importances(scored: Sequence[tuple[FrozenTrial, float]]) -> dict[str, float]:
    """Share of each parameter in the variance of the trials' costs, largest first (fANOVA; Hutter, 2014).

    A cost is a score turned so that less is better. Of more than MOST_ANALYSED trials a part is analysed, always the
    same one: see `sampler_view.subsample`.

    Parameters that not all trials have, and constant ones, have no share. Empty with fewer than
    FEWEST_FOR_IMPORTANCES trials.
    """
    if len(scored) < FEWEST_FOR_IMPORTANCES:
        return {}
    # scikit-learn, which fANOVA uses, takes two seconds to import.
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    # Counted before trials are left out: those that remain may all have a parameter that others lack.
    common = set.intersection(*(set(trial.params) for trial, _ in scored))
    study = optuna.create_study()
    study.add_trials(
        optuna.trial.create_trial(
            params={name: value for name, value in trial.params.items() if name in common},
            distributions={name: each for name, each in trial.distributions.items() if name in common},
            value=cost,
        )
        for trial, cost in subsample(scored, MOST_ANALYSED, lambda pair: (pair[1],))
    )
    return dict(get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0)))
