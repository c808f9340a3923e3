"""The kernel distance equals its definition, and its standard error says how far off it is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from trainers.evaluation import kid as kid_module
from trainers.evaluation.kid import kid, mean_kernel


def _features(count: int, seed: int, shift: float = 0.0, dim: int = 5) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + shift


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


def test_biased_minus_unbiased_is_the_diagonals_excess() -> None:
    x, y = _features(12, 2, shift=0.3), _features(19, 3)
    excess = sum(
        (sum(_kernel(a, a) for a in part) / len(part) - _mean(part, part, keep_equal_indices=False)) / len(part)
        for part in (x, y)
    )
    assert _naive(x, y, biased=True) - kid(x, y)[0] == pytest.approx(excess, rel=1e-10)


def test_standard_error_is_that_of_the_first_order_terms() -> None:
    x, y = _features(15, 4), _features(11, 5)
    u = [
        sum(_kernel(a, b) for j, b in enumerate(x) if j != i) / 14 - sum(_kernel(a, b) for b in y) / 11
        for i, a in enumerate(x)
    ]
    mean = sum(u) / 15
    deviation = math.sqrt(sum((value - mean) ** 2 for value in u) / 14)
    assert kid(x, y)[1] == pytest.approx(2 * deviation / math.sqrt(15), rel=1e-10)


def test_two_standard_errors_cover_the_true_distance_about_nineteen_times_in_twenty() -> None:
    reference = _features(400, 6)
    term = mean_kernel(reference)
    # With so many samples the value stands for the distance of their distribution to the same reference.
    truth, _ = kid(_features(4_000, 7, shift=0.5), reference, term)
    results = [kid(_features(200, 100 + i, shift=0.5), reference, term) for i in range(200)]
    covered = sum(abs(value - truth) <= 2 * error for value, error in results) / len(results)
    assert 0.88 <= covered <= 0.995


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
