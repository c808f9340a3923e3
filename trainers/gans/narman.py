"""MNIST GANs of `narman-2019`: a DCGAN, and a conditional GAN with label planes at the discriminator."""

from __future__ import annotations

from torch import Tensor, nn

from trainers.config import Config
from trainers.gan import AdversarialGAN, System
from trainers.layers import append_label_planes, append_one_hot, downsample, init_normal, scaled, upsample

SHAPE = (1, 28, 28)
#: 30 epochs of 60,000 images, the length of the report's runs.
REPORTED_KIMG = 1800.0


class DCGANGenerator(nn.Module):
    """z [B, latent] -> images [B, 1, 28, 28] by four transposed convolutions."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        a, b, c = (scaled(filters, config.width) for filters in (128, 64, 32))
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(config.latent, a, 7), nn.BatchNorm2d(a), nn.ReLU(),
            upsample(a, b), nn.BatchNorm2d(b), nn.ReLU(),
            upsample(b, c, stride=1), nn.BatchNorm2d(c), nn.ReLU(),
            upsample(c, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.layers(z[:, :, None, None])
        return images


class DCGANDiscriminator(nn.Module):
    """Images [B, 1, 28, 28] -> logits [B]; dropout acts on the features that feed the output layer."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        a, b, c = (scaled(filters, config.width) for filters in (32, 64, 128))
        self.layers = nn.Sequential(
            downsample(1, a), nn.LeakyReLU(config.slope),
            downsample(a, b), nn.BatchNorm2d(b), nn.LeakyReLU(config.slope),
            downsample(b, c, stride=1), nn.BatchNorm2d(c), nn.LeakyReLU(config.slope),
            nn.Dropout(config.dropout), nn.Conv2d(c, 1, 7), nn.Flatten(0),
        )  # fmt: skip

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


class CGANGenerator(nn.Module):
    """z [B, latent] with the one-hot label -> images [B, 1, 28, 28] by three transposed convolutions."""

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__()
        self.classes = classes
        a, b = (scaled(filters, config.width) for filters in (64, 32))
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(config.latent + classes, a, 7), nn.BatchNorm2d(a), nn.LeakyReLU(config.slope),
            upsample(a, b), nn.BatchNorm2d(b), nn.LeakyReLU(config.slope),
            upsample(b, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.layers(append_one_hot(z, labels, self.classes)[:, :, None, None])
        return images


class CGANDiscriminator(nn.Module):
    """Images with one plane per class, [B, 1 + classes, 28, 28] -> logits [B]."""

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__()
        self.classes = classes
        a, b = (scaled(filters, config.width) for filters in (32, 64))
        self.layers = nn.Sequential(
            downsample(1 + classes, a), nn.LeakyReLU(config.slope),
            downsample(a, b), nn.BatchNorm2d(b), nn.LeakyReLU(config.slope),
            nn.Dropout(config.dropout), nn.Conv2d(b, 1, 7), nn.Flatten(0),
        )  # fmt: skip

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = self.layers(append_label_planes(images, labels, self.classes))
        return logits


class NarmanDCGAN(AdversarialGAN):
    def networks(self) -> dict[str, nn.Module]:
        g, d = DCGANGenerator(self.config), DCGANDiscriminator(self.config)
        init_normal(g, self.config.init_std)
        init_normal(d, self.config.init_std)
        return {"g": g, "d": d}


class NarmanCGAN(AdversarialGAN):
    def networks(self) -> dict[str, nn.Module]:
        g, d = CGANGenerator(self.config, self.classes), CGANDiscriminator(self.config, self.classes)
        init_normal(g, self.config.init_std)
        init_normal(d, self.config.init_std)
        return {"g": g, "d": d}


DCGAN = System(
    gan=NarmanDCGAN,
    defaults=Config(kimg=REPORTED_KIMG, batch=100, dropout=0.3),
    shape=SHAPE,
    conditional=False,
    summary="DCGAN on MNIST with dropout before the discriminator's output (narman-2019)",
)
CGAN = System(
    gan=NarmanCGAN,
    defaults=Config(kimg=REPORTED_KIMG, batch=100, schedule="exponential"),
    shape=SHAPE,
    conditional=True,
    summary="conditional GAN on MNIST, label planes at the discriminator (narman-2019)",
)
