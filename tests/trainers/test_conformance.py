"""Every system of the catalogue passes these, whatever its networks and phases are. Tiny and on one CPU thread.

One run of 20 steps in float64 per system serves all of them; `tests/support/golden.py` says what it consists of.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.support import golden
from tests.support.golden import BATCH, STEPS, advance, new_trainer
from trainers import checkpoint
from trainers.catalogue import SYSTEMS
from trainers.config import Config
from trainers.trainer import Trainer

#: The critic of hamed-csawgan in the reference's default build adds a term of the label alone to its score. Under a
#: gradient penalty real and generated images share their labels, so that the term cancels. Its field `hidden` mends it.
CANCELLED = {"hamed-csawgan": {"embedding.weight", "embedding.bias"}}
EVERY = pytest.mark.parametrize("system_id", SYSTEMS)


@dataclass(frozen=True)
class Trained:
    """A system after its run."""

    system_id: str
    trainer: Trainer
    initial: dict[str, dict[str, Tensor]]
    """Parameters before the first step, by network."""
    halfway: Path
    """Checkpoint after half of the steps."""
    record: list[dict[str, float]]
    """What was recorded at each step."""


@pytest.fixture(scope="module", params=SYSTEMS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    trainer = golden.start(request.param)
    initial = {name: {k: p.clone() for k, p in net.named_parameters()} for name, net in trainer.nets.items()}
    halfway = tmp_path_factory.mktemp("run") / "halfway"
    record = advance(trainer, STEPS // 2)
    checkpoint.write(halfway, *trainer.state(), {})
    record += advance(trainer, STEPS - STEPS // 2)
    return Trained(request.param, trainer, initial, halfway, record)


def undriven(net: nn.Module, config: Config) -> set[str]:
    """Biases that a normalisation subtracts again, or that shift all scores of a critic alike: nothing drives them."""
    biases = [
        f"{name}.bias"
        for name, part in net.named_modules()
        if isinstance(part, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    ]
    normalised = any(isinstance(part, nn.modules.batchnorm._NormBase | nn.GroupNorm) for part in net.modules())
    return {*(biases[:-1] if normalised else []), *(biases[-1:] if config.loss == "wasserstein" else [])}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_everything_recorded_is_finite_at_every_step(trained: Trained) -> None:
    assert len(trained.record) == STEPS
    for step in trained.record:
        assert all(math.isfinite(value) for value in step.values()), step


def test_every_parameter_learns(trained: Trained) -> None:
    for name, net in trained.trainer.nets.items():
        still = {k for k, p in net.named_parameters() if torch.equal(p, trained.initial[name][k])}
        exempt = undriven(net, trained.trainer.config) | CANCELLED.get(trained.system_id, set())
        assert still <= exempt, f"{name}: nothing drives {sorted(still - exempt)}"


def test_a_run_in_float64_holds_nothing_less_precise_and_leaves_the_outer_dtype(trained: Trained) -> None:
    assert {t.dtype for t in trained.trainer.state()[0].values() if t.is_floating_point()} == {torch.float64}
    assert torch.get_default_dtype() == torch.float32


def test_losses_follow_their_golden_curves(trained: Trained) -> None:
    known = golden.read()
    assert trained.system_id in known, f"no golden curve of {trained.system_id}: run `make golden` and commit the file"
    changed = golden.differences(known[trained.system_id], golden.curves(trained.record))
    assert not changed, "\n".join([*changed, "a change of the algorithm: take it back, or `make golden` and say why"])


def test_every_golden_curve_is_of_a_system() -> None:
    assert golden.read().keys() <= SYSTEMS.keys(), "`make golden` forgets the others"


@pytest.mark.parametrize(
    ("factor", "same"), [(1 + 5e-7, True), (1 + 2e-6, False), (1 - 2e-6, False), (math.nan, False)]
)
def test_a_golden_curve_holds_to_a_millionth(factor: float, same: bool) -> None:
    found = {"loss_d": [1.25, 1e-5 * factor], "loss_g": [0.5, -3.0]}
    assert (golden.differences({"loss_d": [1.25, 1e-5], "loss_g": [0.5, -3.0]}, found) == []) == same


def test_a_golden_curve_that_is_missing_or_new_is_a_difference() -> None:
    assert golden.differences({"loss_d": [1.0]}, {"loss_g": [1.0]}) == ["loss_d: missing", "loss_g: new"]


def test_a_restart_changes_no_bit(trained: Trained) -> None:
    resumed = golden.start(trained.system_id)
    resumed.load_state(*checkpoint.read(trained.halfway)[:2])
    assert advance(resumed, STEPS - STEPS // 2) == trained.record[STEPS // 2 :]
    (tensors, header), (other_tensors, other_header) = resumed.state(), trained.trainer.state()
    assert equal(tensors, other_tensors)
    assert header == other_header


def test_samples_are_repeatable_in_range_and_follow_the_label_where_there_is_one(trained: Trained) -> None:
    images, labels = trained.trainer.sample(20, seed=1)
    again, _ = trained.trainer.sample(20, seed=1)
    system = SYSTEMS[trained.system_id]
    assert torch.equal(images, again)
    assert images.shape[1:] == system.shape
    assert labels.tolist() == [*range(10), *range(10)]
    g, z = deepcopy(trained.trainer.generator).eval(), _noise(trained.trainer, 3)
    with torch.no_grad():
        first, second = (g(z, torch.full((3,), label)) for label in (0, 1))
    assert first.abs().max() <= 1
    assert torch.equal(first, second) != system.conditional


def test_evaluation_is_deterministic_and_leaves_the_networks_as_they_are(trained: Trained) -> None:
    g, d = (deepcopy(trained.trainer.nets[name]).eval() for name in "gd")
    before = [{k: t.clone() for k, t in net.state_dict().items()} for net in (g, d)]
    z, labels = _noise(trained.trainer, 4), torch.arange(4)
    with torch.no_grad():
        images, again = (g(z, labels) for _ in range(2))
        logits, logits_again = (d(images, labels) for _ in range(2))
    assert torch.equal(images, again)
    assert torch.equal(logits, logits_again)
    assert all(equal(net.state_dict(), state) for net, state in zip((g, d), before, strict=True))


def test_the_generators_state_loads_into_a_fresh_network_and_samples_alike(trained: Trained) -> None:
    fresh = trained.trainer.gan.networks()["g"].double()
    fresh.load_state_dict(trained.trainer.nets["g"].state_dict())
    z, labels = _noise(trained.trainer, 2), torch.tensor([3, 7])
    with torch.no_grad():
        assert torch.equal(fresh.eval()(z, labels), deepcopy(trained.trainer.nets["g"]).eval()(z, labels))


def _noise(trainer: Trainer, count: int) -> Tensor:
    return torch.randn(count, trainer.config.latent, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


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
