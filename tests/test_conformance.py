"""Every system of the catalogue passes these, whatever its networks and phases are. Tiny and on one CPU thread."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainers import SYSTEMS, checkpoint
from trainers.config import overlay
from trainers.data import ImageData
from trainers.data.shapes import draw
from trainers.trainer import Trainer

BATCH = 4
STEPS = 6
#: The critic of hamed-csawgan in the reference's default build adds a term of the label alone to its score. Under a
#: gradient penalty real and generated images share their labels, so that the term cancels. Its field `hidden` mends it.
CANCELLED = {"hamed-csawgan": {"embedding.weight", "embedding.bias"}}
EVERY = pytest.mark.parametrize("system_id", SYSTEMS)


def new_trainer(system_id: str, **settings: Any) -> Trainer:
    """An eighth of the system's width on a few generated images."""
    system = SYSTEMS[system_id]
    channels, height, width = system.shape
    images, labels = draw(22, seed=0)
    pixels = torch.from_numpy(images)[:, :channels]
    if (height, width) != pixels.shape[2:]:
        pixels = nn.functional.interpolate(pixels.float(), (height, width), mode="bilinear").to(torch.uint8)
    data = ImageData(pixels.contiguous(), torch.from_numpy(labels), classes=10, name="shapes", split="train")
    small = {"batch": BATCH, "width": 0.125, "threads": 1, "kimg": 0.1, "n_critic": min(2, system.defaults.n_critic)}
    return Trainer(system, overlay(system.defaults, small | settings), data)


def undriven(net: nn.Module) -> set[str]:
    """Biases that a normalisation subtracts again, or that shift every logit alike: nothing drives them."""
    names: set[str] = set()
    weighted = [
        (name, part)
        for name, part in net.named_modules()
        if isinstance(part, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    ]
    normalised = any(isinstance(part, nn.modules.batchnorm._NormBase | nn.GroupNorm) for part in net.modules())
    if normalised:
        names |= {f"{name}.bias" for name, _ in weighted}
    elif weighted:
        names.add(f"{weighted[-1][0]}.bias")
    return names


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@EVERY
def test_losses_are_finite_and_every_parameter_learns_and_a_restart_changes_no_bit(
    system_id: str, tmp_path: Path
) -> None:
    whole, half = new_trainer(system_id), new_trainer(system_id)
    before = {name: {k: p.clone() for k, p in net.named_parameters()} for name, net in whole.nets.items()}
    losses = whole.advance(STEPS * BATCH)
    assert all(math.isfinite(value) for value in losses.values()), losses
    for name, net in whole.nets.items():
        still = {k for k, p in net.named_parameters() if torch.equal(p, before[name][k])}
        exempt = undriven(net) | CANCELLED.get(system_id, set())
        assert still <= exempt, f"{name}: nothing drives {sorted(still - exempt)}"
    half.advance(STEPS // 2 * BATCH)
    checkpoint.write(tmp_path / "half", *half.state(), {})
    resumed = new_trainer(system_id)
    resumed.load_state(*checkpoint.read(tmp_path / "half")[:2])
    resumed.advance(STEPS * BATCH)
    assert equal(whole.state()[0], resumed.state()[0])


@EVERY
def test_samples_are_repeatable_in_range_and_follow_the_label_where_there_is_one(system_id: str) -> None:
    trainer = new_trainer(system_id)
    trainer.advance(2 * BATCH)
    images, labels = trainer.sample(20, seed=1)
    again, _ = trainer.sample(20, seed=1)
    assert torch.equal(images, again)
    assert images.shape[1:] == SYSTEMS[system_id].shape
    assert labels.tolist() == [*range(10), *range(10)]
    g = trainer.generator.eval()
    z = torch.randn(3, trainer.config.latent, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = (g(z, torch.full((3,), label)) for label in (0, 1))
    assert first.abs().max() <= 1
    assert torch.equal(first, second) != SYSTEMS[system_id].conditional


@EVERY
def test_the_generators_state_loads_into_a_fresh_network_and_samples_alike(system_id: str) -> None:
    trainer = new_trainer(system_id)
    trainer.advance(2 * BATCH)
    fresh = trainer.gan.networks()["g"]
    fresh.load_state_dict(trainer.nets["g"].state_dict())
    z, labels = torch.randn(2, trainer.config.latent), torch.tensor([3, 7])
    with torch.no_grad():
        assert torch.equal(fresh.eval()(z, labels), trainer.nets["g"].eval()(z, labels))


@EVERY
def test_every_field_of_the_configuration_says_what_it_is(system_id: str) -> None:
    for name, field in type(SYSTEMS[system_id].defaults).model_fields.items():
        assert field.description, f"{name} has no description"


@pytest.mark.parametrize("system_id", ["narman-cgan", "monir-sagan", "toh-cgan-1"])
def test_conditional_systems_learn_from_mixed_images_and_labels(system_id: str) -> None:
    techniques = {"cutmix": 1.0, "saturation": 0.3, "sharpening": 0.5, "oversampling": 40}
    trainer = new_trainer(system_id, **techniques)
    losses = trainer.advance(3 * BATCH)
    assert all(math.isfinite(value) for value in losses.values())
    plain = new_trainer(system_id)
    assert plain.advance(3 * BATCH)["loss_d"] != losses["loss_d"]
