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
    """`module` with its weight divided by its largest singular value, estimated by one power iteration per training
    step (Miyato et al., 2018); unchanged where `on` is False."""
    return spectral_norm(module) if on else module


def spectral_layers(net: nn.Module, kinds: tuple[type[nn.Module], ...] = _WEIGHTED) -> None:
    """Applies `spectral` to every layer of `net` that is one of `kinds`.

    To be called after the initialisation, so that the power iteration starts from the weights that are trained.
    """
    for layer in list(net.modules()):
        if isinstance(layer, kinds):
            spectral(layer)


def clipped(critic: nn.Module, scope: str) -> Iterator[nn.Parameter]:
    """The parameters that weight clipping bounds.

    trainable: all. weights: of convolutions and dense layers, without biases. all-but-norm: all but those of
    normalisation layers, whose scale would be crushed. Buffers (statistics, power iterations) never: clipping them
    breaks inference.
    """
    for module in critic.modules():
        for name, parameter in module.named_parameters(recurse=False):
            # A normalised weight is a parameter of a container below the layer, called `original`.
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
    """Share in [0, 1] of the numbers in `scope` that lie on the bound `value` of `clip`; 0 where nothing is clipped.

    A critic with most of them there has no more freedom than one of two-valued weights (Gulrajani et al., 2017).
    """
    parameters = list(clipped(critic, scope))
    on_bound = sum(int((parameter.abs() >= value).sum()) for parameter in parameters)
    return on_bound / max(1, sum(parameter.numel() for parameter in parameters))


class Penalty(NamedTuple):
    """A gradient penalty and what it acts on, both scalars."""

    value: Tensor
    """To be minimised; differentiable."""
    slope: Tensor
    """Mean norm of the critic's gradient where it is penalised, to be recorded."""


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, labels: Tensor) -> Penalty:
    """Mean of (|gradient of the critic| - 1)^2 at points drawn between real and fake images of the same labels.

    Images [B, C, H, W]; differentiable twice (Gulrajani et al., 2017).
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = (share * real + (1 - share) * fake).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between, labels).sum(), between, create_graph=True)
    slopes = gradient.flatten(1).norm(dim=1)
    return Penalty((slopes - 1).square().mean(), slopes.detach().mean())


def weighted_penalty(
    config: Config, critic: nn.Module, real: Tensor, fake: Tensor, labels: Tensor
) -> tuple[Tensor | float, dict[str, Tensor]]:
    """`gradient_penalty` times its configured weight, and the scalars to be recorded; 0 and none without a penalty."""
    if not config.controls("penalty"):
        return 0.0, {}
    penalty = gradient_penalty(critic, real, fake, labels)
    return config.penalty_weight * penalty.value, {"penalty": penalty.value.detach(), "penalty_slope": penalty.slope}
