"""The law of the noise and the place of dropout reach every system that has the choice; the others refuse them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainers.catalogue import SYSTEMS
from trainers.config import configure, overlay
from trainers.data.batches import seeded
from trainers.data.images import ImageData
from trainers.data.shapes import draw
from trainers.errors import InputError
from trainers.gans.das import CGANGenerator
from trainers.layers import uniform
from trainers.trainer import Trainer

#: Their own codes and priors are made from normal noise.
NORMAL_ALONE = {"das-infogan", "das-vaegan"}
#: Its dropout is behind every convolution.
FEATURES_ALONE = {"das-acgan"}
EVERY = pytest.mark.parametrize("system_id", SYSTEMS)
WITH_LAWS = pytest.mark.parametrize("system_id", [name for name in SYSTEMS if name not in NORMAL_ALONE])
WITH_PLACES = pytest.mark.parametrize("system_id", [name for name in SYSTEMS if name not in FEATURES_ALONE])
BATCH = 4


def _trainer(system_id: str, **settings: Any) -> Trainer:
    system = SYSTEMS[system_id]
    images, labels = draw(22, seed=0)
    data = ImageData(torch.from_numpy(images), torch.from_numpy(labels), classes=10, name="shapes", split="train")
    config = overlay(system.defaults, {"batch": BATCH, "width": 0.125, "threads": 1, **settings})
    return Trainer(system, config, data.fitted(system.shape))


def _seen(net: nn.Module) -> list[Tensor]:
    """Grows by the first argument of each later call of `net`."""
    calls: list[Tensor] = []
    net.register_forward_pre_hook(lambda _, arguments: calls.append(arguments[0].detach().clone()))
    return calls


@EVERY
def test_noise_is_normal_but_for_the_conditional_perceptrons_and_dropout_is_of_features(system_id: str) -> None:
    defaults = SYSTEMS[system_id].defaults
    assert defaults.latent_law == ("uniform" if system_id == "das-cgan" else "normal")
    assert defaults.dropout_place == "features"


@pytest.mark.parametrize(
    ("key", "value", "system_id"),
    [("latent_law", "uniform", name) for name in sorted(NORMAL_ALONE)]
    + [("dropout_place", "logit", name) for name in sorted(FEATURES_ALONE)]
    + [("latent_law", "seven", "das-gan"), ("dropout_place", "seven", "das-gan")],
)
def test_a_choice_that_a_system_does_not_have_is_refused_by_name(key: str, value: str, system_id: str) -> None:
    with pytest.raises(InputError, match=f"sweep: {key}: .*'{value}'"):
        configure(SYSTEMS[system_id].defaults, {key: value}, "sweep")


def test_uniform_noise_lies_in_its_interval_and_is_as_dense_everywhere() -> None:
    z = _trainer("das-gan", latent_law="uniform", latent=4096, batch=16)._batch(fresh=True).z.double().flatten()
    n = z.numel()
    assert z.abs().max() <= 1
    # Five standard errors: those of a mean of z, of z^2 and of the share of numbers below a bound.
    assert z.mean().item() == pytest.approx(0, abs=5 * (1 / 3 / n) ** 0.5)
    assert z.square().mean().item() == pytest.approx(1 / 3, abs=5 * (4 / 45 / n) ** 0.5)
    for bound in (-0.8, -0.4, 0.0, 0.4, 0.8):
        assert (z < bound).double().mean().item() == pytest.approx((bound + 1) / 2, abs=5 * (0.25 / n) ** 0.5)


@WITH_LAWS
def test_training_and_sampling_draw_the_same_numbers_and_give_them_the_configured_law(system_id: str) -> None:
    seen: dict[str, list[Tensor]] = {}
    for law in ("normal", "uniform"):
        trainer = _trainer(system_id, latent_law=law)
        seen[law] = _seen(trainer.nets["g"])
        trainer.advance(BATCH)
        trainer.sample(6, seed=5)
    assert len(seen["normal"]) == len(seen["uniform"]) > 2
    assert all(torch.equal(uniform(a), b) for a, b in zip(seen["normal"], seen["uniform"], strict=True))
    latent = SYSTEMS[system_id].defaults.latent
    assert torch.equal(seen["normal"][-1], torch.randn(6, latent, generator=seeded(5, 2)))


def test_the_conditional_perceptrons_use_the_noise_as_it_is() -> None:
    trainer = _trainer("das-cgan")
    g = trainer.nets["g"]
    assert isinstance(g, CGANGenerator)
    given, used = _seen(g), _seen(g.noise)
    trainer.advance(BATCH)
    assert len(given) == len(used) > 1
    assert all(torch.equal(a, b) for a, b in zip(given, used, strict=True))


def _discriminator(system_id: str, **settings: Any) -> nn.Module:
    """Its weights depend on the system alone."""
    system = SYSTEMS[system_id]
    torch.manual_seed(0)
    return system.gan(overlay(system.defaults, {"width": 0.125, "init_std": 0.1, **settings}), 10).networks()["d"]


def _logits(system_id: str, d: nn.Module) -> Tensor:
    images = 2 * torch.rand(64, *SYSTEMS[system_id].shape, generator=seeded(0)) - 1
    torch.manual_seed(1)
    with torch.no_grad():
        logits: Tensor = d(images, torch.arange(64) % 10)
    return logits


@WITH_PLACES
def test_dropout_of_logits_zeroes_whole_ones_in_training_and_none_in_evaluation(system_id: str) -> None:
    plain = _discriminator(system_id, dropout=0.0)
    dropped = _discriminator(system_id, dropout=0.5, dropout_place="logit")
    before, after = _logits(system_id, plain), _logits(system_id, dropped)
    kept = after != 0
    assert before.all()
    assert torch.equal(after[kept], 2 * before[kept])
    assert abs(int(kept.sum()) - 32) <= 5 * 4  # standard deviations of the number kept
    assert torch.equal(_logits(system_id, dropped.eval()), _logits(system_id, plain.eval()))


@EVERY
def test_dropout_of_features_changes_logits_and_zeroes_none(system_id: str) -> None:
    plain = _logits(system_id, _discriminator(system_id, dropout=0.0))
    dropped = _logits(system_id, _discriminator(system_id, dropout=0.5, dropout_place="features"))
    assert not torch.isclose(dropped, plain).all()
    assert not torch.isclose(dropped, 2 * plain).any()
    assert dropped.all()


@WITH_PLACES
def test_both_places_have_the_same_weights(system_id: str) -> None:
    features, logit = (_discriminator(system_id, dropout_place=place).state_dict() for place in ("features", "logit"))
    assert list(features) == list(logit)
    assert all(torch.equal(features[key], logit[key]) for key in features)
