"""The Fréchet distance obeys its laws and agrees with clean-fid."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from torch import Tensor

from trainers.evaluation.frechet import Gaussian, frechet_distance, gaussian_of
from trainers.vision import import_torchvision


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


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
@pytest.mark.parametrize("count", [400, 20])
def test_it_agrees_with_clean_fid_for_many_and_for_few_samples(count: int) -> None:
    import_torchvision()
    official = importlib.import_module("cleanfid.fid").frechet_distance
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
