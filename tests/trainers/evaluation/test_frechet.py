"""The Fréchet distance obeys its laws in each of its forms and agrees with clean-fid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from trainers.evaluation.frechet import Gaussian, Moments, fid, fid_infinity, frechet_distance, gaussian_of
from trainers.evaluation.official import clean_fid


def _features(count: int, dim: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dim, dim, generator=generator)
    return torch.randn(count, dim, generator=generator) @ mix + torch.rand(dim, generator=generator)


def test_moments_are_the_mean_and_the_unbiased_covariance() -> None:
    x = _features(50, 6, 0)
    moments = gaussian_of(x)
    np.testing.assert_allclose(moments.mean, x.double().numpy().mean(0))
    np.testing.assert_allclose(moments.cov, np.cov(x.double().numpy(), rowvar=False))


def test_root_times_its_transpose_is_the_covariance() -> None:
    moments = gaussian_of(_features(50, 6, 1))
    torch.testing.assert_close(moments.root @ moments.root.T, moments.cov)


def test_distance_to_itself_is_nought() -> None:
    x = gaussian_of(_features(200, 16, 2))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9 * float(torch.trace(x.cov)))


def test_distance_is_symmetric() -> None:
    x, y = gaussian_of(_features(200, 16, 3)), gaussian_of(_features(150, 16, 4))
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-10)


def test_shifting_the_mean_costs_the_square_of_the_shift() -> None:
    x = gaussian_of(_features(200, 16, 5))
    shift = torch.linspace(-1, 2, 16, dtype=torch.float64)
    shifted = Gaussian(x.mean + shift, x.cov)
    assert frechet_distance(shifted, x) == pytest.approx(float(shift.square().sum()), rel=1e-9)


def test_in_one_dimension_it_is_the_square_of_the_difference_of_the_deviations() -> None:
    mean = torch.zeros(1, dtype=torch.float64)
    s, t = (Gaussian(mean, torch.tensor([[v**2]], dtype=torch.float64)) for v in (3.0, 0.5))
    assert frechet_distance(s, t) == pytest.approx((3.0 - 0.5) ** 2, rel=1e-12)


@pytest.mark.parametrize("count", [400, 20])
def test_it_agrees_with_clean_fid_for_many_and_for_few_samples(count: int) -> None:
    official = clean_fid().frechet_distance
    x, y = gaussian_of(_features(count, 32, 6)), gaussian_of(_features(500, 32, 7))
    expected = official(x.mean.numpy(), x.cov.numpy(), y.mean.numpy(), y.cov.numpy())
    assert frechet_distance(x, y) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_features_and_moments_are_refused(bad: float) -> None:
    x = _features(20, 4, 8)
    good = gaussian_of(x)
    x[3, 1] = bad
    with pytest.raises(ValueError, match="not finite"):
        gaussian_of(x)
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(Gaussian(good.mean * bad, good.cov), good)


def test_one_sample_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        gaussian_of(torch.zeros(1, 4))


# Moments in batches


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("size", [1, 7, 50])
def test_moments_in_batches_are_those_of_two_passes(offset: float, size: int) -> None:
    x = _features(123, 6, 9).double() + offset
    moments = Moments()
    for part in torch.split(x, size):
        moments.add(part)
    centred = x - x.mean(dim=0)
    cov = centred.T @ centred / 122
    seen = moments.gaussian()
    assert moments.n == 123
    assert float((seen.mean - x.mean(dim=0)).abs().max()) <= 1e-12 * max(1.0, offset)
    # The mean itself is known to one rounding of the offset, and so is all that is centred by it.
    assert float((seen.cov - cov).norm() / cov.norm()) <= 1e-12 + offset * 1e-16


def test_moments_do_not_change_when_more_is_added_later() -> None:
    moments = Moments()
    moments.add(_features(10, 3, 10))
    before = moments.gaussian()
    kept = before.mean.clone(), before.cov.clone()
    moments.add(_features(10, 3, 11) + 5)
    assert torch.equal(before.mean, kept[0])
    assert torch.equal(before.cov, kept[1])
    assert not torch.equal(moments.gaussian().mean, kept[0])


def test_an_empty_batch_adds_nothing() -> None:
    x, moments = _features(10, 3, 10), Moments()
    for part in (x[:0], x, x[:0]):
        moments.add(part)
    assert moments.n == 10
    assert torch.equal(moments.gaussian().cov, gaussian_of(x).cov)


def test_moments_refuse_what_has_none() -> None:
    moments = Moments()
    with pytest.raises(ValueError, match="at least 2 samples, got 0"):
        moments.gaussian()
    with pytest.raises(ValueError, match="not finite"):
        moments.add(torch.full((3, 2), float("nan")))
    moments.add(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        moments.gaussian()


# From features


@pytest.mark.parametrize("count", [32, 31])
def test_the_low_rank_form_is_the_full_form(count: int) -> None:
    # Few enough samples for the low-rank form, and enough that rounding hides nothing in the full one.
    x, y = _features(count, 32, 12), gaussian_of(_features(500, 32, 13))
    assert fid(x, y) == pytest.approx(frechet_distance(gaussian_of(x), y), rel=1e-6)
    assert fid(x, y) == pytest.approx(_by_singular_values(x, y), rel=1e-8)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 20])
def test_the_low_rank_form_is_exact_for_few_samples(count: int) -> None:
    x, y = _features(count, 32, 14), gaussian_of(_features(500, 32, 15))
    assert fid(x, y) == pytest.approx(_by_singular_values(x, y), rel=1e-8)
    assert fid(x, y) == pytest.approx(frechet_distance(gaussian_of(x), y), rel=1e-5)


def _by_singular_values(x: Tensor, reference: Gaussian) -> float:
    """With square roots S = X^T X of both covariances, Tr (S_x S_r)^(1/2) is the sum of singular values of X A."""
    centred = (x.double() - x.double().mean(dim=0)) / (len(x) - 1) ** 0.5
    cross = torch.linalg.svdvals(centred @ reference.root).sum()
    traces = centred.square().sum() + torch.trace(reference.cov) - 2 * cross
    return float((x.double().mean(dim=0) - reference.mean).square().sum() + traces)


def test_many_samples_take_the_full_form() -> None:
    x, y = _features(100, 16, 16), gaussian_of(_features(500, 16, 17))
    assert fid(x, y) == frechet_distance(gaussian_of(x), y)


@pytest.mark.parametrize("count", [2, 16, 40])
def test_collapsed_samples_lie_as_far_as_their_point(count: int) -> None:
    y = gaussian_of(_features(500, 16, 18))
    point = torch.linspace(-1, 1, 16)
    expected = float((point.double() - y.mean).square().sum() + torch.trace(y.cov))
    assert fid(point.expand(count, -1), y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count", [10, 100])
def test_features_without_a_distance_are_refused(count: int) -> None:
    x, y = _features(count, 16, 19), gaussian_of(_features(500, 16, 20))
    with pytest.raises(ValueError, match="mean or covariance is not finite"):
        fid(x, Gaussian(y.mean, y.cov * float("nan")))
    with pytest.raises(ValueError, match="at least 2"):
        fid(x[:1], y)
    x[1, 2] = float("inf")
    with pytest.raises(ValueError, match="not finite"):
        fid(x, y)


# Endless samples


def test_endless_samples_have_less_bias_than_all_there_are() -> None:
    mean = torch.zeros(8, dtype=torch.float64)
    y = Gaussian(mean, torch.eye(8, dtype=torch.float64))
    # One dimension lies 1 away: the distance of the distributions is exactly 1.
    shift = torch.nn.functional.one_hot(torch.tensor(0), 8)
    plain, endless = [], []
    for seed in range(20):
        x = torch.randn(200, 8, generator=torch.Generator().manual_seed(seed)) + shift
        plain.append(fid(x, y))
        endless.append(fid_infinity(x, y, seed)[0])
    bias, rest = np.mean(plain) - 1, np.mean(endless) - 1
    assert bias > 0.05
    assert abs(rest) < bias / 2


def test_endless_samples_are_the_intercept_of_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.evaluation.frechet.fid", lambda x, y: 3.0 + 7.0 / len(x))
    value, stderr = fid_infinity(torch.zeros(500, 2), gaussian_of(_features(10, 2, 21)))
    assert value == pytest.approx(3, rel=1e-12)
    assert stderr == pytest.approx(0, abs=1e-12)


def test_the_error_of_the_intercept_is_that_of_least_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    points: list[tuple[float, float]] = []

    def noisy(x: Tensor, y: Gaussian) -> float:
        points.append((1 / len(x), float(np.sin(len(x)))))
        return points[-1][1]

    monkeypatch.setattr("trainers.evaluation.frechet.fid", noisy)
    value, stderr = fid_infinity(torch.zeros(500, 2), gaussian_of(_features(10, 2, 21)))
    x, y = np.array(points).T
    coefficients, covariance = np.polyfit(x, y, 1, cov="unscaled")
    residuals = y - np.polyval(coefficients, x)
    variance = residuals @ residuals / (len(x) - 2) * covariance[1, 1]
    assert (x[0], x[-1]) == (1 / 50, 1 / 500)
    assert (value, stderr) == pytest.approx((coefficients[1], variance**0.5), rel=1e-9)


def test_the_seed_decides_the_subsets() -> None:
    x, y = _features(60, 8, 22), gaussian_of(_features(100, 8, 23))
    assert fid_infinity(x, y, 1) == fid_infinity(x, y, 1)
    assert fid_infinity(x, y, 1) != fid_infinity(x, y, 2)


def test_twenty_samples_are_the_fewest_to_extrapolate_from() -> None:
    x, y = _features(20, 8, 24), gaussian_of(_features(100, 8, 25))
    assert np.isfinite(fid_infinity(x, y)).all()
    with pytest.raises(ValueError, match="at least 20 samples, got 19"):
        fid_infinity(x[:19], y)


def test_collapsed_samples_need_no_extrapolation() -> None:
    y = gaussian_of(_features(100, 8, 26))
    x = torch.ones(40, 8)
    assert fid_infinity(x, y) == pytest.approx((fid(x, y), 0), rel=1e-9, abs=1e-9)
