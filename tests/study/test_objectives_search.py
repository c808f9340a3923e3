"""Samplers by two objectives on a known function, with pruning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.decisions.objectives import pareto_front
from orchestrator.study.study import Decision
from tests.study.test_objectives import create, history

MEDIAN = "{name: median, startup: 4}"
FOUR = ", ".join(
    f"{name}: {{uniform: [{low}, {high}]}}"
    for name, low, high in (("beta1", 0, 0.9), ("slope", 0, 0.9), ("g_lr", 0.1, 1), ("d_lr", 0.1, 1))
)


def known(params: dict[str, Any]) -> tuple[float, float]:
    """Score and GPU-hours of a whole trial: beta1 buys the one with the other, and the rest makes both worse."""
    bought = params["beta1"] / 0.9
    off = abs(params["slope"] - 0.3) + abs(params["g_lr"] - 0.4) + abs(params["d_lr"] - 0.5)
    return bought + off + 0.1, 1 - bought + off


def searched(folder: Path, sampler: str, pruner: str, trials: int, alike: bool = False) -> list[dict[str, Any]]:
    """The parameters of a whole sweep over `known`, or over its score where costs are `alike`."""
    settings = (f"sampler={{name: {sampler}}}", f"pruner={pruner}", f"search={{{FOUR}, batch: 100}}")
    study, found = create(folder, *settings, f"budget.trials={trials}"), {}
    while (ticket := study.next_ticket()) is not None:
        found[ticket.number] = ticket.params
        score, hours = known(ticket.params)
        if alike:
            hours = 1 + 0.02 * (ticket.number * 7 % 5)
        passed, decision = len(study.records()[ticket.number].rungs), Decision.CONTINUE
        while decision is Decision.CONTINUE:
            passed += 1
            kids = [score - 0.1 + 0.3 / rung for rung in range(1, passed + 1)]
            decision = study.report(ticket.number, history(1200 * hours, *kids))
    return [found[number] for number in sorted(found)]


def dominated_area(points: list[tuple[float, float]]) -> float:
    """Of scores and GPU-hours below 2."""
    area, edge = 0.0, 2.0
    for index in reversed(pareto_front(points)):  # hours increase, scores fall
        score, hours = points[index]
        if hours < 2 and score < edge:
            area += (edge - score) * (2 - hours)
            edge = score
    return area


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "pruner", "trials"),
    [
        ("tpe", MEDIAN, 60),
        ("tpe", "freeze-thaw", 60),
        ("nsga2, population: 8", MEDIAN, 120),
    ],
)
def test_samplers_with_pruning_search_along_a_better_front_than_random_draws(
    tmp_path: Path, sampler: str, pruner: str, trials: int
) -> None:
    def area(sampler: str) -> float:
        tries = (
            searched(tmp_path / f"{sampler[:3]}{seed}", f"{sampler}, seed: {seed}", pruner, trials) for seed in range(4)
        )
        return sum(dominated_area([known(params) for params in found]) for found in tries)

    assert area(sampler) > area("random")


def test_trials_that_are_stopped_early_are_not_good_ones_for_being_cheap(tmp_path: Path) -> None:
    def late(sampler: str) -> float:
        """Mean score of the later trials, where all cost nearly the same."""
        tries = (
            searched(tmp_path / f"{sampler}{seed}", f"{sampler}, seed: {seed}", MEDIAN, 50, alike=True)
            for seed in range(3)
        )
        scores = [known(params)[0] for found in tries for params in found[20:]]
        return sum(scores) / len(scores)

    assert late("tpe") < 0.45 * late("random")
