"""Parts that several GANs share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot


def scaled(filters: int, width: float) -> int:
    """A filter count under the width factor, at least 1."""
    return max(1, round(filters * width))


def upsample(inputs: int, outputs: int, kernel: int = 5, stride: int = 2) -> nn.ConvTranspose2d:
    """Transposed convolution that multiplies height and width by `stride` (odd kernels, "same" padding)."""
    return nn.ConvTranspose2d(
        inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, output_padding=stride - 1 if stride > 1 else 0
    )


def downsample(inputs: int, outputs: int, kernel: int = 5, stride: int = 2) -> nn.Conv2d:
    """Convolution that divides height and width by `stride` (odd kernels, "same" padding)."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2)


def append_one_hot(z: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Noise [B, latent] and labels [B] as one vector [B, latent + classes]."""
    return torch.cat([z, one_hot(labels, classes).to(z.dtype)], dim=1)


def append_label_planes(images: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Images [B, C, H, W] with one plane per class behind them, all 1 for the image's class and else 0."""
    planes = one_hot(labels, classes).to(images.dtype)[:, :, None, None]
    return torch.cat([images, planes.expand(-1, -1, *images.shape[2:])], dim=1)


def init_normal(module: nn.Module, std: float) -> None:
    """Weights of convolutions and dense layers from N(0, std), biases 0; batch norm N(1, std) and 0 (Radford, 2015)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(part.weight, 0.0, std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, std)
            nn.init.zeros_(part.bias)
