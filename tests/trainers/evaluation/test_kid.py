"""The kernel distance equals its definition, and its standard error says how far off it is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from trainers.evaluation import kid as kid_module
from trainers.evaluation.kid import kid, mean_kernel


def _features(count: int, seed: int, shift: float = 0.0, dim: int = 5) -> Tensor:
    """float64, in which products of the kernel are exact to many digits."""
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)).double() + shift


def _kernel(x: Tensor, y: Tensor) -> float:
    return (float(x.double() @ y.double()) / len(x) + 1) ** 3


def _mean(x: Tensor, y: Tensor, keep_equal_indices: bool) -> float:
    values = [_kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(y) if keep_equal_indices or i != j]
    return sum(values) / len(values)


def _naive(x: Tensor, y: Tensor, biased: bool) -> float:
    return _mean(x, x, biased) + _mean(y, y, biased) - 2 * _mean(x, y, keep_equal_indices=True)


def test_it_equals_the_double_loop() -> None:
    x, y = _features(23, 0, shift=0.3), _features(17, 1)
    assert kid(x, y)[0] == pytest.approx(_naive(x, y, biased=False), rel=1e-10)


def test_blocks_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = _features(23, 0, shift=0.3), _features(17, 1)
    whole = kid(x, y)
    monkeypatch.setattr(kid_module, "_BLOCK", 5)
    assert kid(x, y) == pytest.approx(whole, rel=1e-12)


def test_the_biased_form_equals_the_double_loop_with_its_diagonal() -> None:
    x, y = _features(23, 0, shift=0.3), _features(17, 1)
    assert kid(x, y, biased=True)[0] == pytest.approx(_naive(x, y, biased=True), rel=1e-10)
    assert kid(x, y, mean_kernel(y), biased=True) == kid(x, y, biased=True)


def test_biased_minus_unbiased_is_the_diagonals_excess() -> None:
    x, y = _features(12, 2, shift=0.3), _features(19, 3)
    excess = sum(
        (sum(_kernel(a, a) for a in part) / len(part) - _mean(part, part, keep_equal_indices=False)) / len(part)
        for part in (x, y)
    )
    (biased, error), (unbiased, same) = kid(x, y, biased=True), kid(x, y)
    assert biased - unbiased == pytest.approx(excess, rel=1e-10)
    assert error == same


def test_the_biased_form_is_never_below_zero_and_zero_between_equal_sets() -> None:
    pairs = [kid(_features(10, 2 * i), _features(10, 2 * i + 1), biased=True)[0] for i in range(20)]
    assert min(pairs) > 0
    x = _features(10, 40)
    assert kid(x, x, biased=True)[0] == pytest.approx(0, abs=1e-12)


def test_standard_error_is_that_of_the_first_order_terms() -> None:
    x, y = _features(15, 4), _features(11, 5)
    u = [
        sum(_kernel(a, b) for j, b in enumerate(x) if j != i) / 14 - sum(_kernel(a, b) for b in y) / 11
        for i, a in enumerate(x)
    ]
    mean = sum(u) / 15
    deviation = math.sqrt(sum((value - mean) ** 2 for value in u) / 14)
    assert kid(x, y)[1] == pytest.approx(2 * deviation / math.sqrt(15), rel=1e-10)


def _population(mean: Tensor, reference: Tensor) -> float:
    """Distance of the normal distribution of a mean [D] and unit covariance from a fixed reference [M, D], exactly.

    For x.r/D ~ N(t, s), E (x.r/D + 1)^3 = (t + 1)^3 + 3 (t + 1) s; between two samples, over one and then the other.
    """
    dim, m, r = len(mean), mean.double(), reference.double()
    t, s = r @ m / dim, r.square().sum(dim=1) / dim**2
    cross = ((t + 1) ** 3 + 3 * (t + 1) * s).mean()
    square = m.square().sum()
    a = square / dim
    within = (a + 1) ** 3 + 3 * (a + 1) * square / dim**2 + 3 / dim**2 * ((a + 1) * (square + dim) + 2 * square / dim)
    return float(within - 2 * cross) + mean_kernel(reference)


def test_the_population_value_is_that_of_very_many_samples() -> None:
    mean, reference = torch.linspace(-0.2, 0.6, 5), _features(100, 6)
    value, stderr = kid(_features(6_000, 7) + mean, reference)
    assert abs(value - _population(mean, reference)) < 4 * stderr


@pytest.mark.parametrize(
    ("dim", "count"), [(5, 200), pytest.param(64, 500, marks=pytest.mark.slow)], ids=["small", "large"]
)
@pytest.mark.parametrize("shift", [0.5, 0.0], ids=["unlike", "equal"])
def test_its_interval_covers_the_population_value(dim: int, count: int, shift: float) -> None:
    reference = _features(400, 6, dim=dim)
    term, truth = mean_kernel(reference), _population(torch.full((dim,), shift), reference)
    results = [kid(_features(count, 100 + i, shift, dim), reference, term) for i in range(200)]
    covered = sum(abs(value - truth) <= 1.96 * error for value, error in results) / len(results)
    # Between equal distributions the first-order terms all but vanish, and their error is too cautious.
    assert 0.90 <= covered <= (0.99 if shift else 1.0)


def test_it_is_unbiased_between_equal_distributions() -> None:
    values = torch.tensor([kid(_features(60, 2 * i), _features(60, 2 * i + 1))[0] for i in range(200)])
    assert abs(float(values.mean())) < 4 * float(values.std()) / math.sqrt(200)
    assert float(values.min()) < 0


def test_a_known_reference_term_changes_nothing() -> None:
    x, y = _features(23, 8), _features(17, 9)
    assert kid(x, y, mean_kernel(y)) == kid(x, y)


def test_too_few_or_non_finite_samples_are_refused() -> None:
    x = _features(10, 10)
    with pytest.raises(ValueError, match="at least 2"):
        kid(x[:1], x)
    with pytest.raises(ValueError, match="at least 2"):
        kid(x, x[:1])
    with pytest.raises(ValueError, match="not finite"):
        kid(x * float("nan"), x)


def test_scoring_the_same_features_twice_gives_the_same_bits() -> None:
    x, y = _features(50, 11), _features(40, 12)
    assert kid(x, y) == kid(x.clone(), y.clone())
    assert kid(x, y) != kid(_features(50, 13), y)


def test_collapsed_samples_have_the_distance_of_their_point_and_no_error() -> None:
    y = _features(17, 14)
    point = torch.linspace(-1, 1, 5, dtype=torch.float64)
    expected = _kernel(point, point) + _mean(y, y, keep_equal_indices=False) - 2 * _mean(point[None], y, True)
    value, stderr = kid(point.expand(9, -1), y)
    assert value == pytest.approx(expected, rel=1e-10)
    assert stderr == pytest.approx(0, abs=1e-12)


def test_two_samples_are_enough() -> None:
    x, y = _features(2, 15), _features(2, 16)
    value, stderr = kid(x, y)
    assert value == pytest.approx(_naive(x, y, biased=False), rel=1e-10)
    assert math.isfinite(stderr)


@pytest.mark.parametrize("dim", [84, 2048])
def test_single_precision_costs_less_than_a_thousandth_of_the_standard_error(dim: int) -> None:
    x, y = (_features(count, seed, shift, dim).relu() * 4 for count, seed, shift in ((500, 17, 0.02), (700, 18, 0.0)))
    value, stderr = kid(x.float(), y.float())
    exact, exact_stderr = kid(x.float().double(), y.float().double())
    assert value == pytest.approx(exact, abs=stderr / 1000)
    assert stderr == pytest.approx(exact_stderr, rel=1e-4)
