"""Laws of the changes to real images."""

from __future__ import annotations

import math

import pytest
import torch

from trainers.augment import augment, cutmix, oversampled, saturate, sharpen
from trainers.config import Config

CLASSES = 10


@pytest.fixture
def images() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(64, 3, 16, 12) * 2 - 1


def test_nothing_is_changed_unless_asked(images: torch.Tensor) -> None:
    labels = torch.arange(64) % CLASSES
    changed, same = augment(images, labels, CLASSES, Config())
    assert changed is images
    assert same is labels


def test_every_strength_reaches_its_change(images: torch.Tensor) -> None:
    labels = torch.arange(64) % CLASSES
    for name in ("sharpening", "saturation", "cutmix"):
        changed, _ = augment(images, labels, CLASSES, Config.model_validate({name: 0.7}))
        assert not torch.equal(changed, images), name
        assert changed.abs().max() <= 1


def test_cutmix_labels_equal_the_real_area() -> None:
    torch.manual_seed(1)
    labels = torch.arange(64) % CLASSES
    values = labels.float()[:, None, None, None].expand(64, 1, 16, 12)  # each image shows its class as its value
    mixed, shares = cutmix(values, labels, CLASSES, share=1.0, alpha=1.0)
    assert shares.sum(dim=1) == pytest.approx(torch.ones(64))
    for image, share in zip(mixed, shares, strict=True):
        area = torch.stack([(image == label).float().mean() for label in range(CLASSES)])
        assert torch.allclose(area, share, atol=1e-6)


def test_cutmix_pastes_one_box_and_leaves_the_rest() -> None:
    torch.manual_seed(2)
    values = torch.arange(200).float()[:, None, None, None].expand(200, 1, 8, 8).contiguous()
    mixed, _ = cutmix(values, torch.zeros(200, dtype=torch.int64), 2, share=1.0, alpha=1.0)
    pasted = 0
    for index, image in enumerate(mixed[:, 0]):
        box = torch.nonzero(image != index)
        assert len(image.unique()) <= 2
        if len(box):
            pasted += 1
            height, width = (box.max(dim=0).values - box.min(dim=0).values + 1).tolist()
            assert len(box) == height * width
    assert pasted > 100


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_cutmix_changes_its_share_of_the_images(share: float) -> None:
    torch.manual_seed(3)
    count = 4000
    values = torch.arange(count).float()[:, None, None, None].expand(count, 1, 8, 8)
    mixed, _ = cutmix(values, torch.zeros(count, dtype=torch.int64), 2, share, alpha=1.0)
    changed = (mixed != values).flatten(1).any(dim=1).float().mean().item()
    # A box may be empty, or land outside.
    assert share * 0.8 <= changed <= share + 5 * math.sqrt(0.25 / count)


def test_cutmix_with_alpha_1_keeps_more_than_half_of_the_area() -> None:
    """With alpha 1 a box that meets no border takes 1 - l = 1/2 of the area on average; borders make that smaller."""
    torch.manual_seed(4)
    labels = torch.zeros(4000, dtype=torch.int64)
    pictures = torch.arange(4000).float()[:, None, None, None].expand(4000, 1, 16, 16)
    mixed, _ = cutmix(pictures, labels, 2, share=1.0, alpha=1.0)
    kept = (mixed == pictures).float().mean().item()
    assert 0.5 < kept < 0.8


def test_sharpening_is_the_stated_kernel(images: torch.Tensor) -> None:
    small = images / 20
    sharp = sharpen(small, 1.0)
    by_hand = 5 * small[:, :, 5, 5] - small[:, :, 4, 5] - small[:, :, 6, 5] - small[:, :, 5, 4] - small[:, :, 5, 6]
    assert torch.allclose(sharp[:, :, 5, 5], by_hand, atol=1e-6)
    assert torch.allclose(sharpen(small, 0.5), (small + sharp) / 2, atol=1e-6)
    flat = torch.full((1, 3, 8, 8), 0.3)
    assert torch.allclose(sharpen(flat, 1.0), flat)


def test_saturation_keeps_brightness_and_gray(images: torch.Tensor) -> None:
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    small = images / 4
    changed = saturate(small, 0.5)
    assert torch.allclose((changed * weights).sum(dim=1), (small * weights).sum(dim=1), atol=1e-6)
    gray = torch.rand(4, 1, 8, 8).expand(4, 3, 8, 8) - 0.5
    assert torch.allclose(saturate(gray, 0.9), gray, atol=1e-6)


def test_oversampling_keeps_every_image_and_adds_evenly() -> None:
    labels = torch.tensor([0] * 5 + [1] * 20 + [2] * 25)
    indices = oversampled(labels, 81, torch.Generator().manual_seed(0))
    assert len(indices) == 81
    assert indices[:50].tolist() == list(range(50))
    assert torch.bincount(labels[indices[50:]]).tolist() == [11, 10, 10]
    assert oversampled(labels, 10, torch.Generator()).tolist() == list(range(50))


def test_cutmix_and_a_gradient_penalty_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"cutmix is 0.5, but a gradient penalty needs unmixed labels"):
        Config.model_validate({"cutmix": 0.5, "lipschitz": "penalty"})
