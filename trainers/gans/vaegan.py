"""VAE-GAN of `das-2019` (Larsen et al., 2015): an autoencoder whose error is measured in a discriminator's features.

Layers are those of the paper for 64x64 images, without one layer of stride 2 in each network: 32x32 images then have
the paper's 8x8 maps between convolutions and dense layers.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus

from trainers import losses, regularizers
from trainers.config import Config
from trainers.gan import GAN, Batch, Phase, System
from trainers.layers import Unconditional, downsample, dropouts, init_normal, scaled

_MAP = 8


class VAEGANConfig(Config):
    """Hyper-parameters of the VAE-GAN."""

    loss: Literal["bce"] = Field("bce", description="adversarial loss: the paper's three logarithmic terms")
    latent_law: Literal["normal"] = Field("normal", description="law of the noise, the prior of the encoder's z")
    enc_lr: float = Field(3e-4, gt=0, le=1, description="learning rate of the encoder")
    gamma: float = Field(1e-2, gt=0, le=1, description="weight of the mean feature error in the generator's loss")


def _halve(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 5, 2, padding=2, bias=False)


def _double(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 5, 2, padding=2, output_padding=1, bias=False)


class Encoder(nn.Module):
    """Images [B, 3, 32, 32] -> mean and log-variance of q(z|x), each [B, latent]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        a, b, c = (scaled(filters, config.width) for filters in (64, 128, 2048))
        self.layers = nn.Sequential(
            _halve(3, a), nn.BatchNorm2d(a), nn.ReLU(),
            _halve(a, b), nn.BatchNorm2d(b), nn.ReLU(),
            nn.Flatten(), nn.Linear(b * _MAP**2, c, bias=False), nn.BatchNorm1d(c), nn.ReLU(),
            nn.Linear(c, 2 * config.latent),
        )  # fmt: skip

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.layers(images).chunk(2, dim=1)
        return mean, log_variance


class Generator(Unconditional):
    """The decoder: z [B, latent] -> images [B, 3, 32, 32]."""

    def __init__(self, config: Config) -> None:
        a, b, c = (scaled(filters, config.width) for filters in (256, 128, 32))
        super().__init__(
            nn.Linear(config.latent, a * _MAP**2, bias=False), nn.Unflatten(1, (a, _MAP, _MAP)),
            nn.BatchNorm2d(a), nn.ReLU(),
            _double(a, b), nn.BatchNorm2d(b), nn.ReLU(),
            _double(b, c), nn.BatchNorm2d(c), nn.ReLU(),
            downsample(c, 3, stride=1), nn.Tanh(),
        )  # fmt: skip


class Discriminator(nn.Module):
    """Images [B, 3, 32, 32] -> logits [B]. `features` is its convolutional part, with output [B, 256, 8, 8]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        a, b, c, d = (scaled(filters, config.width) for filters in (32, 128, 256, 512))
        self.features = nn.Sequential(
            downsample(3, a, stride=1), nn.LeakyReLU(config.slope),
            _halve(a, b), nn.BatchNorm2d(b), nn.LeakyReLU(config.slope),
            _halve(b, c), nn.BatchNorm2d(c), nn.LeakyReLU(config.slope),
        )  # fmt: skip
        of_features, of_logit = dropouts(config)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(c * _MAP**2, d, bias=False), nn.BatchNorm1d(d), nn.LeakyReLU(config.slope),
            of_features, nn.Linear(d, 1), nn.Flatten(0), of_logit,
        )  # fmt: skip

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q || N(0, I)) of Gaussians in nats, [B, n] -> [B]: -1/2 sum(1 + log s^2 - m^2 - s^2), mean m, variance s^2."""
    return -(1 + log_variance - mean.square() - log_variance.exp()).sum(1) / 2


def draw(mean: Tensor, log_variance: Tensor) -> Tensor:
    """One z from each Gaussian by reparametrisation, [B, n]: m + e s with e from N(0, I)."""
    return mean + torch.randn_like(mean) * (log_variance / 2).exp()


