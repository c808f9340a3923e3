"""The resize is clean-fid's, to the last digits of float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer
from torch import Tensor

from trainers.evaluation.resize import matrix, resize

#: 4 units in the last place of numbers below 256.
TOLERANCE = 2**-14


def _images(height: int, width: int, count: int = 2) -> Tensor:
    """Noise between black and white stripes, which overshoot most."""
    images = torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(height))
    images[:, :, ::3] = 255
    images[:, :, 1::3, ::2] = 0
    return images.to(torch.uint8)


def _clean(images: Tensor) -> Tensor:
    resizer = build_resizer("clean")
    return torch.from_numpy(np.stack([resizer(image.permute(1, 2, 0).numpy()) for image in images])).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("height", "width"), [(28, 28), (32, 32), (64, 64), (128, 128), (400, 400), (32, 50), (400, 28), (301, 299)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_equals_clean_fids(height: int, width: int, dtype: torch.dtype) -> None:
    images = _images(height, width)
    resized = resize(images, 299, dtype)
    assert (resized.dtype, tuple(resized.shape)) == (dtype, (2, 3, 299, 299))
    assert float((resized - _clean(images)).abs().max()) <= TOLERANCE


def test_nothing_is_resized_where_the_size_is_right() -> None:
    images = _images(299, 299)
    assert torch.equal(resize(images, 299), images.float())


def test_overshooting_is_cut_off_and_shades_between_integers_stay() -> None:
    resized = resize(_images(32, 32), 299)
    assert (float(resized.min()), float(resized.max())) == (0, 255)
    assert not torch.equal(resized, resized.round())


def test_every_row_of_the_matrix_sums_to_one_and_mirrors_its_opposite() -> None:
    for size in (1, 2, 28, 400):
        weights = matrix(size, 299, torch.device("cpu"), torch.float64)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(299, dtype=torch.float64))
        # Pillow rounds the limits of the filter, where the kernel is 0.
        torch.testing.assert_close(weights, weights.flip(0, 1))


def test_a_plain_colour_stays() -> None:
    images = torch.full((1, 3, 17, 400), 201, dtype=torch.uint8)
    torch.testing.assert_close(resize(images, 299, torch.float64), torch.full((1, 3, 299, 299), 201.0).double())


def test_any_number_of_channels_is_resized_channel_by_channel() -> None:
    images = _images(20, 30)
    for channel in range(3):
        torch.testing.assert_close(
            resize(images[:, channel : channel + 1], 64), resize(images, 64)[:, channel : channel + 1]
        )


def test_channels_lie_last_in_memory() -> None:
    assert resize(_images(28, 28), 299).is_contiguous(memory_format=torch.channels_last)


def test_one_matrix_serves_all_batches() -> None:
    before = matrix.cache_info().hits
    resize(_images(32, 40), 299)
    resize(_images(32, 40), 299)
    assert matrix.cache_info().hits >= before + 2


def test_settings_of_precision_are_left_alone() -> None:
    before = torch.backends.cuda.matmul.fp32_precision
    resize(_images(28, 28), 299)
    assert torch.backends.cuda.matmul.fp32_precision == before
