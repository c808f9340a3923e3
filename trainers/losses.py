"""Adversarial losses on logits, as scalars to be minimised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from trainers.config import Config


@dataclass(frozen=True)
class AdversarialLoss:
    """`d(real_logits, fake_logits, real_target)` for the discriminator, `g(fake_logits)` for the generator."""

    d: Callable[[Tensor, Tensor, Tensor], Tensor]
    g: Callable[[Tensor], Tensor]


def _bce_d(real: Tensor, fake: Tensor, target: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(real, target) + softplus(fake).mean()


def _bce_g(fake: Tensor) -> Tensor:
    return softplus(-fake).mean()


def _wasserstein_d(real: Tensor, fake: Tensor, target: Tensor) -> Tensor:
    return fake.mean() - real.mean()


def _wasserstein_g(fake: Tensor) -> Tensor:
    return -fake.mean()


#: bce is the non-saturating form (Goodfellow et al., 2014); wasserstein wants a critic with bounded weights
#: (Arjovsky et al., 2017).
LOSSES = {
    "bce": AdversarialLoss(_bce_d, _bce_g),
    "wasserstein": AdversarialLoss(_wasserstein_d, _wasserstein_g),
}


def real_target(logits: Tensor, config: Config) -> Tensor:
    """Targets of real images, shaped like `logits`: 1, 1 - s, or uniform in [1 - s, 1] (one-sided smoothing).

    One-sided: the target of generated images stays 0, and the generator's own target stays 1 (Salimans et al., 2016).
    """
    if config.smoothing == "random":
        return 1 - config.smoothing_strength * torch.rand_like(logits)
    return torch.full_like(logits, 1 - config.smoothing_strength if config.smoothing == "fixed" else 1.0)
