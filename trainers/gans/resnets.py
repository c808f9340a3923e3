"""The two residual GANs for 32x32 images that later work compares with: SNGAN and WGAN-GP.

SNGAN is the unconditional CIFAR-10 network of Miyato et al. (2018), appendix B.4. WGAN-GP is that of Gulrajani et al.
(2017), section 5.3 and the appendix on CIFAR-10. One code builds both; they differ in their defaults.

Deviations from the authors' code: a generator step uses a batch of 64 instead of 128; real images get no uniform noise
(WGAN-GP); the dense layer of SNGAN's discriminator has a bias, and its run has 100,000 generator steps, not 50,000.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from trainers.config import Config
from trainers.gan import AdversarialGAN, System
from trainers.layers import Norm, Unconditional, dropouts, init_normal, norm, scaled
from trainers.regularizers import spectral_layers

SHAPE = (3, 32, 32)
Resample = Literal["up", "down", "none"]


class ResNetConfig(Config):
    """Hyper-parameters of the residual networks. `slope` acts in both networks; 0 is the published ReLU."""

    g_filters: int = Field(256, ge=1, le=1024, description="filters of each convolution of the generator at width 1")
    d_filters: int = Field(128, ge=1, le=1024, description="filters of each convolution of D at width 1")
    pool: Literal["sum", "mean"] = Field("sum", description="how D pools its last features over positions")
    init: Literal["glorot", "normal"] = Field(
        "glorot", description="initial weights: Glorot's, with gain sqrt(2) before ReLU, or normal with init_std"
    )


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut: [B, inputs, H, W] -> [B, outputs, H', W'], He et al. (2016).

    A normalisation and a (leaky) ReLU precede each convolution, but not the first one of a `first` block, whose input
    is an image. H' is 2H by nearest upsampling before the convolutions, or H/2 by mean pooling after them. The
    shortcut's 1x1 convolution commutes with both and works at the smaller size, which costs less.
    """

    def __init__(
        self, inputs: int, outputs: int, slope: float, resample: Resample, kind: Norm = "none", first: bool = False
    ) -> None:
        super().__init__()
        up, down = nn.Upsample(scale_factor=2), nn.AvgPool2d(2)
        ahead = [] if first else [norm(kind, inputs), nn.LeakyReLU(slope)]
        self.branch = nn.Sequential(
            *ahead, *([up] if resample == "up" else []), nn.Conv2d(inputs, outputs, 3, padding=1),
            norm(kind, outputs), nn.LeakyReLU(slope), nn.Conv2d(outputs, outputs, 3, padding=1),
            *([down] if resample == "down" else []),
        )  # fmt: skip
        shortcut: dict[Resample, list[nn.Module]] = {
            "up": [nn.Conv2d(inputs, outputs, 1), up],
            "down": [down, nn.Conv2d(inputs, outputs, 1)],
            "none": [] if inputs == outputs else [nn.Conv2d(inputs, outputs, 1)],
        }
        self.shortcut = nn.Sequential(*shortcut[resample])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.branch(x) + self.shortcut(x)
        return y


class Generator(Unconditional):
    """z [B, latent] -> images [B, 3, 32, 32]: a dense layer to 4x4, three blocks that double the size, batch norm."""

    def __init__(self, config: ResNetConfig) -> None:
        n, slope = scaled(config.g_filters, config.width), config.slope
        super().__init__(
            nn.Linear(config.latent, n * 16), nn.Unflatten(1, (n, 4, 4)),
            *(Block(n, n, slope, "up", "batch") for _ in range(3)),
            nn.BatchNorm2d(n), nn.LeakyReLU(slope), nn.Conv2d(n, 3, 3, padding=1), nn.Tanh(),
        )  # fmt: skip


class Discriminator(nn.Module):
    """Images [B, 3, 32, 32] -> logits [B]: two blocks that halve the size, two at 8x8, pooling, a dense layer."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        n, slope = scaled(config.d_filters, config.width), config.slope
        self.pool = config.pool
        self.features = nn.Sequential(
            Block(3, n, slope, "down", first=True), Block(n, n, slope, "down"),
            Block(n, n, slope, "none"), Block(n, n, slope, "none"), nn.LeakyReLU(slope),
        )  # fmt: skip
        of_features, of_logit = dropouts(config)
        self.output = nn.Sequential(of_features, nn.Linear(n, 1), nn.Flatten(0), of_logit)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        maps = self.features(images).flatten(2)
        logits: Tensor = self.output(maps.sum(2) if self.pool == "sum" else maps.mean(2))
        return logits


def _init_glorot(net: nn.Module) -> None:
    """Uniform weights of Glorot and Bengio (2010), times sqrt(2) in the branches of blocks; biases are 0."""
    for name, part in net.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(part.weight, gain=math.sqrt(2) if ".branch." in name else 1.0)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class ResNetGAN(AdversarialGAN):
    """The residual GAN; spectral normalisation, if configured, is on every layer of D."""

    def networks(self) -> dict[str, nn.Module]:
        config = self.config
        assert isinstance(config, ResNetConfig)
        nets = {"g": Generator(config), "d": Discriminator(config)}
        for net in nets.values():
            if config.init == "glorot":
                _init_glorot(net)
            else:
                init_normal(net, config.init_std)
        if config.controls("spectral"):
            spectral_layers(nets["d"])
        return nets


def _system(summary: str, **settings: object) -> System:
    shared = {
        "kimg": 6400.0,  # 100,000 generator steps of 64
        "batch": 64,
        "g_lr": 2e-4,
        "d_lr": 2e-4,
        "beta1": 0.0,
        "beta2": 0.9,
        "n_critic": 5,
        "schedule": "linear",
        "latent": 128,
        "slope": 0.0,
    }
    defaults = ResNetConfig.model_validate({**shared, **settings})
    return System(ResNetGAN, defaults, SHAPE, conditional=False, summary=summary)


SYSTEMS = {
    "sngan-32": _system(
        "residual GAN with spectral normalisation and hinge loss (Miyato et al., 2018)",
        loss="hinge",
        lipschitz="spectral",
    ),
    "wgan-gp-32": _system(
        "residual Wasserstein GAN with gradient penalty (Gulrajani et al., 2017)",
        g_filters=128,
        pool="mean",
        loss="wasserstein",
        lipschitz="penalty",
    ),
}
