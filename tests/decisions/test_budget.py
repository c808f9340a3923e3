"""Laws of the budget: never more than it allows, whatever happens in whatever order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.decisions.budget import (
    HOUR,
    Limit,
    Spent,
    TrialUse,
    extended,
    reached_limit,
    spent,
    trial_use,
    usage_text,
)
from search_spaces.settings import Budget, Resources
from tests.support import made_up
from trainers.evaluation.scores import METRICS, Metric

CORE = Resources()
AMOUNTS: dict[str, st.SearchStrategy[Any]] = {
    "trials": st.integers(1, 30),
    "gpu_hours": st.floats(0.01, 20),
    "hours": st.floats(0.01, 20),
    "money": st.floats(0.01, 20),
    "patience": st.integers(1, 10),
    "target": st.floats(-1, 10),
}


KID = METRICS["kid"]
#: As if more of it were better.
UPWARDS = replace(KID, minimise=False)


@st.composite
def budgets(draw: st.DrawFn) -> Budget:
    ends = draw(st.sets(st.sampled_from(["trials", "gpu_hours", "hours", "money"]), min_size=1))
    goals = draw(st.sets(st.sampled_from(["patience", "target"])))
    return Budget(price_per_gpu_hour=draw(st.floats(0.1, 5)), **{name: draw(AMOUNTS[name]) for name in ends | goals})


@st.composite
def uses(draw: st.DrawFn) -> list[TrialUse]:
    """Trials with distinct numbers in any order."""
    numbers = draw(st.permutations(range(draw(st.integers(0, 12)))))
    seconds, best = st.floats(0, 5 * HOUR), st.none() | st.floats(-1, 10)
    return [TrialUse(number, draw(st.booleans()), draw(seconds), draw(best)) for number in numbers]


def limit(budget: Budget, trials: list[TrialUse], hours: float = 0.0, metric: Metric = KID) -> Limit | None:
    return reached_limit(budget, spent(trials, hours * HOUR, CORE, metric), metric)


@given(budgets(), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.floats(0, 10)), max_size=150))
def test_whatever_happens_no_trial_begins_after_the_end_and_none_outlives_an_urgent_one_by_two_rungs(
    budget: Budget, events: list[tuple[int, int, float]]
) -> None:
    trials: list[TrialUse] = []
    hours, since_ending = 0.0, dict.fromkeys(range(200), 0)
    for kind, pick, amount in events:
        found = limit(budget, trials, hours)
        running = [use for use in trials if not use.ended]
        if kind == 0 and found is None:
            trials.append(TrialUse(len(trials), False, 0.0, None))
        elif kind == 1 and running:
            use = running[pick % len(running)]
            passed = replace(use, seconds=use.seconds + amount * HOUR, best=min(amount, use.best or amount))
            now = [passed if other is use else other for other in trials]
            after = limit(budget, now, hours)
            trials = [replace(passed, ended=bool(after and after.ends_trials)) if u is passed else u for u in now]
            since_ending[use.number] += bool(found and found.ends_trials)
        elif kind == 2 and running:
            use = running[pick % len(running)]
            trials[trials.index(use)] = replace(use, ended=True)
        else:
            hours += amount / 10
    assert budget.trials is None or len(trials) <= budget.trials
    assert max(since_ending.values()) <= 1


@given(budgets(), uses(), st.floats(0, 30), st.sampled_from([KID, UPWARDS]), st.randoms())
def test_the_order_in_which_trials_are_told_does_not_matter(
    budget: Budget, trials: list[TrialUse], hours: float, metric: Metric, random: Any
) -> None:
    shuffled = random.sample(trials, len(trials))
    assert limit(budget, trials, hours, metric) == limit(budget, shuffled, hours, metric)


@given(budgets(), uses(), st.floats(0, 30), st.floats(0, 30), st.floats(0, 1e6))
def test_what_is_used_up_stays_so_whatever_more_is_used(
    budget: Budget, trials: list[TrialUse], hours: float, more: float, seconds: float
) -> None:
    if limit(budget, trials, hours) is None:
        return
    further = TrialUse(len(trials), True, seconds, None)  # brings no improvement
    assert limit(budget, [*trials, further], hours + more) is not None


@given(budgets(), uses(), st.floats(0, 30), st.integers(1, 30))
def test_a_larger_budget_never_ends_earlier(budget: Budget, trials: list[TrialUse], hours: float, more: int) -> None:
    if limit(extended(budget, more), trials, hours) is not None:
        assert limit(budget, trials, hours) is not None
    without = Budget(trials=1000, **{k: v for k, v in budget.model_dump().items() if k != "trials"})
    if limit(without, trials, hours) is not None:
        assert limit(budget, trials, hours) is not None


@pytest.mark.parametrize(
    ("given_budget", "trials", "hours", "expected"),
    [
        ({"trials": 2}, 1, 99.0, None),
        ({"trials": 2}, 2, 0.0, Limit("trials", "budget: 2 of 2 trials")),
        ({"gpu_hours": 3}, 2, 0.0, None),
        ({"gpu_hours": 3}, 3, 0.0, Limit("gpu_hours", "budget: 3 of 3 GPU-hours")),
        ({"hours": 0.5}, 1, 0.5, Limit("hours", "budget: 0.5 of 0.5 hours")),
        ({"money": 5, "price_per_gpu_hour": 2.5}, 2, 0.0, Limit("money", "budget: 5 of 5 money")),
        ({"trials": 9, "patience": 2}, 2, 0.0, None),
        ({"trials": 9, "patience": 2}, 3, 0.0, Limit("patience", "budget: no improvement in 2 of 2 trials")),
        ({"trials": 9, "target": 1.0}, 1, 0.0, Limit("target", "budget: best 1 of target 1")),
        ({"trials": 9, "target": 0.9}, 5, 0.0, None),
        ({"trials": 2, "hours": 1}, 2, 1.0, Limit("hours", "budget: 1 of 1 hours")),
    ],
)
def test_each_limit_ends_the_sweep_where_it_is_reached(
    given_budget: dict[str, Any], trials: int, hours: float, expected: Limit | None
) -> None:
    """Each trial takes an hour, and the first one is the best."""
    made = [TrialUse(number, True, HOUR, 1.0 + number) for number in range(trials)]
    assert limit(Budget(**given_budget), made, hours) == expected


def test_an_improvement_of_a_trial_under_way_brings_patience_back() -> None:
    budget = Budget(trials=9, patience=1)
    ended, running = [TrialUse(number, True, 1.0, 5.0) for number in (0, 1)], TrialUse(2, False, 1.0, 6.0)
    assert limit(budget, [*ended, running]) is not None
    assert limit(budget, [*ended, replace(running, best=4.0)]) is None


def test_failed_trials_try_nobodys_patience() -> None:
    rungs = [made_up.rung(1000, 3.0).to_json()]
    failed = trial_use(1, False, rungs, KID)
    assert limit(Budget(trials=9, patience=1), [TrialUse(0, True, 1.0, 1.0), failed]) is None
    assert limit(Budget(trials=2, patience=1), [TrialUse(0, True, 1.0, 1.0), failed]) is not None


def test_gpu_hours_count_every_device_of_a_trial_and_cores_where_it_has_none() -> None:
    trial = [trial_use(0, True, [made_up.rung(1000, 3.0, train_seconds=3599.9).to_json()], KID)]
    for resources, hours in (
        (Resources(gpus_per_worker=4), 4.0),
        (Resources(gpus_per_worker=0.25, cpus_per_worker=8), 0.25),
        (Resources(cpus_per_worker=2), 2.0),
    ):
        assert spent(trial, 0.0, resources, KID).gpu_hours == pytest.approx(hours)


def test_a_score_is_best_in_its_own_direction() -> None:
    rungs = [made_up.rung(1000 * step, kid).to_json() for step, kid in enumerate((3.0, 1.0, 2.0), 1)]
    for metric, best in ((KID, 1.0), (UPWARDS, 3.0)):
        use = trial_use(0, False, rungs, metric)
        assert (use.best, use.ended) == (best, False)
        assert use.seconds == pytest.approx(3.3)
        assert spent([use], 0.0, CORE, metric).best == best


def test_the_account_names_every_limit_that_no_count_of_trials_shows() -> None:
    budget = Budget(trials=5, hours=2, patience=3, target=0.5)
    expected = "1.5 of 2 hours; no improvement in 1 of 3 trials; best 0.7 of target 0.5"
    assert usage_text(budget, Spent(4, 9.0, 1.5, 1, 0.7)) == expected
    assert usage_text(Budget(trials=5), Spent(4, 9.0, 1.5, 1, 0.7)) == ""
