"""Similarity of pairs of images, pixel by pixel: for image-to-image systems, whose output has a known target."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d

#: Window of SSIM and its constants, as fractions of the range (Wang et al., 2004).
WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03
#: Largest value of a pixel.
RANGE = 255

_BLOCK = 64


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """Peak signal-to-noise ratio 10 log10(255^2 / MSE) in dB of pairs of uint8 images [N, C, H, W], float64 [N].

    Infinite for equal images. Raises ValueError for other types or different shapes.
    """
    _check(images, targets)
    errors = (images.double() - targets.double()).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(RANGE**2 / errors)


def ssim(images: Tensor, targets: Tensor) -> Tensor:
    """Mean structural similarity (Wang et al., 2004) of pairs of uint8 images [N, C, H, W], float64 [N] in [-1, 1].

    The windows are Gaussian, 11x11 with sigma 1.5, and lie within the image; the mean is over positions and channels.
    Raises ValueError for other types, different shapes, or images smaller than the window.
    """
    _check(images, targets)
    if min(images.shape[2:]) < WINDOW:
        raise ValueError(f"images are {tuple(images.shape[2:])}, smaller than the window of {WINDOW}x{WINDOW}")
    pairs = zip(torch.split(images, _BLOCK), torch.split(targets, _BLOCK), strict=True)
    return torch.cat([_ssim(x.double(), y.double()) for x, y in pairs])


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    count, channels = x.shape[:2]
    window = _window().to(x.device)

    def local_mean(image: Tensor) -> Tensor:
        return conv2d(image.flatten(0, 1)[:, None], window)

    mean_x, mean_y = local_mean(x), local_mean(y)
    var_x, var_y = local_mean(x * x) - mean_x**2, local_mean(y * y) - mean_y**2
    cov = local_mean(x * y) - mean_x * mean_y
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    likeness = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return likeness.reshape(count, channels, -1).mean(dim=(1, 2))


def _window() -> Tensor:
    """The Gaussian window, float64 [1, 1, 11, 11], with sum 1."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    return (torch.outer(weights, weights) / weights.sum() ** 2)[None, None]


def _check(images: Tensor, targets: Tensor) -> None:
    for batch in (images, targets):
        if batch.dtype != torch.uint8 or batch.ndim != 4:
            raise ValueError(f"images are {batch.dtype} {tuple(batch.shape)}, not uint8 [N, C, H, W]")
    if images.shape != targets.shape:
        raise ValueError(f"images {tuple(images.shape)} and targets {tuple(targets.shape)} are no pairs")
