"""CIFAR-10 GANs of `monir-2019`: a DCGAN, and a conditional self-attention GAN with Wasserstein loss."""

from __future__ import annotations

from itertools import pairwise

from pydantic import Field
from torch import Tensor, nn

from trainers.config import Config
from trainers.gan import AdversarialGAN, System
from trainers.layers import (
    SelfAttention,
    Unconditional,
    append_one_hot,
    downsample,
    dropouts,
    init_normal,
    scaled,
    upsample,
)
from trainers.regularizers import spectral

SHAPE = (3, 32, 32)
_FILTERS = (512, 256, 128, 64)


class MonirConfig(Config):
    """The difference between the two DCGANs of the report."""

    extra_layer: bool = Field(False, description="one more layer of stride 1 at 16x16 in both networks")


class SaganConfig(Config):
    """Settings of the attention GAN that the report leaves open."""

    attention_reduction: int = Field(8, ge=1, le=64, description="factor by which attention narrows its channels")
    d_conv_bias: bool = Field(True, description="whether D's convolutions have biases; the report's counts allow both")
    hidden: int = Field(512, ge=1, le=4096, description="width of D's dense layer on features and label")


class Generator(Unconditional):
    """z [B, latent] -> images [B, 3, 32, 32]: a dense layer to 512x2x2, then four 5x5 transposed convolutions."""

    def __init__(self, config: MonirConfig) -> None:
        a, b, c, d = (scaled(filters, config.width) for filters in _FILTERS)
        extra = [upsample(d, d, stride=1), nn.BatchNorm2d(d), nn.LeakyReLU(config.slope)] if config.extra_layer else []
        super().__init__(
            nn.Linear(config.latent, a * 4), nn.Unflatten(1, (a, 2, 2)), nn.BatchNorm2d(a), nn.LeakyReLU(config.slope),
            upsample(a, b), nn.BatchNorm2d(b), nn.LeakyReLU(config.slope),
            upsample(b, c), nn.BatchNorm2d(c), nn.LeakyReLU(config.slope),
            upsample(c, d), nn.BatchNorm2d(d), nn.LeakyReLU(config.slope),
            *extra, upsample(d, 3), nn.Tanh(),
        )  # fmt: skip


class Discriminator(Unconditional):
    """Images [B, 3, 32, 32] -> logits [B]: four 5x5 convolutions, all but the first with batch norm, dropout, dense."""

    def __init__(self, config: MonirConfig) -> None:
        a, b, c, d = (scaled(filters, config.width) for filters in reversed(_FILTERS))
        on = config.controls("spectral")
        extra = (
            [spectral(downsample(a, a, stride=1), on), nn.BatchNorm2d(a), nn.LeakyReLU(config.slope)]
            if config.extra_layer
            else []
        )
        of_features, of_logit = dropouts(config)
        super().__init__(
            spectral(downsample(3, a), on), nn.LeakyReLU(config.slope), *extra,
            spectral(downsample(a, b), on), nn.BatchNorm2d(b), nn.LeakyReLU(config.slope),
            spectral(downsample(b, c), on), nn.BatchNorm2d(c), nn.LeakyReLU(config.slope),
            spectral(downsample(c, d), on), nn.BatchNorm2d(d), nn.LeakyReLU(config.slope),
            nn.Flatten(), of_features, spectral(nn.Linear(d * 4, 1), on), nn.Flatten(0), of_logit,
        )  # fmt: skip


class SaganGenerator(nn.Module):
    """z [B, latent] and the one-hot label -> images [B, 3, 32, 32], with attention at 16x16.

    Nearest upsampling and 5x5 convolutions follow the report's table; its prose speaks of transposed convolutions.
    """

    def __init__(self, config: SaganConfig, classes: int) -> None:
        super().__init__()
        self.classes = classes
        filters = [scaled(count, config.width) for count in _FILTERS]
        layers: list[nn.Module] = [
            nn.Linear(config.latent + classes, filters[0] * 4),
            nn.Unflatten(1, (filters[0], 2, 2)),
            nn.BatchNorm2d(filters[0]),
            nn.LeakyReLU(config.slope),
        ]
        for inputs, outputs in pairwise(filters):
            layers += [nn.Upsample(scale_factor=2), spectral(downsample(inputs, outputs, stride=1))]
            layers += [nn.BatchNorm2d(outputs), nn.LeakyReLU(config.slope)]
        layers += [SelfAttention(filters[-1], config.attention_reduction), nn.Upsample(scale_factor=2)]
        self.layers = nn.Sequential(*layers, spectral(downsample(filters[-1], 3, stride=1)), nn.Tanh())

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.layers(append_one_hot(z, labels, self.classes))
        return images


