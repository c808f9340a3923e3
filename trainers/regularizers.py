"""Lipschitz control of a critic: weight clipping, gradient penalty, spectral normalisation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from trainers.config import Config

_WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_NORMS = (nn.BatchNorm2d, nn.BatchNorm1d, nn.InstanceNorm2d, nn.GroupNorm)


def spectral(module: nn.Module, on: bool = True) -> nn.Module:
    """`module` under spectral normalisation (Miyato et al., 2018), or unchanged if `on` is False.

    The weight is divided by its largest singular value, which one power iteration per training step estimates.
    """
    return spectral_norm(module) if on else module


def spectral_layers(net: nn.Module, kinds: tuple[type[nn.Module], ...] = _WEIGHTED) -> None:
    """Applies `spectral` to every layer of `net` that is one of `kinds`.

    Call it after the initialisation, so that the power iteration starts from the weights that are trained.
    """
    for layer in list(net.modules()):
        if isinstance(layer, kinds):
            spectral(layer)


def clipped(critic: nn.Module, scope: str) -> Iterator[nn.Parameter]:
    """The parameters that weight clipping bounds, by `scope`.

    trainable: all parameters. weights: the weights of convolutions and dense layers, without biases. all-but-norm: all
    but those of normalisation layers, since clipping would shrink their scales. Buffers (statistics, power iterations)
    are never clipped, since that breaks inference.
    """
    for module in critic.modules():
        for name, parameter in module.named_parameters(recurse=False):
            # Spectral normalisation moves the weight into a module below the layer, as its parameter `original`.
            is_weight = name == "original" or (isinstance(module, _WEIGHTED) and name == "weight")
            if scope == "weights" and not is_weight:
                continue
            if scope == "all-but-norm" and isinstance(module, _NORMS):
                continue
            yield parameter


@torch.no_grad()
def clip(critic: nn.Module, value: float, scope: str) -> None:
    """Clamps the parameters in `scope` to [-value, value] (Arjovsky et al., 2017)."""
    for parameter in clipped(critic, scope):
        parameter.clamp_(-value, value)


@torch.no_grad()
def clipped_share(critic: nn.Module, value: float, scope: str) -> float:
    """Share in [0, 1] of the numbers in `scope` that lie on the bound `value` of `clip`; 0 if `scope` is empty.

    If most of them do, the critic is no more expressive than one with two-valued weights (Gulrajani et al., 2017).
    """
    parameters = list(clipped(critic, scope))
    on_bound = sum(int((parameter.abs() >= value).sum()) for parameter in parameters)
    return on_bound / max(1, sum(parameter.numel() for parameter in parameters))


class Penalty(NamedTuple):
    """A gradient penalty and the slope that it penalises, both scalars."""

    value: Tensor
    """To be minimised; differentiable."""
    slope: Tensor
    """Mean norm of the critic's gradient at the penalised points, to be recorded."""


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, labels: Tensor) -> Penalty:
    """Mean of (|gradient of the critic| - 1)^2 at points between real and generated images (Gulrajani et al., 2017).

    Images are float [B, C, H, W], and `labels` are those of both. The result can be differentiated again.
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = (share * real + (1 - share) * fake).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between, labels).sum(), between, create_graph=True)
    slopes = gradient.flatten(1).norm(dim=1)
    return Penalty((slopes - 1).square().mean(), slopes.detach().mean())


def weighted_penalty(
    config: Config, critic: nn.Module, real: Tensor, fake: Tensor, labels: Tensor
) -> tuple[Tensor | float, dict[str, Tensor]]:
    """`gradient_penalty` times `penalty_weight`, and the scalars to be recorded; (0, {}) without a penalty."""
    if not config.controls("penalty"):
        return 0.0, {}
    penalty = gradient_penalty(critic, real, fake, labels)
    return config.penalty_weight * penalty.value, {"penalty": penalty.value.detach(), "penalty_slope": penalty.slope}
