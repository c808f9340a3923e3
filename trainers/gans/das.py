"""GANs of `das-2019`: perceptrons, a DCGAN, a conditional GAN, an auxiliary classifier GAN and InfoGAN.

The report gives no layer tables. Sizes and settings are those of the papers that it describes, named at each network.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, one_hot, relu

from trainers import losses, regularizers
from trainers.config import Config
from trainers.gan import AdversarialGAN, Batch, Phase, System
from trainers.layers import (
    Unconditional,
    append_one_hot,
    as_one_hot,
    downsample,
    dropouts,
    init_normal,
    scaled,
    uniform,
    upsample,
)

MNIST = (1, 28, 28)
CIFAR = (3, 32, 32)
PIXELS = 28 * 28


def _initialised(nets: dict[str, nn.Module], config: Config) -> dict[str, nn.Module]:
    """`nets` initialised by `init_normal`, the discriminator `d` under spectral normalisation if configured."""
    for net in nets.values():
        init_normal(net, config.init_std)
    if config.controls("spectral"):
        regularizers.spectral_layers(nets["d"])
    return nets


class DasGAN(AdversarialGAN):
    """Perceptrons (Goodfellow et al., 2014). All hidden layers of G but the first have batch norm."""

    def networks(self) -> dict[str, nn.Module]:
        config = self.config
        a, b, c = (scaled(units, config.width) for units in (256, 512, 1024))
        of_features, of_logit = dropouts(config)
        g = Unconditional(
            nn.Linear(config.latent, a), nn.LeakyReLU(config.slope),
            nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.LeakyReLU(config.slope),
            nn.Linear(b, c, bias=False), nn.BatchNorm1d(c), nn.LeakyReLU(config.slope),
            nn.Linear(c, PIXELS), nn.Tanh(), nn.Unflatten(1, MNIST),
        )  # fmt: skip
        d = Unconditional(
            nn.Flatten(), nn.Linear(PIXELS, b), nn.LeakyReLU(config.slope),
            nn.Linear(b, a), nn.LeakyReLU(config.slope),
            of_features, nn.Linear(a, 1), nn.Flatten(0), of_logit,
        )  # fmt: skip
        return _initialised({"g": g, "d": d}, config)


class DasDCGAN(AdversarialGAN):
    """The DCGAN of Radford et al. (2015) on MNIST: four convolutions in each network, ReLU in G, leaky ReLU in D."""

    def networks(self) -> dict[str, nn.Module]:
        config = self.config
        a, b, c = (scaled(filters, config.width) for filters in (128, 64, 32))
        of_features, of_logit = dropouts(config)
        g = Unconditional(
            nn.Unflatten(1, (config.latent, 1, 1)),
            nn.ConvTranspose2d(config.latent, a, 7, bias=False), nn.BatchNorm2d(a), nn.ReLU(),
            nn.ConvTranspose2d(a, b, 5, 2, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
            nn.ConvTranspose2d(b, c, 5, 1, 2, bias=False), nn.BatchNorm2d(c), nn.ReLU(),
            upsample(c, 1), nn.Tanh(),
        )  # fmt: skip
        d = Unconditional(
            downsample(1, c), nn.LeakyReLU(config.slope),
            nn.Conv2d(c, b, 5, 2, 2, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(config.slope),
            nn.Conv2d(b, a, 5, 1, 2, bias=False), nn.BatchNorm2d(a), nn.LeakyReLU(config.slope),
            of_features, nn.Conv2d(a, 1, 7), nn.Flatten(0), of_logit,
        )  # fmt: skip
        return _initialised({"g": g, "d": d}, config)


class CGANConfig(Config):
    """Hyper-parameters of the conditional GAN."""

    max_norm: float = Field(1.9365, gt=0, le=1000, description="bound on the norm of the weights into each unit of D")


class Maxout(nn.Module):
    """[B, inputs] -> [B, units]: each unit is the maximum of `pieces` linear maps (Goodfellow et al., 2013)."""

    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.linear = nn.Linear(inputs, units * pieces)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.linear(x).unflatten(1, (-1, self.pieces)).amax(2))


class CGANGenerator(nn.Module):
    """z [B, latent] and the one-hot label -> images [B, 1, 28, 28] by dense layers."""

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__()
        self.classes = classes
        noise, label, joint = (scaled(units, config.width) for units in (200, 1000, 1200))
        self.noise = nn.Linear(config.latent, noise)
        self.label = nn.Linear(classes, label)
        self.joint = nn.Linear(noise + label, joint)
        self.output = nn.Linear(joint, PIXELS)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        label = as_one_hot(labels, self.classes, z.dtype)
        hidden = torch.cat([relu(self.noise(z)), relu(self.label(label))], dim=1)
        pixels = torch.sigmoid(self.output(relu(self.joint(hidden))))
        return cast(Tensor, 2 * pixels.unflatten(1, MNIST) - 1)


class CGANDiscriminator(nn.Module):
    """Images [B, 1, 28, 28] and their one-hot labels -> logits [B] by maxout layers."""

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__()
        self.classes = classes
        image, label, joint = (scaled(units, config.width) for units in (240, 50, 240))
        self.image = Maxout(PIXELS, image, 5)
        self.label = Maxout(classes, label, 5)
        of_features, of_logit = dropouts(config)
        self.joint = nn.Sequential(
            Maxout(image + label, joint, 4), of_features, nn.Linear(joint, 1), nn.Flatten(0), of_logit
        )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        pixels = (images.flatten(1) + 1) / 2  # in [0, 1], as in the paper
        label = as_one_hot(labels, self.classes, images.dtype)
        hidden = torch.cat([self.image(pixels), self.label(label)], dim=1)
        return cast(Tensor, self.joint(hidden))


class DasCGAN(AdversarialGAN):
    """Perceptrons with labels as input (Mirza and Osindero, 2014).

    The norm of the weights into each unit of D is bounded, as in the paper's code (Goodfellow et al., 2013). Without it
    SGD at the paper's learning rate would diverge, since maxout is unbounded.
    """

    config: CGANConfig

    def networks(self) -> dict[str, nn.Module]:
        g, d = CGANGenerator(self.config, self.classes), CGANDiscriminator(self.config, self.classes)
        return _initialised({"g": g, "d": d}, self.config)

    @torch.no_grad()
    def after_step(self, phase: str, nets: dict[str, nn.Module]) -> None:
        super().after_step(phase, nets)
        for weight in regularizers.clipped(nets["d"], "weights") if phase == "d" else ():
            weight.copy_(weight.renorm(2, 0, self.config.max_norm))


class ACGANConfig(Config):
    """Hyper-parameters of the auxiliary classifier GAN."""

    dropout: float = Field(0.5, ge=0, lt=1, description="dropout after every convolution of the discriminator")
    dropout_place: Literal["features"] = Field("features", description="place of dropout, here every layer of features")
    class_weight: float = Field(1.0, ge=0, le=100, description="weight of the class loss L_C; the source loss has 1")


class ACGANGenerator(nn.Module):
    """z [B, latent] and the one-hot label -> images [B, 3, 32, 32]: dense to 4x4, three transposed convolutions."""

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__()
        self.classes = classes
        a, b, c = (scaled(filters, config.width) for filters in (384, 192, 96))
        self.layers = nn.Sequential(
            nn.Linear(config.latent + classes, a * 16), nn.ReLU(), nn.Unflatten(1, (a, 4, 4)),
            nn.ConvTranspose2d(a, b, 5, 2, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
            nn.ConvTranspose2d(b, c, 5, 2, 2, 1, bias=False), nn.BatchNorm2d(c), nn.ReLU(),
            upsample(c, 3), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return cast(Tensor, self.layers(append_one_hot(z, labels, self.classes)))


class ACGANDiscriminator(nn.Module):
    """Images [B, 3, 32, 32] -> source logits [B] and class logits [B, classes] by six convolutions; no label enters."""

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__()
        filters = [scaled(count, config.width) for count in (16, 32, 64, 128, 256, 512)]
        parts: list[nn.Module] = [downsample(3, filters[0], 3), nn.LeakyReLU(config.slope), nn.Dropout(config.dropout)]
        for inputs, outputs, stride in zip(filters, filters[1:], (1, 2, 1, 2, 1), strict=False):
            parts += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)]
            parts += [nn.LeakyReLU(config.slope), nn.Dropout(config.dropout)]
        self.trunk = nn.Sequential(*parts, nn.Flatten())
        self.class_head = nn.Linear(filters[-1] * 16, classes)
        self.source_head = nn.Linear(filters[-1] * 16, 1)

    def heads(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Source logits [B] and class logits [B, classes]."""
        features = self.trunk(images)
        return self.source_head(features).flatten(), self.class_head(features)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.heads(images)[0]