class DasVAEGAN(GAN):
    """Each network minimises terms of its own on the same images (algorithm 1 of the paper).

    enc: L_prior + L_llike. g: gamma L_llike - L_GAN. d: -L_GAN. L_llike is the squared error between D's features of an
    image and of its reconstruction. For enc it is summed over the features, as L_prior is summed over z; for g it is
    their mean. D does not learn from L_llike, and the encoder does not learn from L_GAN.
    """

    phases = (
        Phase("d", nets=("d",), repeat="n_critic"),
        Phase("enc", nets=("enc",), fresh=False),
        Phase("g", nets=("g",), fresh=False),
    )

    def networks(self) -> dict[str, nn.Module]:
        config = self.config
        nets = {"enc": Encoder(config), "g": Generator(config), "d": Discriminator(config)}
        for net in nets.values():
            init_normal(net, config.init_std)
        if config.controls("spectral"):
            regularizers.spectral_layers(nets["d"])
        return nets

    def loss(self, phase: str, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        if phase == "enc":
            return self._enc_loss(nets, batch)
        with torch.no_grad():
            z = draw(*nets["enc"](batch.real))
        return self._g_loss(nets, batch, z) if phase == "g" else self._d_loss(nets, batch, z)

    def after_step(self, phase: str, nets: dict[str, nn.Module]) -> None:
        if phase == "d" and self.config.controls("clip"):
            regularizers.clip(nets["d"], self.config.clip_value, self.config.clip_scope)

    def _enc_loss(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        mean, log_variance = nets["enc"](batch.real)
        rebuilt = nets["g"](draw(mean, log_variance), batch.labels)
        prior = divergence(mean, log_variance).mean()
        error = _feature_error(nets["d"], batch.real, _features(nets["d"], rebuilt))
        return {"loss_enc": prior + error.flatten(1).sum(1).mean(), "prior": prior.detach()}

    def _g_loss(self, nets: dict[str, nn.Module], batch: Batch, z: Tensor) -> dict[str, Tensor]:
        assert isinstance(self.config, VAEGANConfig)
        d = cast(Discriminator, nets["d"])
        features = _features(d, nets["g"](z, batch.labels))
        error = _feature_error(d, batch.real, features).mean()
        sampled = d(nets["g"](batch.z, batch.fake_labels), batch.fake_labels)
        adversarial = losses.g_loss(sampled, self.config) + losses.g_loss(d.head(features), self.config)
        return {"loss_g": self.config.gamma * error + adversarial, "feature_error": error.detach()}

    def _d_loss(self, nets: dict[str, nn.Module], batch: Batch, z: Tensor) -> dict[str, Tensor]:
        config, d = self.config, nets["d"]
        with torch.no_grad():
            sampled, rebuilt = nets["g"](batch.z, batch.fake_labels), nets["g"](z, batch.labels)
        real, fake, again = d(batch.real, batch.labels), d(sampled, batch.fake_labels), d(rebuilt, batch.labels)
        # Reconstructions are a second set of generated images with the same target.
        loss = losses.d_loss(real, fake, config) + (softplus(again) - losses.fake_target(config) * again).mean()
        record = {**losses.judgement(real, fake), "d_rebuilt": again.mean()}
        penalty, penalised = regularizers.weighted_penalty(config, d, batch.real, sampled, batch.labels)
        return {"loss_d": loss + penalty, **record, **penalised}


def _features(d: nn.Module, images: Tensor) -> Tensor:
    return cast(Tensor, cast(Discriminator, d).features(images))


def _feature_error(d: nn.Module, real: Tensor, features: Tensor) -> Tensor:
    """Squared difference between D's features of `real` and `features`, those of its reconstructions."""
    with torch.no_grad():
        target = _features(d, real)
    return (features - target).square()


SYSTEMS = {
    "das-vaegan": System(
        gan=DasVAEGAN,
        defaults=VAEGANConfig(
            kimg=2500.0,  # 50 epochs of 50,000 images
            batch=64,
            optimizer="rmsprop",
            g_lr=3e-4,
            d_lr=3e-4,
            latent=128,
            slope=0.0,  # the paper's ReLU
        ),
        shape=(3, 32, 32),
        conditional=False,
        summary="VAE-GAN on CIFAR-10: autoencoder whose error is measured in a discriminator's features (das-2019)",
    )
}
