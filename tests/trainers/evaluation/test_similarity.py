"""PSNR and SSIM of image pairs equal their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from trainers.evaluation.similarity import psnr, ssim


def _images(count: int = 3, channels: int = 3, size: int = 16, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, channels, size, size), generator=generator, dtype=torch.uint8)


def test_psnr_is_its_formula() -> None:
    x = torch.full((2, 1, 4, 4), 100, dtype=torch.uint8)
    y = x.clone()
    y[0] += 5
    y[1, 0, 0, 0] = 108
    expected = [10 * math.log10(255**2 / 25), 10 * math.log10(255**2 / (64 / 16))]
    assert psnr(x, y).tolist() == pytest.approx(expected, rel=1e-12)
    assert psnr(y, x).tolist() == psnr(x, y).tolist()


def test_black_against_white_is_zero_decibels() -> None:
    x = torch.zeros(1, 3, 11, 11, dtype=torch.uint8)
    assert psnr(x, x + 255).item() == 0


def test_equal_images_are_as_alike_as_can_be() -> None:
    x = _images()
    assert psnr(x, x).tolist() == [math.inf] * 3
    assert ssim(x, x).tolist() == pytest.approx([1] * 3, abs=1e-12)


def test_ssim_is_its_formula_in_every_window() -> None:
    x, y = _images(1, 2, 13, seed=1), _images(1, 2, 13, seed=2)
    weights = [math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for i in range(11) for j in range(11)]
    total = sum(weights)
    weights = [weight / total for weight in weights]
    values = []
    for channel in range(2):
        for top in range(3):
            for left in range(3):
                a, b = (
                    image[0, channel, top : top + 11, left : left + 11].flatten().double().tolist() for image in (x, y)
                )
                values.append(_of_window(a, b, weights))
    assert ssim(x, y).item() == pytest.approx(sum(values) / len(values), rel=1e-9)


def _of_window(a: list[float], b: list[float], weights: list[float]) -> float:
    mean_a, mean_b = (sum(w * v for w, v in zip(weights, part, strict=True)) for part in (a, b))
    var_a = sum(w * (v - mean_a) ** 2 for w, v in zip(weights, a, strict=True))
    var_b = sum(w * (v - mean_b) ** 2 for w, v in zip(weights, b, strict=True))
    cov = sum(w * (v - mean_a) * (u - mean_b) for w, v, u in zip(weights, a, b, strict=True))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))


def test_ssim_is_symmetric_and_falls_with_noise() -> None:
    x = _images(1, seed=3)
    noise = torch.randint(-40, 41, x.shape, generator=torch.Generator().manual_seed(4))
    small, large = ((x + part).clamp(0, 255).to(torch.uint8) for part in (noise // 4, noise * 2))
    assert ssim(x, small).item() == pytest.approx(ssim(small, x).item(), rel=1e-12)
    assert 1 > ssim(x, small).item() > ssim(x, large).item() > -1


def test_the_negative_of_an_image_is_unlike_it() -> None:
    x = _images(1, seed=5)
    assert ssim(x, 255 - x).item() < 0


def test_flat_images_have_a_defined_likeness() -> None:
    x = torch.zeros(1, 1, 11, 11, dtype=torch.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(x, x + 255).item() == pytest.approx(c1 / (255**2 + c1), rel=1e-9)


def test_many_pairs_are_each_scored_alone() -> None:
    x, y = _images(70, 1, 12, seed=6), _images(70, 1, 12, seed=7)
    for measure in (psnr, ssim):
        alone = torch.cat([measure(x[i : i + 1], y[i : i + 1]) for i in (0, 63, 64, 69)])
        torch.testing.assert_close(measure(x, y)[[0, 63, 64, 69]], alone, rtol=1e-12, atol=0)


def test_what_are_no_pairs_of_images_is_refused() -> None:
    x = _images()
    for measure in (psnr, ssim):
        with pytest.raises(ValueError, match=r"float32 .* not uint8"):
            measure(x.float() / 255, x)
        with pytest.raises(ValueError, match=r"int64 .* not uint8"):
            measure(x, x.long())
        with pytest.raises(ValueError, match="not uint8"):
            measure(x, x[0])
        with pytest.raises(ValueError, match="no pairs"):
            measure(x, x[:2])
    with pytest.raises(ValueError, match="smaller than the window of 11x11"):
        ssim(x[..., :10], x[..., :10])
