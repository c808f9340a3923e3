"""Laws of what a sampler is shown of a large study."""

from __future__ import annotations

from itertools import pairwise

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.samplers import RandomSampler, TPESampler
from optuna.samplers._tpe.sampler import default_gamma
from optuna.trial import FrozenTrial, create_trial

from orchestrator.study.sampler_view import GOOD, MOST_MODELLED, subsample


def trials(values: list[float]) -> list[FrozenTrial]:
    made = [create_trial(value=value) for value in values]
    for number, trial in enumerate(made):
        trial.number = number
    return made


def by_value(trial: FrozenTrial) -> tuple[float, ...]:
    return (trial.value,)


@given(st.integers(0, 400), st.integers(2 * GOOD + 1, 300), st.randoms())
def test_the_best_and_the_newest_stay_and_the_rest_is_an_even_sample(count: int, most: int, random: object) -> None:
    values = [float(value) for value in range(count)]
    random.shuffle(values)  # type: ignore[attr-defined]
    all_of_them = trials(values)
    kept = subsample(all_of_them, most, by_value)
    assert len(kept) == min(count, most)
    numbers = [trial.number for trial in kept]
    assert numbers == sorted(set(numbers))
    if count > most:
        assert set(sorted(values)[:GOOD]) <= {trial.value for trial in kept}
        assert numbers[-1] == count - 1
        gaps = [later - earlier for earlier, later in pairwise(numbers)]
        assert max(gaps) <= -(-count // (most - 2 * GOOD)) + GOOD + 1


def test_tpe_takes_the_same_trials_for_good_ones() -> None:
    assert default_gamma(MOST_MODELLED) == default_gamma(10 * MOST_MODELLED) == GOOD


@pytest.mark.slow
def test_late_trials_are_as_near_the_optimum_as_without_it() -> None:
    """Distance of 40 trials after 600 random ones from the optimum, in the mean of seeds."""

    def distance(seed: int, most: int) -> float:
        def objective(trial: optuna.Trial) -> float:
            return sum((trial.suggest_float(name, 0, 1) - 0.3) ** 2 for name in "abcd")

        study = optuna.create_study(sampler=RandomSampler(seed=seed))
        study.optimize(objective, n_trials=600)
        known = subsample(study.trials, most, by_value)
        found = []
        for draw in range(40):
            shown = optuna.create_study(sampler=TPESampler(seed=draw, multivariate=True, group=True))
            shown.add_trials(known)
            found.append(objective(shown.ask()))
        return sum(found) / len(found)

    thin, whole = ([distance(seed, most) for seed in range(4)] for most in (MOST_MODELLED, 10**6))
    assert sum(thin) <= 1.15 * sum(whole), (thin, whole)
