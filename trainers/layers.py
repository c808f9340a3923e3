"""Parts that several GANs share."""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from trainers.config import Config

Activation = Literal["relu", "leaky", "prelu"]
Norm = Literal["none", "batch", "instance", "layer"]
_NORMALISED = "parametrizations.weight.original"
_SETTLING = 15


def scaled(filters: int, width: float) -> int:
    """A filter count under the width factor, at least 1."""
    return max(1, round(filters * width))


def upsample(inputs: int, outputs: int, kernel: int = 5, stride: int = 2) -> nn.ConvTranspose2d:
    """Transposed convolution that multiplies height and width by `stride`, 1 with odd kernels only ("same" padding)."""
    return nn.ConvTranspose2d(
        inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, output_padding=(stride - kernel) % 2
    )


def downsample(inputs: int, outputs: int, kernel: int = 5, stride: int = 2) -> nn.Conv2d:
    """Convolution that divides height and width by `stride`, 1 with odd kernels only ("same" padding)."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2)


def activation(kind: Activation, slope: float) -> nn.Module:
    """ReLU, leaky ReLU with the negative slope `slope`, or PReLU with one learned slope that starts there."""
    if kind == "relu":
        return nn.ReLU()
    return nn.LeakyReLU(slope) if kind == "leaky" else nn.PReLU(init=slope)


def norm(kind: Norm, channels: int) -> nn.Module:
    """A normalisation of [B, channels, H, W]; `layer` normalises over all channels and positions of an image."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    return nn.GroupNorm(1, channels) if kind == "layer" else nn.Identity()


def dropouts(config: Config) -> tuple[nn.Module, nn.Module]:
    """What acts on the features before a discriminator's output layer, and what acts on its logits [B].

    One is the configured dropout, the other does nothing. On logits it sets each to 0 with probability `dropout`, so
    that the image counts as undecided, and divides the rest by 1 - `dropout`.
    """
    dropout, nothing = nn.Dropout(config.dropout), nn.Identity()
    return (dropout, nothing) if config.dropout_place == "features" else (nothing, dropout)


def uniform(normal: Tensor) -> Tensor:
    """Standard normal numbers as uniform ones in [-1, 1], by their distribution function: 2 Phi(z) - 1."""
    return torch.erf(normal / math.sqrt(2))


def as_one_hot(labels: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Classes int64 [B] as shares [B, classes] of `dtype`; labels that are mixed already, float [B, classes], stay."""
    return (labels if labels.is_floating_point() else one_hot(labels, classes)).to(dtype)


def append_one_hot(z: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Vectors [B, n] with their labels behind them, [B, n + classes]."""
    return torch.cat([z, as_one_hot(labels, classes, z.dtype)], dim=1)


def append_label_planes(images: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Images [B, C, H, W] with one plane per class behind them, all 1 for the image's class and else 0."""
    planes = as_one_hot(labels, classes, images.dtype)[:, :, None, None]
    return torch.cat([images, planes.expand(-1, -1, *images.shape[2:])], dim=1)


class Unconditional(nn.Module):
    """Layers in sequence as a generator or discriminator that ignores labels."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return cast(Tensor, self.layers(x))


class SelfAttention(nn.Module):
    """Attention over all positions of [B, C, H, W]: gamma * h A^T + x (Zhang et al., 2018).

    A = softmax over the last dimension of f^T g, so that each row, one query position, sums to 1. f, g: C -> C /
    reduction, h: C -> C, 1x1 without bias. gamma starts at 0: the module begins as the identity. Without `residual`
    the attended h alone is the output. The explicit softmax can be differentiated twice, as gradient penalties need.
    """

    def __init__(self, channels: int, reduction: int = 8, residual: bool = True) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.f = nn.Conv2d(channels, inner, 1, bias=False)
        self.g = nn.Conv2d(channels, inner, 1, bias=False)
        self.h = nn.Conv2d(channels, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(())) if residual else None

    def attention(self, x: Tensor) -> Tensor:
        """The map A, [B, N, N] with N = H W."""
        return torch.softmax(self.f(x).flatten(2).transpose(1, 2) @ self.g(x).flatten(2), dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = (self.h(x).flatten(2) @ self.attention(x).transpose(1, 2)).view_as(x)
        return attended if self.gamma is None else self.gamma * attended + x


def init_normal(module: nn.Module, std: float) -> None:
    """Weights of convolutions and dense layers from N(0, std), biases 0; batch norm N(1, std) and 0 (Radford, 2015)."""
    for part in module.modules():
        own = dict(part.named_parameters())
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            # Spectral normalisation keeps the trained weight below the layer, and its estimate belongs to the old one.
            nn.init.normal_(own[_NORMALISED if _NORMALISED in own else "weight"], 0.0, std)
            if _NORMALISED in own:
                _settle(part)
            if "bias" in own:
                nn.init.zeros_(own["bias"])
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, std)
            nn.init.zeros_(part.bias)


@torch.no_grad()
def _settle(layer: nn.Module) -> None:
    """Runs the power iterations of a spectrally normalised layer, one per access of its weight in training."""
    for _ in range(_SETTLING):
        _ = layer.weight
