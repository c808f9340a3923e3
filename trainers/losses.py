"""Adversarial losses on logits, as scalars that are minimised."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, relu, softplus

from trainers.config import Config


def d_loss(real: Tensor, fake: Tensor, config: Config) -> Tensor:
    """The discriminator's loss on its logits for real and generated images, each [B].

    bce (Goodfellow et al., 2014) and least-squares (Mao et al., 2017) use smoothed targets. wasserstein (Arjovsky et
    al., 2017) and hinge (Lim and Ye, 2017) have no targets.
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
    """The generator's loss on the discriminator's logits [B] for generated images; its target is never smoothed."""
    fake = wide(fake)
    if config.loss in ("wasserstein", "hinge"):
        return -fake.mean()
    if config.loss == "least-squares":
        return (fake - 1).square().mean() / 2
    return -softplus(fake).mean() if config.saturating else softplus(-fake).mean()


def judgement(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Scalars to be recorded, from a discriminator's logits [B]: both means, and the share in [0, 1] that is right."""
    real, fake = wide(real.detach()), wide(fake.detach())
    right = ((real > 0).float().mean() + (fake < 0).float().mean()) / 2
    return {"d_real": real.mean(), "d_fake": fake.mean(), "d_accuracy": right}


def wide(values: Tensor) -> Tensor:
    """`values` as float32 if they are bfloat16, whose sums lose digits; other types unchanged."""
    return values.float() if values.dtype == torch.bfloat16 else values


def real_target(logits: Tensor, config: Config) -> Tensor:
    """Targets of real images, shaped like `logits`, with s = `smoothing_strength`.

    They are 1, 1 - s, or uniform in [1 - s, 1]; a share `label_flip` of them is 0. The target of generated images is
    that of `fake_target`.
    """
    if config.smoothing == "random":
        target = 1 - config.smoothing_strength * torch.rand_like(logits)
    else:
        target = torch.full_like(logits, 1.0 if config.smoothing == "none" else 1 - config.smoothing_strength)
    if config.label_flip:
        target = target * (torch.rand_like(logits) >= config.label_flip)
    return target


def fake_target(config: Config) -> float:
    """Target of generated images: `smoothing_strength` if smoothing is two-sided, else 0 (Salimans et al., 2016)."""
    return config.smoothing_strength if config.smoothing == "two-sided" else 0.0
