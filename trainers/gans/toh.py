"""CIFAR-10 GANs of `toh-2024`: DCGANs, conditional GANs, Wasserstein GANs and self-attention DCGANs.

One generator and one discriminator serve the whole family; each system is a configuration. The report gives only the
kinds and numbers of blocks; filter counts are our choice.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PlainSerializer, model_validator
from torch import Tensor, nn
from torch.nn.functional import interpolate

from trainers.config import Config, overlay
from trainers.gan import AdversarialGAN, System
from trainers.layers import (
    Activation,
    Norm,
    SelfAttention,
    activation,
    append_label_planes,
    append_one_hot,
    downsample,
    dropouts,
    init_normal,
    norm,
    scaled,
    upsample,
)
from trainers.regularizers import spectral

SIZE = 32
CHANNELS = 3

#: Dumped as a list, so that a dumped configuration equals what is read back from its JSON.
Filters = Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], PlainSerializer(list)]


class TohConfig(Config):
    """Structure of both networks. The allowed lengths of the filter lists give each network stages at 16x16 and 8x8.

    The size of the generator's first stage is 32, halved for each stage that doubles it.
    """

    g_filters: Filters = Field(
        (128, 128, 64),
        min_length=3,
        max_length=4,
        description="filters of the generator's dense layer, then of each stage that doubles height and width",
    )
    g_output_doubles: bool = Field(False, description="whether the generator's output layer doubles the size as well")
    upsampling: Literal["nearest", "transposed", "shuffle"] = Field(
        "nearest", description="doubling: nearest neighbours and 3x3, 4x4 transposed, or 3x3 and channels as pixels"
    )
    g_norm: Norm = Field("batch", description="normalisation of every stage of the generator")
    g_activation: Activation = Field("leaky", description="activation of every stage of the generator")
    g_spectral: bool = Field(False, description="spectral normalisation of the generator's doubling convolutions")
    skip: bool = Field(
        False,
        description="whether the features of the generator's first doubling stage are added to those of its last",
    )
    d_stem: int = Field(
        0,
        ge=0,
        le=4096,
        description="filters of a 3x3 convolution at full size at the discriminator's input; 0: none",
    )
    d_filters: Filters = Field(
        (64, 128, 256),
        min_length=2,
        max_length=4,
        description="filters of each convolution of the discriminator that halves height and width",
    )
    d_kernel: Literal[3, 4, 5] = Field(4, description="kernel size of the discriminator's halving convolutions")
    d_norm: Norm = Field(
        "batch", description="normalisation after every convolution of the discriminator but its first"
    )
    d_activation: Activation = Field("leaky", description="activation of every convolution of the discriminator")
    d_spectral_output: bool = Field(
        True, description="whether spectral normalisation of the discriminator includes its output layer"
    )
    attention: Literal["none", "g", "both"] = Field("none", description="networks with self-attention")
    attention_size: Literal[8, 16, 32] = Field(
        16, description="height and width of the stage that attention follows; in the discriminator 32 is its stem"
    )
    attention_reduction: int = Field(8, ge=1, le=64, description="channels per channel of attention's queries and keys")

    @model_validator(mode="after")
    def _attention_has_its_stage(self) -> Self:
        full = self.attention_size == SIZE
        if full and self.attention != "none" and self.g_output_doubles:
            raise ValueError("attention_size is 32 but g_output_doubles leaves G's stages smaller: allowed is 8 or 16")
        if full and self.attention == "both" and not self.d_stem:
            raise ValueError("attention_size is 32 but D has such a stage only with a d_stem: allowed is 8 or 16")
        return self


class Generator(nn.Module):
    """z [B, latent] -> images [B, 3, 32, 32]: a dense layer, doubling stages, an output convolution.

    With `classes` > 0 the one-hot label follows z.
    """

    def __init__(self, config: TohConfig, classes: int) -> None:
        super().__init__()
        self.classes = classes
        filters = [scaled(count, config.width) for count in config.g_filters]
        size = SIZE >> (len(filters) - 1 + config.g_output_doubles)
        dense = nn.Linear(config.latent + classes, filters[0] * size**2)
        stages = [self._stage(config, [dense, nn.Unflatten(1, (filters[0], size, size))], filters[0], size)]
        for inputs, outputs in pairwise(filters):
            size *= 2
            stages.append(self._stage(config, _doubling(config, inputs, outputs, config.g_spectral), outputs, size))
        self.early, self.late = nn.Sequential(*stages[:2]), nn.Sequential(*stages[2:])
        self.skip = nn.Conv2d(filters[1], filters[-1], 1) if config.skip else None
        last = _doubling(config, filters[-1], CHANNELS) if config.g_output_doubles else [_same(filters[-1], CHANNELS)]
        self.output = nn.Sequential(*last, nn.Tanh())

    @staticmethod
    def _stage(config: TohConfig, layers: list[nn.Module], channels: int, size: int) -> nn.Sequential:
        attended = config.attention != "none" and size == config.attention_size
        return nn.Sequential(
            *layers,
            norm(config.g_norm, channels),
            activation(config.g_activation, config.slope),
            *([SelfAttention(channels, config.attention_reduction)] if attended else []),
        )

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        early = self.early(append_one_hot(z, labels, self.classes) if self.classes else z)
        features = self.late(early)
        if self.skip is not None:
            # A 1x1 convolution commutes with the repetition of pixels and costs less before it.
            features = features + interpolate(self.skip(early), size=features.shape[2:])
        images: Tensor = self.output(features)
        return images


class Discriminator(nn.Module):
    """Images [B, 3, 32, 32] -> logits [B]: halving convolutions, dropout, a dense layer.

    With `classes` > 0 one plane per class follows the images.
    """

    def __init__(self, config: TohConfig, classes: int) -> None:
        super().__init__()
        self.classes = classes
        on = config.controls("spectral")
        of_features, of_logit = dropouts(config)
        channels, size, stages = CHANNELS + classes, SIZE, list[nn.Module]()
        if config.d_stem:
            stem = scaled(config.d_stem, config.width)
            stages += [spectral(_same(channels, stem), on), activation(config.d_activation, config.slope)]
            stages += _critic_attention(config, stem, size)
            channels = stem
        for outputs in (scaled(count, config.width) for count in config.d_filters):
            size //= 2
            stages += [
                spectral(downsample(channels, outputs, config.d_kernel), on),
                norm(config.d_norm if stages else "none", outputs),
                activation(config.d_activation, config.slope),
            ]
            stages += _critic_attention(config, outputs, size)
            channels = outputs
        dense = spectral(nn.Linear(channels * size**2, 1), on and config.d_spectral_output)
        self.layers = nn.Sequential(*stages, nn.Flatten(), of_features, dense, nn.Flatten(0), of_logit)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = self.layers(append_label_planes(images, labels, self.classes) if self.classes else images)
        return logits


def _same(inputs: int, outputs: int) -> nn.Conv2d:
    return downsample(inputs, outputs, kernel=3, stride=1)


def _doubling(config: TohConfig, inputs: int, outputs: int, on: bool = False) -> list[nn.Module]:
    """Layers that double height and width, under spectral normalisation if `on`."""
    if config.upsampling == "nearest":
        return [nn.Upsample(scale_factor=2), spectral(_same(inputs, outputs), on)]
    if config.upsampling == "shuffle":  # sub-pixel convolution, Shi et al. (2016)
        return [spectral(_same(inputs, 4 * outputs), on), nn.PixelShuffle(2)]
    return [spectral(upsample(inputs, outputs, kernel=4), on)]


def _critic_attention(config: TohConfig, channels: int, size: int) -> list[SelfAttention]:
    """Self-attention for the critic's stage of this size, or nothing if the configuration has none there.

    It is under spectral normalisation if the critic is.
    """
    if config.attention != "both" or size != config.attention_size:
        return []
    module = SelfAttention(channels, config.attention_reduction)
    for convolution in (module.f, module.g, module.h):
        spectral(convolution, config.controls("spectral"))
    return [module]


class TohGAN(AdversarialGAN):
    """The unconditional GAN of the family."""

    config: TohConfig
    conditional: ClassVar[bool] = False

    def networks(self) -> dict[str, nn.Module]:
        classes = self.classes if self.conditional else 0
        g, d = Generator(self.config, classes), Discriminator(self.config, classes)
        init_normal(g, self.config.init_std)
        init_normal(d, self.config.init_std)
        return {"g": g, "d": d}


class TohCGAN(TohGAN):
    """The conditional GAN: the one-hot label follows z, and planes of the label follow the images."""

    conditional = True


def _system(summary: str, settings: dict[str, Any], gan: type[TohGAN] = TohGAN) -> System:
    shared = TohConfig(kimg=5000.0, batch=128)  # 100 epochs of 50,000 images
    return System(gan, overlay(shared, settings), (CHANNELS, SIZE, SIZE), gan.conditional, f"{summary} (toh-2024)")


_WGAN = {"loss": "wasserstein", "optimizer": "rmsprop", "g_lr": 5e-5, "d_lr": 5e-5, "beta2": 0.99, "n_critic": 5}
_DEEP_NEAREST = {"g_filters": (256, 128, 128, 128), "g_norm": "none"}
_DCGAN_1 = {**_DEEP_NEAREST, "d_stem": 64, "d_filters": (128, 128, 256), "d_kernel": 3, "d_norm": "none"}
_CGAN_1 = {
    "upsampling": "transposed",
    "g_filters": (256, 128, 128, 64),
    "g_norm": "none",
    "d_filters": (64, 128, 256, 512),
    "d_norm": "none",
}
_CGAN_2 = {**_CGAN_1, "g_norm": "batch", "g_spectral": True}
_SADCGAN_1 = {
    "upsampling": "transposed",
    "g_filters": (256, 128, 64, 32),
    "d_filters": (64, 128, 256, 512),
    "attention": "g",
}

#: The systems of the family by id; toh-dcgan-3 has the defaults of TohConfig.
SYSTEMS: dict[str, System] = {
    "toh-dcgan-1": _system("DCGAN, nearest upsampling, no normalisation", {**_DCGAN_1, "dropout": 0.4}),
    "toh-dcgan-2": _system("DCGAN, transposed convolutions", {"upsampling": "transposed", "d_filters": (64, 128)}),
    "toh-dcgan-3": _system("DCGAN, nearest upsampling, batch norm", {}),
    "toh-dcgan-4": _system(
        "DCGAN, PReLU in G, spectral norm and ReLU in D",
        {
            "upsampling": "transposed",
            "g_filters": (256, 128, 64, 32),
            "g_activation": "prelu",
            "d_norm": "none",
            "d_activation": "relu",
            "lipschitz": "spectral",
        },
    ),
    "toh-dcgan-5": _system(
        "DCGAN, output by an upsampling block", {"g_filters": (256, 128, 64), "g_output_doubles": True}
    ),
    "toh-cgan-1": _system("conditional GAN, transposed convolutions", _CGAN_1, TohCGAN),
    "toh-cgan-2": _system("conditional GAN, spectral and batch norm in G", {**_CGAN_2, "d_norm": "batch"}, TohCGAN),
    "toh-cgan-3": _system("conditional GAN, skip connection in G", {**_CGAN_2, "skip": True}, TohCGAN),
    "toh-wgan-1": _system(
        "Wasserstein GAN, weight clipping",
        {**_WGAN, **_DEEP_NEAREST, "d_filters": (64, 128), "d_norm": "none", "lipschitz": "clip", "clip_value": 0.01},
    ),
    "toh-wgan-2": _system(
        "Wasserstein GAN, spectral norm of the critic's convolutions",
        {
            **_WGAN,
            "upsampling": "transposed",
            "g_norm": "none",
            "d_filters": (64, 128, 256, 512),
            "d_norm": "none",
            "lipschitz": "spectral",
            "d_spectral_output": False,
        },
    ),
    "toh-sadcgan-1": _system("DCGAN, self-attention in G", _SADCGAN_1),
    "toh-sadcgan-2": _system("DCGAN, self-attention in G and D", {**_SADCGAN_1, "attention": "both"}),
    "toh-improved-dcgan-3": _system("toh-dcgan-3 with cosine schedule", {"schedule": "cosine"}),
    "toh-improved-cgan-1": _system("toh-cgan-1 with cosine schedule", {**_CGAN_1, "schedule": "cosine"}, TohCGAN),
}
