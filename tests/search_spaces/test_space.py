from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.space import CycleError, Dimension, Space, Value, active, grid, in_order, points, suggest

LOSS = Dimension("loss", "choice", values=("bce", "wasserstein"))
SMOOTHING = Dimension("smoothing", "choice", values=("none", "fixed", "random"), when={"loss": ("bce",)})
STRENGTH = Dimension("strength", "uniform", 0.0, 0.3, when={"smoothing": ("fixed", "random"), "loss": ("bce",)})
CRITIC = Dimension("n_critic", "int", 1, 5)
RATE = Dimension("g_lr", "log_uniform", 1e-5, 1e-2)
DECAY = Dimension("decay", "constant", values=(0.99,))
SPACE = Space(in_order([STRENGTH, DECAY, SMOOTHING, LOSS, CRITIC, RATE]))


def test_parents_come_before_children_and_other_dimensions_keep_their_order() -> None:
    assert [dimension.name for dimension in SPACE] == ["loss", "smoothing", "strength", "decay", "n_critic", "g_lr"]


def test_a_parent_from_elsewhere_does_not_disturb_the_order() -> None:
    child = Dimension("a", "constant", values=(1,), when={"system": ("x",)})
    assert in_order([child, LOSS]) == (child, LOSS)


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_a_cycle_is_told_by_its_names(length: int) -> None:
    ring = [Dimension(f"d{i}", "choice", values=(1, 2), when={f"d{(i + 1) % length}": (1,)}) for i in range(length)]
    with pytest.raises(CycleError) as caught:
        in_order(ring)
    assert caught.value.names == (*(f"d{i}" for i in range(length)), "d0")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"loss": "bce", "smoothing": "fixed"}, True),
        ({"loss": "bce", "smoothing": "random"}, True),
        ({"loss": "bce", "smoothing": "none"}, False),
        ({"loss": "wasserstein", "smoothing": "fixed"}, False),
        ({"loss": "bce"}, False),
        ({}, False),
    ],
)
def test_a_dimension_is_active_where_every_parent_has_a_listed_value(values: dict[str, Any], expected: bool) -> None:
    assert active(STRENGTH, values) is expected


def test_only_active_dimensions_are_asked_for_and_constants_never() -> None:
    def asked(answers: dict[str, Value]) -> tuple[list[str], dict[str, Value]]:
        names: list[str] = []

        def pick(dimension: Dimension) -> Value:
            names.append(dimension.name)
            return answers[dimension.name]

        return names, suggest(SPACE, pick)

    always: dict[str, Value] = {"n_critic": 2, "g_lr": 1e-3}
    names, values = asked({"loss": "wasserstein", **always})
    assert names == ["loss", "n_critic", "g_lr"]
    assert values == {"loss": "wasserstein", "decay": 0.99, **always}
    names, values = asked({"loss": "bce", "smoothing": "none", **always})
    assert names == ["loss", "smoothing", "n_critic", "g_lr"]
    names, values = asked({"loss": "bce", "smoothing": "fixed", "strength": 0.1, **always})
    assert names == ["loss", "smoothing", "strength", "n_critic", "g_lr"]
    assert list(values) == [dimension.name for dimension in SPACE]


def test_an_inactive_constant_is_left_out() -> None:
    clip = Dimension("clip", "constant", values=(0.01,), when={"loss": ("wasserstein",)})
    space = Space((LOSS, clip))
    assert suggest(space, lambda _: "bce") == {"loss": "bce"}
    assert suggest(space, lambda _: "wasserstein") == {"loss": "wasserstein", "clip": 0.01}


def test_requirements_include_those_of_all_ancestors() -> None:
    child = Dimension("child", "int", 0, 1, when={"strict": (True,), "smoothing": ("fixed", "none")})
    strict = Dimension("strict", "choice", values=(True, False), when={"smoothing": ("random", "fixed")})
    space = Space((LOSS, SMOOTHING, strict, child))
    assert space.requirements(child) == {"strict": (True,), "smoothing": ("fixed",), "loss": ("bce",)}


def test_contradicting_conditions_leave_no_value() -> None:
    child = Dimension("child", "int", 0, 1, when={"loss": ("wasserstein",), "smoothing": ("none",)})
    assert Space((LOSS, SMOOTHING, child)).requirements(child)["loss"] == ()


@given(st.integers(0, 2**32), st.sampled_from([LOSS, CRITIC, RATE, DECAY, Dimension("x", "uniform", -1.0, 1e-9)]))
def test_a_dimension_allows_what_it_draws_and_its_own_corners(seed: int, dimension: Dimension) -> None:
    assert dimension.allows(dimension.draw(random.Random(seed)))
    assert all(dimension.allows(value) for value in dimension.extremes())


@pytest.mark.parametrize(
    ("dimension", "value"),
    [
        (LOSS, "hinge"),
        (CRITIC, 0),
        (CRITIC, 6),
        (CRITIC, 2.0),
        (CRITIC, True),
        (CRITIC, "2"),
        (RATE, 0.1),
        (DECAY, 1.0),
    ],
)
def test_a_dimension_refuses_what_it_cannot_take(dimension: Dimension, value: Value) -> None:
    assert not dimension.allows(value)


def test_draws_on_a_logarithmic_scale_favour_no_decade() -> None:
    rng = random.Random(0)
    values = [float(RATE.draw(rng)) for _ in range(3000)]
    shares = [sum(10.0**k <= value < 10.0 ** (k + 1) for value in values) / 3000 for k in (-5, -4, -3)]
    assert all(share == pytest.approx(1 / 3, abs=0.04) for share in shares)


def test_points_repeat_with_their_seed_and_change_with_it() -> None:
    assert list(points(SPACE, 20, seed=1)) == list(points(SPACE, 20, seed=1))
    assert list(points(SPACE, 20, seed=1)) != list(points(SPACE, 20, seed=2))


def test_points_meet_every_pair_of_extremes_and_the_interior() -> None:
    found = list(points(SPACE, 256))
    pairs = {(point["n_critic"], point["g_lr"]) for point in found}
    assert {(critic, rate) for critic in (1, 5) for rate in (1e-5, 1e-2)} <= pairs
    assert any(1e-5 < float(rate) < 1e-2 for _, rate in pairs)
    for point in found:
        assert ("strength" in point) == (point.get("smoothing") in ("fixed", "random"))


def test_a_grid_has_every_point_once_and_no_inactive_value() -> None:
    rates = Dimension("rate", "choice", values=(0.1, 0.2), when={"smoothing": ("fixed", "random")})
    found = list(grid(Space((LOSS, SMOOTHING, rates, DECAY, Dimension("n_critic", "int", 1, 2)))))
    # bce with no smoothing, with two kinds of two rates, and wasserstein; each with two paces of the critic.
    assert len(found) == 2 * (1 + 2 * 2 + 1)
    assert len({tuple(point.items()) for point in found}) == len(found)
    for point in found:
        assert ("rate" in point) == (point.get("smoothing") in ("fixed", "random"))
        assert point["decay"] == 0.99


def test_the_last_dimension_of_a_grid_varies_fastest() -> None:
    space = Space((Dimension("a", "choice", values=("x", "y")), Dimension("b", "int", 0, 1)))
    assert [tuple(point.values()) for point in grid(space)] == [("x", 0), ("x", 1), ("y", 0), ("y", 1)]
