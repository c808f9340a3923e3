"""What a configuration allows but hardly anybody wants."""

from __future__ import annotations

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from trainers.config import Config, overlay
from trainers.gan import System


def warnings_of(system: System, config: Config) -> list[str]:
    """One sentence for each doubt about `system` trained with `config`; draws no number and holds no weight."""
    found = []
    if config.controls("penalty") and _has_batch_norm(system, config):
        found.append(
            "lipschitz has a gradient penalty but the critic has batch normalisation, which ties the images of a batch "
            "together where the penalty judges each by itself: use another normalisation, or none"
        )
    if config.loss == "wasserstein" and config.lipschitz == "none":
        found.append("loss is wasserstein but lipschitz is none: nothing bounds the critic, whose loss has no minimum")
    if config.saturation and system.shape[0] == 1:
        found.append("saturation changes nothing: the images are gray")
    return found


def _has_batch_norm(system: System, config: Config) -> bool:
    # Spectral normalisation of the critic adds no layer, and its power iterations take seconds.
    plain = overlay(config, {"lipschitz": "penalty"})
    with torch.device("meta"):  # shapes alone; and whatever the number of classes, the layers are the same
        critic = system.gan(plain, 2).networks()["d"]
    return any(isinstance(part, _BatchNorm) for part in critic.modules())
