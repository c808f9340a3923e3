"""Warnings about configurations that are allowed but rarely intended."""

from __future__ import annotations

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from trainers.config import Config, overlay
from trainers.gan import System


def warnings_of(system: System, config: Config) -> list[str]:
    """One sentence for each doubt about training `system` with `config`.

    Draws no random number and allocates no weights.
    """
    found = []
    if config.controls("penalty") and _has_batch_norm(system, config):
        found.append(
            "lipschitz has a gradient penalty, which judges each image by itself, but the critic's batch normalisation "
            "mixes the images of a batch: use another normalisation, or none"
        )
    if config.loss == "wasserstein" and config.lipschitz == "none":
        found.append("loss is wasserstein but lipschitz is none: nothing bounds the critic, whose loss has no minimum")
    if config.saturation and system.shape[0] == 1:
        found.append("saturation changes nothing: the images are gray")
    return found


def _has_batch_norm(system: System, config: Config) -> bool:
    # Spectral normalisation of the critic adds no layer, and its power iterations take seconds.
    plain = overlay(config, {"lipschitz": "penalty"})
    with torch.device("meta"):  # no memory is used; the kinds of layers are the same for any number of classes
        critic = system.gan(plain, 2).networks()["d"]
    return any(isinstance(part, _BatchNorm) for part in critic.modules())
