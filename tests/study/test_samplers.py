"""Laws of the samplers: a sample depends on the seed, its position and the trials before it, and on nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.study.samplers import sobol
from orchestrator.study.study import Decision, SweepStudy
from search_spaces.samplers import SAMPLERS
from search_spaces.space import Dimension
from tests.support import made_up

NUMBERS = "search={beta1: {uniform: [0, 0.9]}, slope: {uniform: [0, 0.9]}, n_critic: {int: [1, 9]}, batch: 100}"
GRID = "search={n_critic: {int: [1, 9]}, slope: {choice: [0.1, 0.2]}, batch: 100}"
SHORT = {"gp": "startup: 4", "tpe": "startup: 4", "nsga2": "population: 4"}
PRUNERS = ("none", "{name: median, startup: 2}", "freeze-thaw")


def create(folder: Path, sampler: str, *overrides: str, seed: int = 0) -> SweepStudy:
    folder.mkdir()
    seeded = "" if sampler == "grid" else f"seed: {seed}"
    settings = ", ".join(filter(None, (f"name: {sampler}", seeded, SHORT.get(sampler))))
    space = GRID if sampler == "grid" else NUMBERS
    return SweepStudy.create(folder, made_up.sweep(f"sampler={{{settings}}}", "pruner=none", space, *overrides))


def badness(params: dict[str, Any]) -> float:
    """Distance from an optimum inside the space."""
    beta1, slope, n_critic = (float(params.get(name, 0.3)) for name in ("beta1", "slope", "n_critic"))
    return 1 + abs(beta1 - 0.3) + abs(slope - 0.3) + abs(n_critic - 4) / 9


def drive(study: SweepStudy, at_once: int = 2, restart: bool = False) -> list[dict[str, Any]]:
    """The parameters of all trials, `at_once` at a time; with `restart` by a new driver after every event."""
    live: list[int] = []
    found: dict[int, dict[str, Any]] = {}
    while True:
        while len(live) < at_once and (ticket := study.next_ticket()) is not None:
            live.append(ticket.number)
            found[ticket.number] = ticket.params
        if not live:
            return [found[number] for number in sorted(found)]
        number = live.pop(0)
        passed, decision = len(study.records()[number].rungs), Decision.CONTINUE
        while decision is Decision.CONTINUE:
            passed += 1
            level = badness(found[number])
            decision = study.report(number, made_up.history(*(level + 1 / rung for rung in range(1, passed + 1))))
        if restart:
            reopened = SweepStudy.open(study.folder)
            assert reopened is not None
            study = reopened
            for number in live:
                again = study.next_ticket()
                assert again is not None
                assert (again.number, again.params) == (number, found[number])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samples_do_not_depend_on_restarts(tmp_path: Path, sampler: str) -> None:
    undisturbed = drive(create(tmp_path / "a", sampler, "budget.trials=14"))
    interrupted = drive(create(tmp_path / "b", sampler, "budget.trials=14"), restart=True)
    assert interrupted == undisturbed
    assert len({str(params) for params in undisturbed}) == 14


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_another_seed_gives_other_samples(tmp_path: Path, sampler: str) -> None:
    one, other = (drive(create(tmp_path / f"{seed}", sampler, "budget.trials=3", seed=seed)) for seed in (0, 1))
    assert all(a != b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_a_trial_whose_driver_died_while_asking_gets_the_parameters_it_would_have_had(
    tmp_path: Path, sampler: str
) -> None:
    undisturbed = drive(create(tmp_path / "a", sampler, "budget.trials=8"), at_once=1)
    study = create(tmp_path / "b", sampler, "budget.trials=7")
    assert drive(study, at_once=1) == undisturbed[:7]
    study._study.ask()  # and dies
    heir = SweepStudy.open(study.folder)
    assert heir is not None
    ticket = heir.next_ticket()
    assert ticket is not None
    assert (ticket.number, ticket.params) == (7, undisturbed[7])


@pytest.mark.parametrize("pruner", PRUNERS[1:])  # complete trials are among those of the pruners
@pytest.mark.parametrize("sampler", ["tpe", pytest.param("gp", marks=pytest.mark.slow), "cmaes"])
def test_samplers_learn_from_complete_pruned_and_paused_trials(tmp_path: Path, sampler: str, pruner: str) -> None:
    near = 0
    for seed in range(2):
        study = create(tmp_path / f"{seed}", sampler, "budget.trials=32", f"pruner={pruner}", seed=seed)
        near += sum(badness(params) < 1.25 for params in drive(study)[-20:])
    assert near >= 8  # of 40; at random 2


@pytest.mark.parametrize("pruner", PRUNERS)
def test_children_inherit_from_complete_pruned_and_paused_trials(tmp_path: Path, pruner: str) -> None:
    found = drive(create(tmp_path / "a", "nsga2", "budget.trials=20", f"pruner={pruner}"))
    inherited = [
        any(params[name] == earlier[name] for earlier in found[:position] for name in ("beta1", "slope"))
        for position, params in enumerate(found)
    ]
    assert not any(inherited[:4])
    assert sum(inherited[8:]) >= 9  # of 12; mutation draws some anew


def test_a_quasi_random_sequence_leaves_no_gaps_and_each_point_follows_from_its_position() -> None:
    space = made_up.sweep(NUMBERS).space
    points = [sobol(space, seed=5, position=position) for position in range(16)]
    for name, low, high in (("beta1", 0.0, 0.9), ("slope", 0.0, 0.9)):
        assert sorted(int(16 * (point[name] - low) / (high - low)) for point in points) == list(range(16))
    assert {point["n_critic"] for point in points} == set(range(1, 10))
    assert sobol(space, seed=5, position=11) == points[11]


def test_a_quasi_random_sequence_is_the_same_where_dimensions_are_inactive(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    sweep = made_up.sweep("sampler=qmc", "pruner=none", "budget.trials=8")
    study = SweepStudy.create(tmp_path / "a", sweep)
    for position in range(8):
        ticket, whole = study.next_ticket(), sobol(sweep.space, seed=0, position=position)
        assert ticket is not None
        assert ticket.params["g_lr"] == whole["g_lr"]
        assert ticket.params.get("smoothing_strength") in (None, whole["smoothing_strength"])


@pytest.mark.parametrize(
    ("dimension", "values"),
    [
        (Dimension("x", "choice", values=("a", "b", "c")), ["a", "b", "c"]),
        (Dimension("x", "int", 3, 5), [3, 4, 5]),
        (Dimension("x", "uniform", 0.0, 3.0), [0.0, 1.5, 2.997]),
        (Dimension("x", "log_uniform", 1.0, 100.0), [1.0, 10.0, 99.54]),
    ],
)
def test_a_dimension_is_walked_through_by_shares_of_its_distribution(dimension: Dimension, values: list[Any]) -> None:
    found = [dimension.quantile(share) for share in (0.0, 0.5, 0.999)]
    assert found == (values if dimension.kind == "choice" else pytest.approx(values, rel=1e-3))


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_points_come_first_whatever_the_sampler(tmp_path: Path, sampler: str) -> None:
    points = "points=[{beta1: 0.25}, {beta1: 0.5, slope: 0.75, n_critic: 2}]"
    params = drive(create(tmp_path / "a", sampler, points, "budget.trials=12"))
    assert params[0]["beta1"] == 0.25
    assert {name: params[1][name] for name in ("beta1", "slope", "n_critic")} == {
        "beta1": 0.5,
        "slope": 0.75,
        "n_critic": 2,
    }
    assert len({str(each) for each in params}) == 12
