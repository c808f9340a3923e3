"""Trials that must repeat each other are told before the start."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.advice import FEW_POINTS, sweep_warnings
from search_spaces.space import Dimension, Space, active, grid, pairs, size
from tests.support.sweep_texts import BOTH, message, sweep, sweep_text


@st.composite
def spaces(draw: Any) -> Space:
    """Finite spaces of a few dimensions, each of which may depend on those before it."""
    dimensions: list[Dimension] = []
    for index in range(draw(st.integers(1, 5))):
        low, count = draw(st.integers(-3, 3)), draw(st.integers(1, 4))
        when = {
            parent.name: tuple(draw(st.lists(st.sampled_from(parent.options()), min_size=1, unique=True)))
            for parent in draw(
                st.lists(st.sampled_from(dimensions), unique=True, max_size=2) if dimensions else st.just([])
            )
        }
        if draw(st.booleans()):
            dimensions.append(Dimension(f"d{index}", "int", low, low + count - 1, when=when))
        else:
            dimensions.append(Dimension(f"d{index}", "choice", values=tuple("abcd"[:count]), when=when))
    return Space(tuple(dimensions))


@given(spaces())
def test_the_size_of_a_space_is_the_number_of_its_points(space: Space) -> None:
    assert size(space) == len(list(grid(space)))


def test_large_spaces_are_counted_without_a_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search_spaces.space.MOST_PARTS", 1000)
    huge = Dimension("a", "int", 1, 10**19)
    child = Dimension("b", "choice", values=("x", "y", "z"), when={"a": (5, 10**18)})
    assert size(Space((huge, child))) == 10**19 + 4
    assert size(Space((huge, Dimension("c", "uniform", 0.0, 1.0)))) is None
    doubling = [Dimension(f"p{index}", "choice", values=(0, 1)) for index in range(40)]
    both = [Dimension(f"c{index}", "choice", values=(0, 1), when={f"p{index}": (0,)}) for index in range(40)]
    assert size(Space((*doubling, *both))) is None


@given(spaces())
def test_pairs_of_extreme_values_are_points_and_leave_none_out(space: Space) -> None:
    known = list(grid(space))
    found = list(pairs(space))
    assert all(point in known for point in found)
    for point in known:
        names = [dimension.name for dimension in space if point.get(dimension.name) in dimension.extremes()]
        alone = [name for name in names if not next(d for d in space if d.name == name).when]
        for name in alone:
            for other in alone:
                if name != other:
                    assert any(each[name] == point[name] and each[other] == point[other] for each in found)
    assert all(active(dimension, point) for point in found for dimension in space if dimension.name in point)


@pytest.mark.parametrize(
    ("sections", "points"),
    [
        ({"search": None}, 1),
        ({"search": "{n_critic: {int: [2, 4]}, smoothing: {choice: [none, fixed]}, seed: 7}"}, 6),
        ({"search": "{n_critic: {int: [1, 5]}}", "system": BOTH}, 10),
        ({"search": "{n_critic: {int: [1, 2]}}", "budget": "{gpu_hours: 5}"}, 2),
        ({"search": "{n_critic: {int: [1, 12]}}"}, None),
        ({"search": "{n_critic: {int: [1, 12]}}", "budget": "{trials: 13}", "sampler": "random"}, 12),
        ({}, None),
        ({"search": "{latent: {int: [1, 4000]}}", "budget": "{hours: 2}"}, None),
        (
            {
                "search": "{seed: {choice: [0, 1]}, n_critic: {int: [1, 2]}}",
                "sampler": "grid",
                "budget": "{trials: 4}",
            },
            None,
        ),
    ],
)
def test_more_trials_than_points_are_warned_about(sections: dict[str, str | None], points: int | None) -> None:
    told = [text for text in sweep_warnings(sweep(**sections)) if "identical" in text]
    assert len(told) == (points is not None)
    if points is not None:
        assert f"{points} point" in told[0]
        assert f"set budget.trials to {points} or less" in told[0]
        assert "other seeds by sampler: grid and search.seed" in told[0]


def test_a_budget_of_hours_is_not_warned_about_a_space_that_it_will_hardly_use_up() -> None:
    for count, told in ((FEW_POINTS - 1, 1), (FEW_POINTS, 0)):
        text = sweep_warnings(sweep(search=f"{{latent: {{int: [1, {count}]}}}}", budget="{hours: 1}"))
        assert len(text) == told


def test_a_point_that_is_listed_twice_is_warned_about() -> None:
    space = "{n_critic: {int: [1, 3]}, g_lr: {log_uniform: [1e-5, 1e-3]}}"
    whole = "[{n_critic: 1, g_lr: 1e-4}, {n_critic: 2}, {n_critic: 2}, {g_lr: 1e-4, n_critic: 1}]"
    assert sweep_warnings(sweep(search=space, points=whole)) == [
        "points 0 and 3 give identical trials; leave one of them out"
    ]
    assert sweep_warnings(sweep(search=space, points="[{n_critic: 2}, {n_critic: 2}]")) == []


def test_a_rule_between_two_fields_is_found_among_many_values() -> None:
    latents = ", ".join(map(str, [5, *range(64, 900)]))
    text = sweep_text(system="das-infogan", rungs="[12.8]", search=f"{{latent: {{choice: [{latents}]}}}}")
    assert "latent is 5 but the code takes 12 of it" in message(text)
