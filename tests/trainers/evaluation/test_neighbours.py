"""Precision, recall, density and coverage on sets whose neighbours can be counted by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from trainers.evaluation import neighbours
from trainers.evaluation.neighbours import COVERAGE_K, PRECISION_K, ball_radii, coverage, density, precision, recall

#: On a line with gaps of 1: the 3rd neighbour of an inner point is 2 away, that of an end 3.
LINE = torch.arange(10.0)[:, None]


def _features(count: int, seed: int, dim: int = 4, shift: float = 0.0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + shift


def _all_four(samples: Tensor, reference: Tensor) -> tuple[float, float, float, float]:
    return (
        precision(samples, reference, ball_radii(reference, PRECISION_K))[0],
        recall(samples, reference),
        density(samples, reference, ball_radii(reference, COVERAGE_K))[0],
        coverage(samples, reference, ball_radii(reference, COVERAGE_K)),
    )


def test_radii_are_the_squared_distances_to_the_kth_other_point() -> None:
    assert ball_radii(LINE, 3).tolist() == [9, 4, 4, 4, 4, 4, 4, 4, 4, 9]
    assert ball_radii(LINE, 1).tolist() == [1] * 10


def test_radii_equal_those_of_sorted_distances() -> None:
    x = _features(40, 0)
    expected = torch.cdist(x.double(), x.double()).square().sort(dim=1).values[:, 4]
    torch.testing.assert_close(ball_radii(x, 4), expected, rtol=1e-10, atol=0)


def test_precision_is_the_share_of_samples_in_any_ball() -> None:
    # The ends' balls reach 3 beyond them, borders included.
    samples = torch.tensor([[-3.0], [-3.1], [4.5], [12.0], [12.5]])
    value, stderr = precision(samples, LINE, ball_radii(LINE, PRECISION_K))
    assert value == 0.6
    assert stderr == pytest.approx(math.sqrt(0.6 * 0.4 / 5))


def test_recall_is_the_share_of_the_reference_in_any_samples_ball() -> None:
    samples = torch.tensor([[0.0], [0.1], [0.2], [0.3]])  # reach 0.3, 0.2, 0.2, 0.3
    assert recall(samples, torch.tensor([[0.0], [-0.25], [0.55], [0.7]])) == 0.75


def test_density_counts_balls_and_coverage_the_balls_that_hold_a_sample() -> None:
    reference = torch.arange(6.0)[:, None]  # 5th neighbours: 5, 4, 3, 3, 4, 5 away
    samples = torch.tensor([[9.0], [100.0]])
    # 9 lies within 5 of 5 and not within 4 of 4.
    radii = ball_radii(reference, COVERAGE_K)
    value, stderr = density(samples, reference, radii)
    assert value == pytest.approx((1 / 5 + 0) / 2)
    assert stderr == pytest.approx(0.1)
    assert coverage(samples, reference, radii) == pytest.approx(1 / 6)


def test_a_set_compared_with_itself_is_perfect() -> None:
    x = _features(60, 1)
    faithful, diverse, dense, covered = _all_four(x, x)
    assert (faithful, diverse, covered) == (1, 1, 1)
    # Each sample lies in its own ball, and as a neighbour in five others on average.
    assert dense == pytest.approx(6 / 5)


@pytest.mark.parametrize("count", [75, 300])
def test_equal_distributions_cover_what_their_numbers_allow(count: int) -> None:
    reference = _features(300, 12)
    radii = ball_radii(reference, COVERAGE_K)
    values = [coverage(_features(count, 20 + seed), reference, radii) for seed in range(10)]
    assert sum(values) / 10 == pytest.approx(1 - (300 / (300 + count)) ** COVERAGE_K, abs=0.03)


def test_far_sets_share_nothing() -> None:
    assert _all_four(_features(30, 2, shift=100), _features(40, 3)) == (0, 0, 0, 0)


def test_one_mode_of_two_keeps_precision_and_loses_recall() -> None:
    reference = torch.cat([_features(60, 4), _features(60, 5, shift=50)])
    faithful, diverse, dense, covered = _all_four(_features(120, 6), reference)
    assert faithful > 0.8
    assert diverse <= 0.5
    assert covered <= 0.5
    assert dense > 0.8


def test_a_collapsed_generator_has_defined_values() -> None:
    reference = _features(50, 7)
    faithful, diverse, dense, covered = _all_four(reference[:1].expand(30, -1), reference)
    assert faithful == 1
    assert diverse == pytest.approx(1 / 50)  # the one image that it shows
    assert dense >= 1 / 5
    assert 1 / 50 <= covered < 1


def test_rounding_does_not_part_equal_features() -> None:
    x = (_features(1, 8, dim=50) * 1e3 + 1e3).expand(20, -1)
    assert ball_radii(x, 3).tolist() == [0] * 20
    assert _all_four(x, x) == (1, 1, 4, 1)  # each lies in all 20 balls


def test_blocks_do_not_change_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = _features(33, 9, shift=0.5), _features(41, 10)
    whole = _all_four(x, y)
    monkeypatch.setattr(neighbours, "_BLOCK", 7)
    assert _all_four(x, y) == pytest.approx(whole, rel=1e-12)
    monkeypatch.setattr(neighbours, "_BLOCK", 2)  # less than the neighbours that are sought
    assert _all_four(x, y) == pytest.approx(whole, rel=1e-12)


def test_too_few_or_non_finite_samples_are_refused() -> None:
    x = _features(10, 11)
    radii = ball_radii(x, PRECISION_K)
    with pytest.raises(ValueError, match="at least 4 samples, got 3"):
        recall(x[:3], x)
    for metric in (precision, density, coverage):
        with pytest.raises(ValueError, match="at least 2 samples, got 1"):
            metric(x[:1], x, radii)
        with pytest.raises(ValueError, match="not finite"):
            metric(x * float("nan"), x, radii)
    with pytest.raises(ValueError, match="not finite"):
        recall(x * float("inf"), x)
    assert math.isfinite(recall(x[:4], x))
