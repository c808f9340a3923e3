"""Self-attention GAN of `das-2019` (Zhang et al., 2018) at 32x32, with the filters of monir-sagan.

Differences from monir-sagan: hinge loss, conditional batch norm in G, a projection discriminator without batch norm,
and spectral normalisation of every layer of both networks.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn

from trainers.config import Config
from trainers.gan import AdversarialGAN, System
from trainers.layers import SelfAttention, as_one_hot, downsample, dropouts, init_normal, scaled
from trainers.regularizers import spectral

_FILTERS = (512, 256, 128, 64)


class SAGANConfig(Config):
    """Hyper-parameters of the self-attention GAN."""

    attention_reduction: int = Field(8, ge=1, le=64, description="factor by which attention narrows its channels")


class ConditionalBatchNorm(nn.Module):
    """Batch norm of [B, C, H, W] with a learned scale and shift for each class (de Vries et al., 2017).

    Scales start from N(1, std^2), shifts at 0. Mixed labels [B, classes] average the scales and shifts of the classes.
    """

    def __init__(self, channels: int, classes: int, std: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Parameter(1 + std * torch.randn(classes, channels))
        self.shift = nn.Parameter(torch.zeros(classes, channels))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        of_class = as_one_hot(labels, len(self.scale), x.dtype)
        scale, shift = of_class @ self.scale, of_class @ self.shift
        scaled_x: Tensor = self.norm(x) * scale[:, :, None, None] + shift[:, :, None, None]
        return scaled_x


class Generator(nn.Module):
    """z [B, latent] and labels -> images [B, 3, 32, 32]: nearest upsampling, 5x5 convolutions, attention at 16x16.

    Labels act through batch norm alone.
    """

    def __init__(self, config: SAGANConfig, classes: int) -> None:
        super().__init__()
        filters = [scaled(count, config.width) for count in _FILTERS]
        self.dense = nn.Sequential(
            nn.Linear(config.latent, filters[0] * 4, bias=False), nn.Unflatten(1, (filters[0], 2, 2))
        )
        self.norms = nn.ModuleList(ConditionalBatchNorm(count, classes, config.init_std) for count in filters)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LeakyReLU(config.slope), nn.Upsample(scale_factor=2), convolution)
            for convolution in (nn.Conv2d(a, b, 5, padding=2, bias=False) for a, b in pairwise(filters))
        )
        self.output = nn.Sequential(
            nn.LeakyReLU(config.slope),
            SelfAttention(filters[-1], config.attention_reduction),
            nn.Upsample(scale_factor=2),
            downsample(filters[-1], 3, stride=1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        x = self.norms[0](self.dense(z), labels)
        for block, norm in zip(self.blocks, self.norms[1:], strict=True):
            x = norm(block(x), labels)
        images: Tensor = self.output(x)
        return images


class Discriminator(nn.Module):
    """Images [B, 3, 32, 32] and labels -> logits [B]: psi(h) + <V y, h> of features h [B, 512], attention at 16x16.

    h are the last features, summed over positions. V y is the embedding of the class, and its inner product with h the
    projection of Miyato and Koyama (2018). Mixed labels [B, classes] average the embeddings.
    """

    def __init__(self, config: SAGANConfig, classes: int) -> None:
        super().__init__()
        self.classes = classes
        filters = [scaled(count, config.width) for count in reversed(_FILTERS)]
        layers: list[nn.Module] = [downsample(3, filters[0]), nn.LeakyReLU(config.slope)]
        layers.append(SelfAttention(filters[0], config.attention_reduction))
        for inputs, outputs in pairwise(filters):
            layers += [downsample(inputs, outputs), nn.LeakyReLU(config.slope)]
        self.trunk = nn.Sequential(*layers)
        self.of_features, self.of_logit = dropouts(config)
        self.embedding = nn.Linear(classes, filters[-1], bias=False)
        self.output = nn.Linear(filters[-1], 1)

    def features(self, images: Tensor) -> Tensor:
        """h, float [B, 512] at width 1."""
        summed: Tensor = self.trunk(images).sum(dim=(2, 3))
        return summed

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        h = self.of_features(self.features(images))
        projection = (self.embedding(as_one_hot(labels, self.classes, h.dtype)) * h).sum(dim=1)
        logits: Tensor = self.of_logit(self.output(h).flatten() + projection)
        return logits


class DasSAGAN(AdversarialGAN):
    """The self-attention GAN; spectral normalisation, if configured, is on every layer of both networks."""

    def networks(self) -> dict[str, nn.Module]:
        config = self.config
        assert isinstance(config, SAGANConfig)
        nets = {"g": Generator(config, self.classes), "d": Discriminator(config, self.classes)}
        for part in [part for net in nets.values() for part in net.modules()]:
            if isinstance(part, nn.Conv2d | nn.Linear):
                init_normal(part, config.init_std)
                # After the initialisation, so that the power iteration starts from the weights that are trained.
                spectral(part, config.controls("spectral"))
        return nets


SYSTEMS = {
    "das-sagan": System(
        gan=DasSAGAN,
        defaults=SAGANConfig(
            kimg=1920.0,  # 30,000 iterations of 64, as monir-sagan
            batch=64,
            g_lr=1e-4,
            d_lr=4e-4,
            beta1=0.0,
            beta2=0.9,
            loss="hinge",
            lipschitz="spectral",
        ),
        shape=(3, 32, 32),
        conditional=True,
        summary="attention GAN, hinge loss, projection, spectral normalisation of G and D, on CIFAR-10 (das-2019)",
    )
}
