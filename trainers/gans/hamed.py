"""CIFAR-10 GANs of `hamed-2019`: a DCGAN, and a conditional self-attention Wasserstein GAN (CSAWGAN).

The report shows its networks without sizes. Filters, kernels and optimizers are those of Radford et al. (2015) and, for
the Wasserstein GAN, of Gulrajani et al. (2017).
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from trainers.config import Config
from trainers.gan import AdversarialGAN, System
from trainers.layers import SelfAttention, Unconditional, append_one_hot, as_one_hot, dropouts, init_normal, scaled
from trainers.regularizers import spectral_layers

SHAPE = (3, 32, 32)
#: The training split of CIFAR-10 in kimg: one epoch.
EPOCH = 50.0


class CSAWGANConfig(Config):
    """Hyper-parameters of the CSAWGAN."""

    g_spectral: bool = Field(True, description="spectral normalisation of the generator's convolutions")
    attention_residual: bool = Field(True, description="attention as gamma * o + x, or as o alone, as in the report")
    attention_reduction: int = Field(8, ge=1, le=64, description="factor from channels to attention's key channels")
    embedding: int = Field(64, ge=1, le=1024, description="width of the label's embedding in the critic")
    hidden: int = Field(0, ge=0, le=4096, description="width of a dense layer before the critic's output; 0 is none")


def _double(inputs: int, outputs: int, bias: bool) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 4, 2, padding=1, bias=bias)


def _halve(inputs: int, outputs: int, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 4, 2, padding=1, bias=bias)


class DCGANGenerator(nn.Module):
    """z [B, latent] -> images [B, 3, 32, 32] by four 4x4 transposed convolutions without bias."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        a, b, c = (scaled(filters, config.width) for filters in (512, 256, 128))
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(config.latent, a, 4, bias=False), nn.BatchNorm2d(a), nn.ReLU(),
            _double(a, b, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
            _double(b, c, bias=False), nn.BatchNorm2d(c), nn.ReLU(),
            _double(c, 3, bias=False), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.layers(z[:, :, None, None])
        return images


class DCGANDiscriminator(Unconditional):
    """Images [B, 3, 32, 32] -> logits [B] by four 4x4 convolutions without bias."""

    def __init__(self, config: Config) -> None:
        a, b, c = (scaled(filters, config.width) for filters in (64, 128, 256))
        of_features, of_logit = dropouts(config)
        super().__init__(
            _halve(3, a, bias=False), nn.LeakyReLU(config.slope),
            _halve(a, b, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(config.slope),
            _halve(b, c, bias=False), nn.BatchNorm2d(c), nn.LeakyReLU(config.slope),
            of_features, nn.Conv2d(c, 1, 4, bias=False), nn.Flatten(0), of_logit,
        )  # fmt: skip


class CSAWGANGenerator(nn.Module):
    """z [B, latent] and the one-hot label -> images [B, 3, 32, 32], with attention at 16x16, after the third block."""

    def __init__(self, config: CSAWGANConfig, classes: int) -> None:
        super().__init__()
        self.classes = classes
        a, b, c = (scaled(filters, config.width) for filters in (512, 256, 128))
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(config.latent + classes, a, 4), nn.BatchNorm2d(a), nn.ReLU(),
            _double(a, b, bias=True), nn.BatchNorm2d(b), nn.ReLU(),
            _double(b, c, bias=True), nn.BatchNorm2d(c), nn.ReLU(),
            SelfAttention(c, config.attention_reduction, config.attention_residual),
            _double(c, 3, bias=True), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.layers(append_one_hot(z, labels, self.classes)[:, :, None, None])
        return images


class CSAWGANCritic(nn.Module):
    """Images [B, 3, 32, 32] and labels -> scores [B].

    Attention is at 8x8; the embedded label is joined to the flat features. There is no batch norm, since a gradient
    penalty judges each image by itself (Gulrajani et al., 2017, section 4). Without a `hidden` layer the score is
    a(image) + b(label): b cancels between real and generated images of the same labels, and the generator never learns
    what a label means.
    """

    def __init__(self, config: CSAWGANConfig, classes: int) -> None:
        super().__init__()
        self.classes = classes
        a, b, c, d = (scaled(filters, config.width) for filters in (64, 128, 256, 512))
        self.features = nn.Sequential(
            _halve(3, a, bias=True), nn.LeakyReLU(config.slope),
            _halve(a, b, bias=True), nn.LeakyReLU(config.slope),
            SelfAttention(b, config.attention_reduction, config.attention_residual),
            _halve(b, c, bias=True), nn.LeakyReLU(config.slope),
            _halve(c, d, bias=True), nn.LeakyReLU(config.slope),
            nn.Flatten(),
        )  # fmt: skip
        self.embedding = nn.Linear(classes, config.embedding)
        width = d * 4 + config.embedding
        hidden = [nn.Linear(width, config.hidden), nn.LeakyReLU(config.slope)] if config.hidden else []
        output = nn.Linear(config.hidden or width, 1)
        of_features, of_logit = dropouts(config)
        self.head = nn.Sequential(*hidden, of_features, output, nn.Flatten(0), of_logit)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        embedded = self.embedding(as_one_hot(labels, self.classes, images.dtype))
        scores: Tensor = self.head(torch.cat([self.features(images), embedded], dim=1))
        return scores


def _initialise(net: nn.Module, std: float, normalised: bool) -> nn.Module:
    """`net` after `init_normal`, its convolutions under spectral normalisation if `normalised`."""
    init_normal(net, std)
    if normalised:
        spectral_layers(net, (nn.Conv2d, nn.ConvTranspose2d))
    return net


class HamedDCGAN(AdversarialGAN):
    """The DCGAN of the report; spectral normalisation, if configured, is on the convolutions of D."""

    def networks(self) -> dict[str, nn.Module]:
        config = self.config
        return {
            "g": _initialise(DCGANGenerator(config), config.init_std, normalised=False),
            "d": _initialise(DCGANDiscriminator(config), config.init_std, config.controls("spectral")),
        }


class HamedCSAWGAN(AdversarialGAN):
    """The CSAWGAN of the report.

    Spectral normalisation is on every convolution, attention included, and on no dense layer.
    """

    def networks(self) -> dict[str, nn.Module]:
        config = self.config
        assert isinstance(config, CSAWGANConfig)
        return {
            "g": _initialise(CSAWGANGenerator(config, self.classes), config.init_std, config.g_spectral),
            "d": _initialise(CSAWGANCritic(config, self.classes), config.init_std, config.controls("spectral")),
        }


SYSTEMS = {
    "hamed-dcgan": System(
        gan=HamedDCGAN,
        defaults=Config(kimg=1000 * EPOCH, batch=64, g_lr=2e-4, d_lr=2e-4, beta1=0.5),
        shape=SHAPE,
        conditional=False,
        summary="DCGAN on CIFAR-10 for 1,000 epochs (hamed-2019)",
    ),
    "hamed-csawgan": System(
        gan=HamedCSAWGAN,
        defaults=CSAWGANConfig(
            kimg=300 * EPOCH,
            batch=64,
            g_lr=1e-4,
            d_lr=1e-4,
            beta1=0.0,
            beta2=0.9,
            n_critic=5,
            loss="wasserstein",
            lipschitz="penalty+spectral",
            penalty_weight=10.0,
        ),
        shape=SHAPE,
        conditional=True,
        summary="conditional attention GAN, spectral normalisation and gradient penalty, on CIFAR-10 (hamed-2019)",
    ),
}
