"""Laws that every system of the catalogue obeys; a new system is tested by its entry alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainers.catalogue import SYSTEMS
from trainers.config import overlay
from trainers.data.batches import seeded
from trainers.data.images import ImageData
from trainers.data.shapes import draw
from trainers.gan import System
from trainers.layers import uniform
from trainers.trainer import Trainer

BATCH = 4
WASSERSTEIN = {"loss": "wasserstein", "smoothing": "none", "lipschitz": "clip"}
EVERY = pytest.mark.parametrize("system_id", SYSTEMS)
#: The plainest systems, whose layers can be told apart by their type alone.
PLAIN = pytest.mark.parametrize("system_id", ["monir-dcgan", "narman-dcgan", "narman-cgan"])
#: Their discriminators tell the class instead of being told.
AUXILIARY = {"das-acgan"}
CONDITIONAL = pytest.mark.parametrize("system_id", [name for name, system in SYSTEMS.items() if system.conditional])
UNCONDITIONAL = pytest.mark.parametrize(
    "system_id", [name for name, system in SYSTEMS.items() if not system.conditional]
)


def _data(system: System, count: int = 22) -> ImageData:
    images, labels = draw(count, seed=0)
    data = ImageData(torch.from_numpy(images), torch.from_numpy(labels), classes=10, name="shapes", split="train")
    return data.fitted(system.shape)


def _trainer(system_id: str, steps: int = 0, **settings: Any) -> Trainer:
    system = SYSTEMS[system_id]
    config = overlay(system.defaults, {"batch": BATCH, "width": 0.125, "threads": 1, **settings})
    trainer = Trainer(system, config, _data(system))
    trainer.advance(steps * BATCH)
    return trainer


def _trainable(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("system_id", "width", "g", "d"),
    [
        ("monir-dcgan", 1.0, 4_514_819, 4_310_401),
        ("monir-dcgan-collapse", 1.0, 4_514_819 + 102_464 + 128, 4_310_401 + 102_464 + 128),
        ("monir-dcgan-epoch", 1.0, 4_514_819, 4_310_401),
        ("monir-sagan", 1.0, 4_540_420, 5_368_194),
        ("narman-dcgan", 1.0, 884_673, 263_681),
        ("narman-dcgan-64", 1.0, 3_575_617, 2_764_481),
        ("narman-dcgan-collapse", 1.0, 884_673, 263_681),
        ("narman-dcgan-overconfident", 1.0, 884_673, 263_681),
        ("narman-cgan", 1.0, 397_249, 63_361),
        ("narman-cgan-osls", 1.0, 397_249, 63_361),
        ("narman-cgan-osls-extra", 1.0, 947_393, 271_681),
        ("narman-cgan-x2-osls", 2.0, 896_897, 229_121),
        ("narman-cgan-osls-k4", 1.0, 378_529, 41_761),
        ("narman-cgan-x2-osls-dropout", 2.0, 896_897, 229_121),
        ("narman-cgan-x05", 0.5, 185_825, 18_881),
        ("narman-cgan-x05-15ep", 0.5, 185_825, 18_881),
        ("narman-cgan-no9", 1.0, 397_249, 63_361),
        ("narman-cgan", 2.0, 896_897, 229_121),
        ("narman-cgan", 0.5, 185_825, 18_881),
    ],
)
def test_networks_have_the_reported_number_of_parameters(system_id: str, width: float, g: int, d: int) -> None:
    system = SYSTEMS[system_id]
    nets = system.gan(overlay(system.defaults, {"width": width}), 10).networks()
    assert {name: _trainable(net) for name, net in nets.items()} == {"g": g, "d": d}


@pytest.mark.parametrize(("system_id", "buffers"), [("monir-dcgan", (1_924, 1_795))])
def test_batch_norm_statistics_are_the_only_buffers(system_id: str, buffers: tuple[int, int]) -> None:
    system = SYSTEMS[system_id]
    nets = system.gan(system.defaults, 10).networks()
    assert tuple(sum(b.numel() for b in nets[name].buffers()) for name in "gd") == buffers


@EVERY
def test_the_generator_makes_images_of_the_systems_shape_in_the_range_of_tanh(system_id: str) -> None:
    trainer = _trainer(system_id)
    z, labels = torch.randn(6, trainer.config.latent, generator=seeded(0)), torch.arange(6)
    images = trainer.nets["g"](z, labels)
    assert images.shape == (6, *SYSTEMS[system_id].shape)
    assert images.abs().max() <= 1
    assert trainer.nets["d"](images, labels).shape == (6,)


@PLAIN
def test_initial_weights_follow_the_configured_deviation(system_id: str) -> None:
    nets = _trainer(system_id, init_std=0.07, width=0.5).nets
    for part in [part for net in nets.values() for part in net.modules()]:
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            # Five standard errors of the estimated deviation.
            assert part.weight.std().item() == pytest.approx(0.07, rel=5 / math.sqrt(2 * part.weight.numel()))
            assert part.bias is not None
            assert not part.bias.any()
        elif isinstance(part, nn.BatchNorm2d):
            assert part.weight.mean().item() == pytest.approx(1, abs=5 * 0.07 / math.sqrt(part.weight.numel()))
            assert part.weight.unique().numel() > 1
            assert not part.bias.any()


@EVERY
def test_seeds_give_unlike_networks(system_id: str) -> None:
    first, second = (_trainer(system_id, seed=seed).nets["g"].state_dict() for seed in (0, 1))
    assert any(not torch.equal(first[key], second[key]) for key in first)


@PLAIN
def test_dropout_and_slope_reach_the_networks(system_id: str) -> None:
    modules = list(_trainer(system_id, dropout=0.37, slope=0.11).nets["d"].modules())
    assert [part.p for part in modules if isinstance(part, nn.Dropout)] == [0.37]
    assert {part.negative_slope for part in modules if isinstance(part, nn.LeakyReLU)} == {0.11}


def _cancelled_biases(net: nn.Module) -> set[str]:
    """Names of the biases that a batch norm subtracts again, so that nothing drives them."""
    names, before = set(), ""
    for name, part in net.named_modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            before = f"{name}.bias"
        elif isinstance(part, nn.BatchNorm2d):
            names.add(before)
        elif not isinstance(part, nn.Unflatten):
            before = ""
    return names


@PLAIN
@pytest.mark.parametrize("settings", [{}, WASSERSTEIN], ids=["as-is", "wasserstein"])
def test_losses_are_finite_and_every_parameter_learns(system_id: str, settings: dict[str, Any]) -> None:
    trainer = _trainer(system_id, **settings)
    before = {name: {k: p.clone() for k, p in net.named_parameters()} for name, net in trainer.nets.items()}
    losses = trainer.advance(3 * BATCH)
    assert {"loss_g", "loss_d", "d_real", "d_fake", "images_per_s"} <= set(losses)
    assert all(math.isfinite(value) for value in losses.values())
    for name, net in trainer.nets.items():
        still = {k for k, p in net.named_parameters() if torch.equal(p, before[name][k])}
        free = _cancelled_biases(net)
        if name == "d" and trainer.config.controls("clip"):
            # A critic is defined up to a constant: its last bias cancels between real and generated images.
            free.add([k for k, _ in net.named_parameters()][-1])
        assert still <= free


@EVERY
def test_samples_are_a_function_of_the_seed(system_id: str) -> None:
    # With the usual initial weights so small a network makes nothing but gray.
    trainer = _trainer(system_id, steps=1, init_std=0.1)
    images, labels = trainer.sample(23, seed=5)
    again, _ = trainer.sample(23, seed=5)
    other, _ = trainer.sample(23, seed=6)
    assert torch.equal(images, again)
    assert not torch.equal(images, other)
    assert images.dtype == torch.uint8
    assert images.shape == (23, *SYSTEMS[system_id].shape)
    assert labels.tolist() == [i % 10 for i in range(23)]


@EVERY
def test_sampling_leaves_the_training_as_it_was(system_id: str) -> None:
    sampled, undisturbed = (_trainer(system_id, steps=1, ema_decay=0.5) for _ in range(2))
    sampled.sample(7, seed=0)
    assert sampled.generator.training == undisturbed.generator.training
    for trainer in (sampled, undisturbed):
        trainer.advance(2 * BATCH)
    for key, tensor in sampled.state()[0].items():
        assert torch.equal(tensor, undisturbed.state()[0][key]), key


@EVERY
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_the_scored_generator_is_a_plain_module_once_its_weights_are_saved(system_id: str, ema_decay: float) -> None:
    trainer = _trainer(system_id, steps=2, ema_decay=ema_decay)
    plain = SYSTEMS[system_id].gan(trainer.config, 10).networks()["g"].eval()
    plain.load_state_dict(trainer.generator.state_dict())
    images, labels = trainer.sample(12, seed=3)
    z = torch.randn(12, trainer.config.latent, generator=seeded(3, 2))
    with torch.no_grad():
        pixels = plain(uniform(z) if trainer.config.latent_law == "uniform" else z, labels)
    assert torch.equal(images, ((pixels + 1) * 127.5).round().to(torch.uint8))


def _images(trainer: Trainer, labels: Tensor) -> Tensor:
    trainer.generator.eval()
    z = torch.randn(1, trainer.config.latent, generator=seeded(0)).expand(len(labels), -1)
    with torch.no_grad():
        images: Tensor = trainer.generator(z, labels)
    return images


@CONDITIONAL
def test_every_label_gives_an_image_of_its_own(system_id: str) -> None:
    images = _images(_trainer(system_id, steps=1), torch.arange(10))
    assert len(images.unique(dim=0)) == 10


@pytest.mark.parametrize(
    "system_id", [name for name, system in SYSTEMS.items() if system.conditional and name not in AUXILIARY]
)
def test_the_discriminator_sees_the_label(system_id: str) -> None:
    trainer = _trainer(system_id)
    images = torch.rand(1, *SYSTEMS[system_id].shape, generator=seeded(0)).expand(10, -1, -1, -1)
    trainer.nets["d"].eval()
    assert len(trainer.nets["d"](images, torch.arange(10)).unique()) == 10


@UNCONDITIONAL
def test_unconditional_networks_ignore_labels(system_id: str) -> None:
    trainer = _trainer(system_id, steps=1)
    zeros, others = torch.zeros(10, dtype=torch.int64), torch.arange(10)
    assert torch.equal(_images(trainer, zeros), _images(trainer, others))
    d, images = trainer.nets["d"].eval(), torch.zeros(10, *SYSTEMS[system_id].shape)
    assert torch.equal(d(images, zeros), d(images, others))


@EVERY
def test_every_system_has_a_summary_of_one_line(system_id: str) -> None:
    assert SYSTEMS[system_id].summary
    assert "\n" not in SYSTEMS[system_id].summary