class SaganCritic(nn.Module):
    """Images [B, 3, 32, 32] and labels -> scores [B].

    Attention follows the first convolution; the one-hot label is joined to the flat features.
    """

    def __init__(self, config: SaganConfig, classes: int) -> None:
        super().__init__()
        self.classes = classes
        filters = [scaled(count, config.width) for count in reversed(_FILTERS)]
        on, bias = config.controls("spectral"), config.d_conv_bias

        def convolution(inputs: int, outputs: int) -> nn.Module:
            return spectral(nn.Conv2d(inputs, outputs, 5, 2, padding=2, bias=bias), on)

        layers: list[nn.Module] = [convolution(3, filters[0]), nn.LeakyReLU(config.slope)]
        layers.append(SelfAttention(filters[0], config.attention_reduction))
        for inputs, outputs in pairwise(filters):
            layers += [convolution(inputs, outputs), nn.BatchNorm2d(outputs), nn.LeakyReLU(config.slope)]
        of_features, of_logit = dropouts(config)
        self.features = nn.Sequential(*layers, nn.Flatten(), of_features)
        self.head = nn.Sequential(
            nn.Linear(filters[-1] * 4 + classes, config.hidden),
            nn.LeakyReLU(config.slope),
            nn.Linear(config.hidden, 1),
            nn.Flatten(0),
            of_logit,
        )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        scores: Tensor = self.head(append_one_hot(self.features(images), labels, self.classes))
        return scores


class MonirDCGAN(AdversarialGAN):
    """The DCGAN of the report."""

    def networks(self) -> dict[str, nn.Module]:
        assert isinstance(self.config, MonirConfig)
        g, d = Generator(self.config), Discriminator(self.config)
        init_normal(g, self.config.init_std)
        init_normal(d, self.config.init_std)
        return {"g": g, "d": d}


class MonirSAGAN(AdversarialGAN):
    """The conditional attention GAN of the report."""

    def networks(self) -> dict[str, nn.Module]:
        assert isinstance(self.config, SaganConfig)
        g, d = SaganGenerator(self.config, self.classes), SaganCritic(self.config, self.classes)
        init_normal(g, self.config.init_std)
        init_normal(d, self.config.init_std)
        return {"g": g, "d": d}


def _dcgan(summary: str, **changes: object) -> System:
    settings = {
        "kimg": 10880.0,  # the report's run: 170,000 iterations of 64 images
        "batch": 64,
        "sampling": "random",
        "g_lr": 1e-4,
        "d_lr": 4e-4,
        "smoothing": "random",
        "smoothing_strength": 0.05,
        "dropout": 0.3,
    }
    defaults = MonirConfig.model_validate({**settings, **changes})
    return System(MonirDCGAN, defaults, SHAPE, conditional=False, summary=f"{summary} (monir-2019)")


SYSTEMS = {
    "monir-dcgan": _dcgan("DCGAN on CIFAR-10 with TTUR and random one-sided label smoothing"),
    "monir-dcgan-collapse": _dcgan(
        "DCGAN that collapses to few modes: equal learning rates and an extra layer",
        g_lr=2e-4,
        d_lr=2e-4,
        smoothing="fixed",
        extra_layer=True,
    ),
    "monir-dcgan-epoch": _dcgan("monir-dcgan on images in the order of the data", sampling="sequential"),
    "monir-sagan": System(
        gan=MonirSAGAN,
        defaults=SaganConfig(
            kimg=1920.0,  # 30,000 iterations of 64
            batch=64,
            sampling="random",
            g_lr=1e-4,
            d_lr=4e-4,
            loss="wasserstein",
            lipschitz="clip+spectral",
            n_critic=5,
        ),
        shape=SHAPE,
        conditional=True,
        summary="conditional attention GAN with spectral normalisation and clipped critic (monir-2019)",
    ),
}
