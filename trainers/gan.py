"""What a GAN must define: its networks, its phases (which networks learn, how often) and its losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainers import losses, regularizers
from trainers.config import Config


@dataclass(frozen=True)
class Phase:
    """One kind of update: `nets` minimise the GAN's `loss`, `repeat` times per iteration, each time on fresh noise."""

    name: str
    nets: tuple[str, ...]
    repeat: str | int = 1
    """A number, or the name of the configuration field that holds it."""
    fresh: bool = True
    """True: each update gets new real images. False: it gets those of the update before it."""


@dataclass(frozen=True)
class Batch:
    """The inputs of one update. B is the batch size."""

    real: Tensor
    """Float [B, C, H, W] in [-1, 1]."""
    labels: Tensor
    """Classes of the real images: int64 [B], or float [B, classes] if images were mixed."""
    z: Tensor
    """Noise, float [B, latent], from the distribution `latent_law`."""
    fake_labels: Tensor
    """Classes to generate, int64 [B], drawn uniformly."""


class GAN(ABC):
    """The networks and losses of one system, written for one model on one device.

    A generator is a module `g(z, labels) -> images` in [-1, 1], a discriminator `d(images, labels) -> logits [B]`.
    Unconditional networks ignore `labels`.
    """

    phases: tuple[Phase, ...]

    def __init__(self, config: Config, classes: int) -> None:
        self.config = config
        self.classes = classes

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """Freshly initialised networks by name. The generator that is scored is called `g`."""

    @abstractmethod
    def loss(self, phase: str, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """Scalars of one phase: the first is minimised, the others are only recorded."""

    def after_step(self, phase: str, nets: dict[str, nn.Module]) -> None:
        """Applies constraints to the weights; called after each optimizer step of `phase`."""
        return None


class AdversarialGAN(GAN):
    """A generator `g` against a discriminator `d` under the loss that the configuration names."""

    phases: tuple[Phase, ...] = (Phase("d", nets=("d",), repeat="n_critic"), Phase("g", nets=("g",), fresh=False))

    def loss(self, phase: str, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        if phase == "g":
            fake = nets["g"](batch.z, batch.fake_labels)
            return {"loss_g": losses.g_loss(nets["d"](fake, batch.fake_labels), self.config)}
        # A gradient penalty needs real and generated images of the same labels.
        fake_labels = batch.labels if self.config.controls("penalty") else batch.fake_labels
        with torch.no_grad():
            fake = nets["g"](batch.z, fake_labels)
        real_logits, fake_logits = nets["d"](batch.real, batch.labels), nets["d"](fake, fake_labels)
        loss = losses.d_loss(real_logits, fake_logits, self.config)
        record = losses.judgement(real_logits, fake_logits)
        penalty, penalised = regularizers.weighted_penalty(self.config, nets["d"], batch.real, fake, fake_labels)
        return {"loss_d": loss + penalty, **record, **penalised}

    def after_step(self, phase: str, nets: dict[str, nn.Module]) -> None:
        if phase == "d" and self.config.controls("clip"):
            regularizers.clip(nets["d"], self.config.clip_value, self.config.clip_scope)


@dataclass(frozen=True)
class System:
    """A named GAN with its defaults."""

    gan: type[GAN]
    defaults: Config
    shape: tuple[int, int, int]
    """C, H, W of its images."""
    conditional: bool
    """Whether the generator gets labels, so that samples have classes."""
    summary: str
    """One line for `list systems`."""
