"""Pillow's bicubic resize, which clean-fid uses (Parmar, Zhang and Zhu, 2022), as two matrix products."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Keys' cubic convolution kernel with this parameter is Pillow's "bicubic".
_A = -0.5
_SUPPORT = 2.0


def resize(images: Tensor, out: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Images [N, C, H, W] in [0, 255] to `dtype` [N, C, out, out] in [0, 255] on their device, channels last in memory.

    Bicubic, with a wider filter if an image shrinks, to avoid aliasing. The result is not rounded. Memory is that of
    the result; the caller bounds it by the batch. The result differs from clean-fid's, which is float32, by at most 4
    units in the last place, 2^-14.
    """
    count, channels, height, width = images.shape
    rows, columns = (matrix(size, out, images.device, dtype) for size in (height, width))
    with full_precision():
        wide = images.to(dtype) @ columns.T
        # One product per image, with its channels side by side, gives channels last, which is fast for convolutions on
        # a CPU.
        lines = wide.permute(0, 2, 3, 1).reshape(count, height, out * channels)
        pixels = torch.bmm(rows.expand(count, -1, -1), lines)
    return pixels.clamp_(0, 255).view(count, out, out, channels).permute(0, 3, 1, 2)


@lru_cache(maxsize=16)
def matrix(size: int, out: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The matrix M [out, size] that resizes a row x of pixels to M x. Computed in float64; each row sums to 1."""
    return torch.from_numpy(_weights(size, out)).to(device, dtype)


@contextmanager
def full_precision() -> Iterator[None]:
    """Turns TF32 off in the block: its 10 bits of mantissa would make features and scores depend on the GPU."""
    settings = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


def _weights(size: int, out: int) -> NDArray[np.float64]:
    weights = np.zeros((out, size))
    scale = size / out
    stretch = max(scale, 1.0)
    for row in range(out):
        centre = (row + 0.5) * scale
        # Pillow truncates towards zero; negative indices are cut off in any case.
        first = max(math.trunc(centre - _SUPPORT * stretch + 0.5), 0)
        last = min(math.trunc(centre + _SUPPORT * stretch + 0.5), size)
        weights[row, first:last] = _kernel(np.abs(np.arange(first, last) + 0.5 - centre) / stretch)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _kernel(x: NDArray[Any]) -> NDArray[Any]:
    """The cubic convolution kernel at distances x of at least 0 (Keys, 1981)."""
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _A
    return np.where(x < 1, near, np.where(x < _SUPPORT, far, 0.0))
