"""CIFAR-10 GANs of `monir-2019`."""

from __future__ import annotations

from torch import Tensor, nn

from trainers.config import Config
from trainers.gan import AdversarialGAN, System
from trainers.layers import downsample, init_normal, scaled, upsample


class Generator(nn.Module):
    """z [B, latent] -> images [B, 3, 32, 32]: a dense layer to 512x2x2, then four 5x5 transposed convolutions."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        a, b, c, d = (scaled(filters, config.width) for filters in (512, 256, 128, 64))
        self.layers = nn.Sequential(
            nn.Linear(config.latent, a * 4), nn.Unflatten(1, (a, 2, 2)), nn.BatchNorm2d(a), nn.LeakyReLU(config.slope),
            upsample(a, b), nn.BatchNorm2d(b), nn.LeakyReLU(config.slope),
            upsample(b, c), nn.BatchNorm2d(c), nn.LeakyReLU(config.slope),
            upsample(c, d), nn.BatchNorm2d(d), nn.LeakyReLU(config.slope),
            upsample(d, 3), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.layers(z)
        return images


class Discriminator(nn.Module):
    """Images [B, 3, 32, 32] -> logits [B]: four 5x5 convolutions, batch norm on all but the first, dropout, dense."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        a, b, c, d = (scaled(filters, config.width) for filters in (64, 128, 256, 512))
        self.layers = nn.Sequential(
            downsample(3, a), nn.LeakyReLU(config.slope),
            downsample(a, b), nn.BatchNorm2d(b), nn.LeakyReLU(config.slope),
            downsample(b, c), nn.BatchNorm2d(c), nn.LeakyReLU(config.slope),
            downsample(c, d), nn.BatchNorm2d(d), nn.LeakyReLU(config.slope),
            nn.Flatten(), nn.Dropout(config.dropout), nn.Linear(d * 4, 1), nn.Flatten(0),
        )  # fmt: skip

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


class MonirDCGAN(AdversarialGAN):
    def networks(self) -> dict[str, nn.Module]:
        g, d = Generator(self.config), Discriminator(self.config)
        init_normal(g, self.config.init_std)
        init_normal(d, self.config.init_std)
        return {"g": g, "d": d}


DCGAN = System(
    gan=MonirDCGAN,
    defaults=Config(
        kimg=10880.0,  # 170,000 iterations of 64, the length of the report's run
        batch=64,
        sampling="random",
        g_lr=1e-4,
        d_lr=4e-4,
        smoothing="random",
        smoothing_strength=0.05,
        dropout=0.3,
    ),
    shape=(3, 32, 32),
    conditional=False,
    summary="DCGAN on CIFAR-10 with TTUR and random one-sided label smoothing (monir-2019)",
)
