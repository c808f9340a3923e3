"""Laws of the expected cost: it knows every trial of the plan, and grows with what is asked."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace

import pytest

from orchestrator.driver import estimate as module
from orchestrator.driver.estimate import estimate
from search_spaces.plan import planned
from search_spaces.sweep import Sweep
from tests.support import made_up

SMALL = ("search.width=0.1", "score.samples=20")


def test_a_plan_has_the_budgets_number_of_valid_trials_and_begins_with_the_points() -> None:
    sweep = made_up.sweep("budget.trials=7", "points=[{smoothing: fixed, smoothing_strength: 0.25}, {g_lr: 1e-4}]")
    plan = planned(sweep)
    assert len(plan) == 7
    assert plan[0]["smoothing_strength"] == 0.25
    assert plan[1]["g_lr"] == 1e-4
    for values in plan:
        sweep.configure(values)


def test_a_grids_plan_is_the_grid() -> None:
    sweep = made_up.sweep("sampler=grid", "search={seed: {choice: [0, 1]}, batch: 100}", "budget.trials=2")
    assert [values["seed"] for values in planned(sweep)] == [0, 1]


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replaces the measurement: a trial takes as many seconds as its batch has hundreds of images."""
    measured: list[float] = []

    def seconds(sweep: Sweep, system_id: str, config: object) -> float:
        measured.append(config.batch / 100)  # type: ignore[attr-defined]
        return measured[-1]

    monkeypatch.setattr(module, "_trial_seconds", seconds)
    return measured


def test_the_cost_is_the_sum_of_the_trials(ticking: list[float]) -> None:
    search = "search={batch: {choice: [100, 200, 500]}}"
    found = estimate(made_up.sweep("sampler=grid", search, "budget.trials=3", "rungs={every: 1, until: 3}"))
    assert found.seconds == pytest.approx(8)
    assert found.measured == 3


def test_trials_that_differ_in_their_seed_alone_are_measured_once(ticking: list[float]) -> None:
    found = estimate(made_up.sweep("sampler=grid", "search={seed: {choice: [0, 1, 2]}}", "budget.trials=3"))
    assert len(ticking) == 1
    assert found.seconds == pytest.approx(3)


def test_of_many_trials_some_stand_for_all(ticking: list[float]) -> None:
    found = estimate(made_up.sweep("budget.trials=1000"))
    assert found.measured <= module.MEASURED_TRIALS
    assert found.seconds == pytest.approx(1000)


def test_a_real_step_is_measured_and_more_images_cost_more(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = count()  # one second passes between two readings of the clock
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(readings)))
    short = estimate(made_up.sweep("budget.trials=1", *SMALL))
    long = estimate(made_up.sweep("budget.trials=1", "rungs={every: 100, until: 100000}", *SMALL))
    assert 0 < short.seconds < long.seconds
    assert "if nothing is pruned" in str(short)


def test_no_more_trials_run_at_once_than_are_allowed_or_exist(ticking: list[float]) -> None:
    assert estimate(made_up.sweep("resources.concurrent_trials=1")).concurrent == 1
    assert estimate(made_up.sweep("budget.trials=1")).concurrent == 1
    assert estimate(made_up.sweep("resources.cpus_per_worker=100000")).concurrent == 1


def test_the_cost_is_told_in_hours_device_hours_and_money(ticking: list[float]) -> None:
    cores = estimate(made_up.sweep("budget={trials: 36, price_per_gpu_hour: 3}", "resources={cpus_per_worker: 2}"))
    assert cores.gpu_hours == pytest.approx(2 * 36 / 3600)
    assert cores.hours == pytest.approx(36 / 3600 / cores.concurrent)
    assert cores.money == pytest.approx(3 * cores.gpu_hours)
    assert "for 36 trials, 0.02 CPU-hours, 0.06 money" in str(cores)
    gpus = estimate(made_up.sweep("budget.trials=36", "resources={gpus_per_worker: 0.5}"))
    assert gpus.gpu_hours == pytest.approx(36 / 3600 / 2)
    assert gpus.money is None
    assert "0.005 GPU-hours, if nothing is pruned" in str(gpus)


@pytest.mark.parametrize(
    ("budget", "trials"),
    [
        ("{gpu_hours: 1}", 3600),
        ("{money: 1, price_per_gpu_hour: 2}", 1800),
        ("{hours: 1}", 3600),
        ("{hours: 2, gpu_hours: 1, trials: 7}", 7),
    ],
)
def test_a_budget_without_trials_is_told_how_many_it_pays(ticking: list[float], budget: str, trials: int) -> None:
    found = estimate(made_up.sweep(f"budget={budget}", "resources.concurrent_trials=1"))
    assert found.trials == pytest.approx(trials)
    assert found.measured <= module.MEASURED_TRIALS
    assert found.seconds == pytest.approx(trials)
