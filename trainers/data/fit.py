"""Conversion of images between shapes, so that systems of different shapes can share a data set."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

#: Weights of red, green and blue in a gray value (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)
#: Images converted at a time: as floats, all of them might not fit into memory.
_PART = 1000


def fitted(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Images uint8 [N, C, H, W] as uint8 [N, *shape], by bilinear interpolation with antialiasing.

    There are 1 (gray) or 3 (colour) channels: gray is repeated, colour becomes its luma. Images that have the shape
    already are returned unchanged.
    """
    if tuple(images.shape[1:]) == shape:
        return images
    return torch.cat([_fitted(part, shape) for part in images.split(_PART)])


def _fitted(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    pixels = images.float()
    if pixels.shape[1] > shape[0]:
        pixels = torch.einsum("nchw,c->nhw", pixels, torch.tensor(LUMA, device=images.device))[:, None]
    if tuple(pixels.shape[2:]) != shape[1:]:
        pixels = interpolate(pixels, shape[1:], mode="bilinear", antialias=True)
    return pixels.round().clamp(0, 255).to(torch.uint8).expand(-1, shape[0], -1, -1).contiguous()