class DasACGAN(AdversarialGAN):
    """D maximises L_S + L_C and G maximises L_C - L_S: the log-likelihoods of the source, real or generated, and of the
    class, the label of a real image or the one that an image was generated for (Odena et al., 2016)."""

    config: ACGANConfig

    def networks(self) -> dict[str, nn.Module]:
        g, d = ACGANGenerator(self.config, self.classes), ACGANDiscriminator(self.config, self.classes)
        return _initialised({"g": g, "d": d}, self.config)

    def loss(self, phase: str, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        config, d = self.config, cast(ACGANDiscriminator, nets["d"])
        if phase == "g":
            source, classes = d.heads(nets["g"](batch.z, batch.fake_labels))
            loss, class_fake = losses.g_loss(source, config), cross_entropy(classes, batch.fake_labels)
            return {"total_g": loss + config.class_weight * class_fake, "loss_g": loss}
        with torch.no_grad():
            fake = nets["g"](batch.z, batch.fake_labels)
        (real_source, real_classes), (fake_source, fake_classes) = d.heads(batch.real), d.heads(fake)
        class_real = cross_entropy(real_classes, batch.labels)
        class_fake = cross_entropy(fake_classes, batch.fake_labels)
        loss = losses.d_loss(real_source, fake_source, config)
        penalty, penalised = regularizers.weighted_penalty(config, d, batch.real, fake, batch.labels)
        total = loss + config.class_weight * (class_real + class_fake) + penalty
        record = {**penalised, "class_real": class_real, "class_fake": class_fake}
        return _record(total, loss, real_source, fake_source) | record


def _record(total: Tensor, loss: Tensor, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Scalars of D's phase. loss_d is the adversarial part alone, which compares between GANs."""
    return {"total_d": total, "loss_d": loss, **losses.judgement(real, fake)}


class InfoGANConfig(Config):
    """Hyper-parameters of InfoGAN: its code, and the weights of the information about it."""

    latent: int = Field(74, ge=1, le=4096, description="size of the noise vector z, whose last part is the code")
    latent_law: Literal["normal"] = Field("normal", description="law of the noise, from which the code is computed")
    categories: int = Field(10, ge=2, le=1000, description="values of the categorical code")
    continuous: int = Field(2, ge=0, le=100, description="continuous codes, uniform in [-1, 1]")
    categorical_weight: float = Field(1.0, ge=0, le=100, description="weight of the categorical code's information")
    continuous_weight: float = Field(0.1, ge=0, le=100, description="weight of the continuous codes' information")

    @model_validator(mode="after")
    def _has_noise(self) -> Self:
        if (code := self.categories + self.continuous) >= self.latent:
            raise ValueError(f"latent is {self.latent} but the code takes {code} of it: allowed is {code + 1} or more")
        return self


def split_code(z: Tensor, categories: int, continuous: int) -> tuple[Tensor, Tensor, Tensor]:
    """z [B, latent] as noise, categorical code (one-hot [B, categories]) and continuous code [B, continuous].

    The code is computed from the last numbers of z, which are standard normal: the index of the largest of `categories`
    numbers is a uniform category, and `uniform` maps the others to [-1, 1]. So z alone determines an image.
    """
    noise, scores, normal = z.split([z.shape[1] - categories - continuous, categories, continuous], dim=1)
    return noise, one_hot(scores.argmax(1), categories).to(z.dtype), uniform(normal)


def information(answer: Tensor, category: Tensor, continuous: Tensor) -> tuple[Tensor, Tensor]:
    """L_I = E[log Q(c|x)] + H(c) in nats, for the categorical and for the continuous code (Chen et al., 2016).

    Both are lower bounds of the mutual information I(c; x). `answer` is the output of Q, [B, categories + 2
    continuous]: class logits, then means and log-variances of Gaussians. H(c) is the entropy of a uniform category, and
    of uniform numbers in [-1, 1].
    """
    n, m = category.shape[1], continuous.shape[1]
    logits, mean, log_variance = answer.split([n, m, m], dim=1)
    discrete = (category * log_softmax(logits, dim=1)).sum(1).mean()
    squares = (continuous - mean).square() / log_variance.exp()
    gaussian = -(squares + log_variance + math.log(2 * math.pi)).sum(1).mean() / 2
    return discrete + math.log(n), gaussian + m * math.log(2)


class InfoGANGenerator(nn.Module):
    """z [B, latent] -> images [B, 1, 28, 28] by two dense layers and two transposed convolutions on noise and code."""

    def __init__(self, config: InfoGANConfig) -> None:
        super().__init__()
        self.categories, self.continuous = config.categories, config.continuous
        a, b, c = (scaled(filters, config.width) for filters in (1024, 128, 64))
        self.layers = nn.Sequential(
            nn.Linear(config.latent, a, bias=False), nn.BatchNorm1d(a), nn.ReLU(),
            nn.Linear(a, b * 49, bias=False), nn.BatchNorm1d(b * 49), nn.ReLU(), nn.Unflatten(1, (b, 7, 7)),
            nn.ConvTranspose2d(b, c, 4, 2, 1, bias=False), nn.BatchNorm2d(c), nn.ReLU(),
            nn.ConvTranspose2d(c, 1, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return cast(Tensor, self.layers(torch.cat(split_code(z, self.categories, self.continuous), dim=1)))


class InfoGANDiscriminator(nn.Module):
    """Images [B, 1, 28, 28] -> logits [B]. Q shares the trunk `features`, whose output is [B, 1024] at width 1."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        a, b, c = (scaled(filters, config.width) for filters in (64, 128, 1024))
        self.features = nn.Sequential(
            nn.Conv2d(1, a, 4, 2, 1), nn.LeakyReLU(config.slope),
            nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(config.slope),
            nn.Flatten(), nn.Linear(b * 49, c, bias=False), nn.BatchNorm1d(c), nn.LeakyReLU(config.slope),
        )  # fmt: skip
        of_features, of_logit = dropouts(config)
        self.source = nn.Sequential(of_features, nn.Linear(c, 1), nn.Flatten(0), of_logit)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return cast(Tensor, self.source(self.features(images)))


class DasInfoGAN(AdversarialGAN):
    """V(D, G) - lambda L_I(G, Q): a network `q`, trained with G, predicts the code from D's features (Chen et al.,
    2016). The features are trained with D, for both parts of the objective."""

    phases = (Phase("d", nets=("d",), repeat="n_critic"), Phase("g", nets=("g", "q"), fresh=False))
    config: InfoGANConfig

    def networks(self) -> dict[str, nn.Module]:
        config = self.config
        features, hidden = (scaled(units, config.width) for units in (1024, 128))
        q = nn.Sequential(
            nn.Linear(features, hidden, bias=False), nn.BatchNorm1d(hidden), nn.LeakyReLU(config.slope),
            nn.Linear(hidden, config.categories + 2 * config.continuous),
        )  # fmt: skip
        return _initialised({"g": InfoGANGenerator(config), "d": InfoGANDiscriminator(config), "q": q}, config)

    def loss(self, phase: str, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        config, d = self.config, cast(InfoGANDiscriminator, nets["d"])
        with torch.set_grad_enabled(phase == "g"):
            fake = nets["g"](batch.z, batch.fake_labels)
        features = d.features(fake)
        _, category, continuous = split_code(batch.z, config.categories, config.continuous)
        of_category, of_continuous = information(nets["q"](features), category, continuous)
        gain = config.categorical_weight * of_category + config.continuous_weight * of_continuous
        fake_logits = d.source(features)
        if phase == "g":
            record = {"info_categorical": of_category, "info_continuous": of_continuous}
            loss = losses.g_loss(fake_logits, config)
            return {"total_g": loss - gain, "loss_g": loss, **record}
        real_logits = d(batch.real, batch.labels)
        loss = losses.d_loss(real_logits, fake_logits, config)
        penalty, penalised = regularizers.weighted_penalty(config, d, batch.real, fake, batch.labels)
        return _record(loss - gain + penalty, loss, real_logits, fake_logits) | penalised


_FALL: dict[str, Any] = {"schedule": "exponential", "schedule_rate": 1 / 1.00004, "schedule_period": 1}
_SGD: dict[str, Any] = {"optimizer": "sgd", "g_lr": 0.1, "d_lr": 0.1, **_FALL}


def _system(gan: type[AdversarialGAN], defaults: Config, summary: str, conditional: bool = False) -> System:
    shape = CIFAR if gan is DasACGAN else MNIST
    return System(gan, defaults, shape, conditional, f"{summary} (das-2019)")


#: The report gives one length, 20 epochs of DCGAN; the others are 50 epochs of MNIST and 100 of CIFAR-10.
SYSTEMS = {
    "das-gan": _system(
        DasGAN, Config(kimg=3000.0, batch=64, dropout=0.3), "the first GAN: multilayer perceptrons on MNIST"
    ),
    "das-dcgan": _system(DasDCGAN, Config(kimg=1200.0, batch=128), "DCGAN by its guidelines on MNIST"),
    "das-cgan": _system(
        DasCGAN,
        CGANConfig(kimg=3000.0, batch=100, latent_law="uniform", dropout=0.5, init_std=0.05, **_SGD),
        "conditional perceptrons with a maxout discriminator on MNIST",
        conditional=True,
    ),
    "das-acgan": _system(
        DasACGAN,
        ACGANConfig(kimg=5000.0, batch=100),
        "auxiliary classifier GAN on CIFAR-10: D names source and class",
        conditional=True,
    ),
    "das-infogan": _system(
        DasInfoGAN,
        InfoGANConfig(kimg=3000.0, batch=128, g_lr=1e-3, slope=0.1),
        "InfoGAN on MNIST: a code in z that can be predicted from the image",
    ),
}
