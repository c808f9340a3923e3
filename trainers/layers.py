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
#: Power iterations after a change of weights, the number that PyTorch does at the start.
_SETTLING = 15


def scaled(filters: int, width: float) -> int:
    """A filter count times the factor `width`, rounded, at least 1."""
    return max(1, round(filters * width))


def upsample(inputs: int, outputs: int, kernel: int = 5, stride: int = 2) -> nn.ConvTranspose2d:
    """Transposed convolution that multiplies height and width by `stride`. Stride 1 needs an odd kernel."""
    return nn.ConvTranspose2d(
        inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, output_padding=(stride - kernel) % 2
    )


def downsample(inputs: int, outputs: int, kernel: int = 5, stride: int = 2) -> nn.Conv2d:
    """Convolution that divides height and width by `stride`. Stride 1 needs an odd kernel."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2)


def activation(kind: Activation, slope: float) -> nn.Module:
    """ReLU, leaky ReLU with negative slope `slope`, or PReLU with one learned slope that starts at `slope`."""
    if kind == "relu":
        return nn.ReLU()
    return nn.LeakyReLU(slope) if kind == "leaky" else nn.PReLU(init=slope)


def norm(kind: Norm, channels: int) -> nn.Module:
    """A normalisation of [B, channels, H, W]. `layer` normalises over all channels and positions of an image."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    return nn.GroupNorm(1, channels) if kind == "layer" else nn.Identity()


def dropouts(config: Config) -> tuple[nn.Module, nn.Module]:
    """Two modules: one before a discriminator's output layer, and one on its logits [B].

    `dropout_place` says which of them is the dropout; the other is the identity. Dropout on logits sets each to 0, an
    undecided verdict, with probability `dropout`, and divides the others by 1 - `dropout`.
    """
    dropout, nothing = nn.Dropout(config.dropout), nn.Identity()
    return (dropout, nothing) if config.dropout_place == "features" else (nothing, dropout)


def uniform(normal: Tensor) -> Tensor:
    """Standard normal numbers z as uniform ones in [-1, 1]: 2 Phi(z) - 1 with the normal distribution function Phi."""
    return torch.erf(normal / math.sqrt(2))


def as_one_hot(labels: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Classes int64 [B] as one-hot rows [B, classes] of `dtype`; mixed labels, float [B, classes], only change type."""
    return (labels if labels.is_floating_point() else one_hot(labels, classes)).to(dtype)


def append_one_hot(z: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Vectors [B, n] followed by their one-hot labels: [B, n + classes]."""
    return torch.cat([z, as_one_hot(labels, classes, z.dtype)], dim=1)


def append_label_planes(images: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Images [B, C, H, W] followed by one plane per class, [B, C + classes, H, W]: 1 for the image's class, else 0."""
    planes = as_one_hot(labels, classes, images.dtype)[:, :, None, None]
    return torch.cat([images, planes.expand(-1, -1, *images.shape[2:])], dim=1)


class Unconditional(nn.Module):
    """A generator or discriminator that applies its layers in sequence and ignores the labels."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return cast(Tensor, self.layers(x))


class SelfAttention(nn.Module):
    """Attention over all positions of [B, C, H, W]: gamma * h A^T + x (Zhang et al., 2018).

    A is the softmax of f^T g over its last dimension: each row belongs to one query position and sums to 1. f and g map
    C channels to C / reduction, h maps C to C; all are 1x1 convolutions without bias. gamma starts at 0, so the module
    starts as the identity. Without `residual` the output is h A^T. The softmax is written out, because a gradient
    penalty needs second derivatives.
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
    """The initialisation of Radford et al. (2015), in place.

    Weights of convolutions and dense layers come from N(0, std^2), scales of 2-D batch norms from N(1, std^2); biases
    and shifts are 0.
    """
    for part in module.modules():
        own = dict(part.named_parameters())
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            # Under spectral normalisation the weight is a parameter below the layer, and the estimate of its largest
            # singular value still belongs to the old weight.
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
    """Runs power iterations of a spectrally normalised layer: each access of its weight in training mode is one."""
    for _ in range(_SETTLING):
        _ = layer.weight
