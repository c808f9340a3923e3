"""MNIST GANs of `narman-2019`: a DCGAN, and a conditional GAN whose discriminator gets label planes."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, NamedTuple

from pydantic import Field
from torch import Tensor, nn

from trainers.config import Config, overlay
from trainers.gan import AdversarialGAN, System
from trainers.layers import (
    Activation,
    activation,
    append_label_planes,
    append_one_hot,
    downsample,
    dropouts,
    init_normal,
    scaled,
    upsample,
)
from trainers.regularizers import spectral

SHAPE = (1, 28, 28)
#: 30 epochs of 60,000 images, the length of the report's runs.
REPORTED_KIMG = 1800.0


class Plan(NamedTuple):
    """The sizes of both networks, from the images to the innermost layer; the generator uses them in reverse order."""

    filters: tuple[int, ...]
    strides: tuple[int, ...]
    """Strides of the layers between hidden layers; the layer at the images has stride 2."""
    end: int
    """Height and width of the innermost features, and kernel size of the layer there."""


#: Plans by `depth`.
PLANS = {3: Plan((32, 64), (2,), end=7), 4: Plan((32, 64, 128), (2, 1), end=7)}
#: The DCGAN of Radford et al. (2015) on 64x64 images.
PLAN_64 = Plan((64, 128, 256, 512), (2, 2, 2), end=4)


class NarmanConfig(Config):
    """Hyper-parameters of the structure of both networks."""

    depth: Literal[3, 4] = Field(
        3,
        description="layers of each network; 4 adds one of stride 1 with 128 filters; narman-dcgan-64 has five",
    )
    kernel: Literal[4, 5] = Field(5, description="kernel size of the layers of stride 2")
    g_activation: Activation = Field("leaky", description="activation of the generator's hidden layers")


class Generator(nn.Module):
    """z [B, latent], and the one-hot label if `classes` > 0 -> images [B, 1, H, W]."""

    def __init__(self, config: NarmanConfig, plan: Plan, classes: int) -> None:
        super().__init__()
        self.classes = classes
        filters = [scaled(count, config.width) for count in reversed(plan.filters)]
        layers: list[nn.Module] = [nn.ConvTranspose2d(config.latent + classes, filters[0], plan.end)]
        for (inputs, outputs), stride in zip(pairwise(filters), plan.strides, strict=True):
            layers += [nn.BatchNorm2d(inputs), activation(config.g_activation, config.slope)]
            layers += [upsample(inputs, outputs, config.kernel if stride == 2 else 5, stride)]
        layers += [nn.BatchNorm2d(filters[-1]), activation(config.g_activation, config.slope)]
        self.layers = nn.Sequential(*layers, upsample(filters[-1], 1, config.kernel), nn.Tanh())

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        noise = append_one_hot(z, labels, self.classes) if self.classes else z
        images: Tensor = self.layers(noise[:, :, None, None])
        return images


class Discriminator(nn.Module):
    """Images [B, 1, H, W], and one plane per class if `classes` > 0 -> logits [B]."""

    def __init__(self, config: NarmanConfig, plan: Plan, classes: int) -> None:
        super().__init__()
        self.classes = classes
        normalised = config.controls("spectral")
        filters = [scaled(count, config.width) for count in plan.filters]
        layers: list[nn.Module] = [
            spectral(downsample(1 + classes, filters[0], config.kernel), normalised),
            nn.LeakyReLU(config.slope),
        ]
        for (inputs, outputs), stride in zip(pairwise(filters), plan.strides, strict=True):
            layers += [
                spectral(downsample(inputs, outputs, config.kernel if stride == 2 else 5, stride), normalised),
                nn.BatchNorm2d(outputs),
                nn.LeakyReLU(config.slope),
            ]
        logit = spectral(nn.Conv2d(filters[-1], 1, plan.end), normalised)
        of_features, of_logit = dropouts(config)
        self.layers = nn.Sequential(*layers, of_features, logit, nn.Flatten(0), of_logit)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        seen = append_label_planes(images, labels, self.classes) if self.classes else images
        logits: Tensor = self.layers(seen)
        return logits


class NarmanGAN(AdversarialGAN):
    """The unconditional GAN on 28x28 images."""

    conditional = False

    def networks(self) -> dict[str, nn.Module]:
        assert isinstance(self.config, NarmanConfig)
        classes, plan = self.classes if self.conditional else 0, self.plan(self.config)
        nets = {"g": Generator(self.config, plan, classes), "d": Discriminator(self.config, plan, classes)}
        for net in nets.values():
            init_normal(net, self.config.init_std)
        return nets

    def plan(self, config: NarmanConfig) -> Plan:
        return PLANS[config.depth]


class NarmanCGAN(NarmanGAN):
    """The conditional GAN on 28x28 images."""

    conditional = True


class NarmanDCGAN64(NarmanGAN):
    """The unconditional GAN on 64x64 images, whose `depth` is fixed."""

    def plan(self, config: NarmanConfig) -> Plan:
        return PLAN_64


_DCGAN = NarmanConfig(kimg=REPORTED_KIMG, batch=100, dropout=0.3, depth=4, g_activation="relu")
_CGAN = NarmanConfig(kimg=REPORTED_KIMG, batch=100, schedule="exponential")
_OSLS = {"smoothing": "fixed", "smoothing_strength": 0.1}


def _dcgan(summary: str, **changes: object) -> System:
    return System(NarmanGAN, overlay(_DCGAN, changes), SHAPE, conditional=False, summary=f"{summary} (narman-2019)")


def _cgan(summary: str, **changes: object) -> System:
    return System(NarmanCGAN, overlay(_CGAN, changes), SHAPE, conditional=True, summary=f"{summary} (narman-2019)")


#: The report gives no settings for its two failing runs. Ours were chosen to fail in the same way.
SYSTEMS = {
    "narman-dcgan": _dcgan("DCGAN on MNIST with dropout before the discriminator's output"),
    "narman-dcgan-64": System(
        NarmanDCGAN64,
        overlay(_DCGAN, {"kernel": 4}),
        (1, 64, 64),
        conditional=False,
        summary="DCGAN on MNIST resized to 64x64, four hidden layers (narman-2019)",
    ),
    "narman-dcgan-collapse": _dcgan("DCGAN that collapses to few modes: G learns too fast", g_lr=4e-3, beta1=0.9),
    "narman-dcgan-overconfident": _dcgan("DCGAN with an over-confident D: fast D, no dropout", d_lr=2e-3, dropout=0.0),
    "narman-cgan": _cgan("conditional GAN on MNIST, label planes at the discriminator"),
    "narman-cgan-osls": _cgan("narman-cgan with one-sided label smoothing at 0.9", **_OSLS),
    "narman-cgan-osls-extra": _cgan("smoothed narman-cgan with more hidden layers", **_OSLS, depth=4),
    "narman-cgan-x2-osls": _cgan("smoothed narman-cgan with twice the filters", **_OSLS, width=2.0),
    "narman-cgan-osls-k4": _cgan("smoothed narman-cgan with 4x4 kernels", **_OSLS, kernel=4),
    "narman-cgan-x2-osls-dropout": _cgan("narman-cgan-x2-osls with dropout", **_OSLS, width=2.0, dropout=0.3),
    "narman-cgan-x05": _cgan("narman-cgan with half the filters", width=0.5),
    "narman-cgan-x05-15ep": _cgan("narman-cgan-x05 for 15 epochs", width=0.5, kimg=REPORTED_KIMG / 2),
    "narman-cgan-no9": _cgan("narman-cgan that never generates a 9 in training", drawn_classes=9),
}
