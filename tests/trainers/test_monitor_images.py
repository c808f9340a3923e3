"""What the monitor measures on images and labels: diversity, repeats, balance."""

from __future__ import annotations

import math

import pytest
import torch

from trainers import monitor


def _noise(count: int, seed: int, channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, channels, 6, 6), generator=generator, dtype=torch.uint8)


def test_the_mean_distance_is_that_of_all_pairs_of_the_first_64() -> None:
    images = _noise(70, 0, channels=3)
    pixels = images[:64].double() / 127.5 - 1
    pairs = [float((pixels[i] - pixels[j]).square().sum().sqrt()) for i in range(64) for j in range(i)]
    assert monitor.mean_distance(images).item() == pytest.approx(math.fsum(pairs) / len(pairs), rel=1e-12)


def test_diversity_is_one_for_the_real_images_and_exactly_zero_for_one_image() -> None:
    real = _noise(80, 0)
    assert monitor.diversity(real, real) == 1
    assert monitor.diversity(real[:1].expand(80, -1, -1, -1), real) == 0
    half = (real[:64].double() / 2).round().to(torch.uint8)
    assert monitor.diversity(half, real) == pytest.approx(0.5, rel=0.02)


def test_only_diversity_within_classes_tells_one_image_per_class() -> None:
    real, labels = _noise(80, 0), torch.arange(80) % 10
    repeated = real[:10].repeat(8, 1, 1, 1)
    alone, within = monitor.diversity(repeated, real), monitor.diversity(repeated, real, (labels, labels))
    assert alone is not None
    assert alone > 0.8
    assert within == 0


def test_a_small_set_of_unlike_images_is_told_by_its_repeats_alone() -> None:
    real = _noise(256, 0)
    few = _noise(10, 1).repeat(26, 1, 1, 1)[torch.randperm(260)[:256]]
    few = (few.double() + torch.randn(few.shape)).clamp(0, 255).to(torch.uint8)
    diversity = monitor.diversity(few, real)
    assert diversity is not None
    assert diversity > 0.8
    assert monitor.repeats(few, real) == 1


def test_real_images_hardly_repeat_each_other_and_few_images_tell_nothing() -> None:
    real = _noise(512, 0)
    share = monitor.repeats(real[256:], real[:256])
    assert share is not None
    assert share < 0.05
    assert monitor.repeats(real[:99], real) is None


def test_diversity_is_unknown_without_pairs_or_with_equal_real_images() -> None:
    real, all_unlike = _noise(20, 0), torch.arange(20)
    assert monitor.diversity(real, real, (all_unlike, all_unlike)) is None
    assert monitor.diversity(real, torch.zeros_like(real)) is None


def test_balanced_is_every_class_within_a_factor_of_its_fair_share() -> None:
    def labels(*counts: int) -> torch.Tensor:
        return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))

    assert monitor.balanced(labels(10, 10, 10, 10), 4)
    assert monitor.balanced(labels(15, 7, 9, 9), 4)
    assert not monitor.balanced(labels(16, 8, 8, 8), 4)
    assert not monitor.balanced(labels(11, 6, 11, 12), 4)
    assert not monitor.balanced(labels(10, 10, 10), 4)
    assert monitor.balanced(labels(7), 1)
