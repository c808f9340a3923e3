"""Adversarial losses on logits, as scalars to be minimised."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, relu, softplus

from trainers.config import Config


def d_loss(real: Tensor, fake: Tensor, config: Config) -> Tensor:
    """The discriminator's loss on its logits for real and generated images, each [B].

    bce (Goodfellow et al., 2014) and least-squares (Mao et al., 2017) see smoothed targets; wasserstein (Arjovsky et
    al., 2017) and hinge (Lim and Ye, 2017) have none.
    """
    real, fake = wide(real), wide(fake)
    if config.loss == "wasserstein":
        return fake.mean() - real.mean()
    if config.loss == "hinge":
        return relu(1 - real).mean() + relu(1 + fake).mean()
    real_goal, fake_goal = real_target(real, config), fake_target(config)
    if config.loss == "least-squares":
        return ((real - real_goal).square().mean() + (fake - fake_goal).square().mean()) / 2
    return binary_cross_entropy_with_logits(real, real_goal) + (softplus(fake) - fake_goal * fake).mean()


def g_loss(fake: Tensor, config: Config) -> Tensor:
    """The generator's loss on the discriminator's logits for its images, [B]; its own target is never smoothed."""
    fake = wide(fake)
    if config.loss in ("wasserstein", "hinge"):
        return -fake.mean()
    if config.loss == "least-squares":
        return (fake - 1).square().mean() / 2
    return -softplus(fake).mean() if config.saturating else softplus(-fake).mean()


def judgement(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """What a discriminator says, from its logits [B]: mean on real and on generated images, and its share of hits."""
    real, fake = wide(real.detach()), wide(fake.detach())
    right = ((real > 0).float().mean() + (fake < 0).float().mean()) / 2
    return {"d_real": real.mean(), "d_fake": fake.mean(), "d_accuracy": right}


def wide(values: Tensor) -> Tensor:
    """`values` in a type whose sums keep their digits: bfloat16 as float32, others as they are."""
    return values.float() if values.dtype == torch.bfloat16 else values


def real_target(logits: Tensor, config: Config) -> Tensor:
    """Targets of real images, shaped like `logits`: 1, 1 - s, or uniform in [1 - s, 1]; flipped ones are 0.

    Smoothing is one-sided unless said otherwise: the target of generated images stays 0 (Salimans et al., 2016).
    """
    if config.smoothing == "random":
        target = 1 - config.smoothing_strength * torch.rand_like(logits)
    else:
        target = torch.full_like(logits, 1.0 if config.smoothing == "none" else 1 - config.smoothing_strength)
    if config.label_flip:
        target = target * (torch.rand_like(logits) >= config.label_flip)
    return target


def fake_target(config: Config) -> float:
    """The target of generated images: 0, or s where smoothing is two-sided."""
    return config.smoothing_strength if config.smoothing == "two-sided" else 0.0
