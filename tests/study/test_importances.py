"""Laws of importances that hold for any number of trials. A small sweep's are in test_study.py."""

from __future__ import annotations

import random

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, create_trial

from orchestrator.study.importances import MOST_ANALYSED, importances
from orchestrator.study.sampler_view import subsample

SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-5, 1e-2, log=True),
    "slope": FloatDistribution(0, 1),
    "loss": CategoricalDistribution(["bce", "hinge"]),
}


def trials(count: int) -> list[tuple[FrozenTrial, float]]:
    """Trials whose cost depends most on `loss`, then on `slope`, and not on `lr`; most have `extra` too."""
    rng = random.Random(count)
    found = []
    for number in range(count):
        params = {"lr": 10 ** rng.uniform(-5, -2), "slope": rng.random(), "loss": rng.choice(["bce", "hinge"])}
        cost = 3.0 * (params["loss"] == "bce") + params["slope"] + rng.gauss(0, 0.05)
        space = dict(SPACE)
        if number:
            params["extra"], space["extra"] = rng.random(), FloatDistribution(0, 1)
        found.append((create_trial(params=params, distributions=space, value=cost), cost))
    return found


@pytest.mark.parametrize("count", [60, 7 * MOST_ANALYSED])
def test_shares_have_the_order_of_the_effects_however_many_trials_there_are(count: int) -> None:
    found = importances(trials(count))
    assert list(found) == ["loss", "slope", "lr"]
    assert found["loss"] > 0.7
    assert found["lr"] < 0.05
    assert sum(found.values()) == pytest.approx(1)


@pytest.mark.slow
def test_many_trials_have_the_same_shares_each_time_as_the_part_of_them_that_is_analysed() -> None:
    scored = trials(3 * MOST_ANALYSED)
    part = subsample(scored, MOST_ANALYSED, lambda pair: (pair[1],))
    assert len(part) == MOST_ANALYSED
    # The first trial alone lacks `extra`, so without it the others would give a share to a parameter that not all have.
    without = [(create_trial(params=_common(t), distributions=SPACE, value=cost), cost) for t, cost in part]
    assert importances(scored) == importances(list(scored)) == importances(without)


def _common(trial: FrozenTrial) -> dict[str, object]:
    return {name: trial.params[name] for name in SPACE}
