"""What `hamed-2019` states of its two systems, and what their label and attention options do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from tests.support.networks import networks_of, parts_of
from trainers.config import configure, overlay
from trainers.data.batches import seeded
from trainers.errors import InputError
from trainers.gan import Batch
from trainers.gans.hamed import SYSTEMS, CSAWGANConfig
from trainers.layers import SelfAttention
from trainers.losses import d_loss

EVERY = pytest.mark.parametrize("system_id", SYSTEMS)
WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def _count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("system_id", "settings", "g", "d"),
    [
        ("hamed-dcgan", {}, 3_448_576, 663_296),
        ("hamed-csawgan", {"hidden": 0}, 3_551_876, 2_779_842),
        # A scalar gamma less in each network.
        ("hamed-csawgan", {"hidden": 0, "attention_residual": False}, 3_551_875, 2_779_841),
        # f and g of 128 instead of 16 filters, each on 128 channels.
        ("hamed-csawgan", {"hidden": 0, "attention_reduction": 1}, 3_551_876 + 28_672, 2_779_842 + 28_672),
        # 10 weights and a bias of the embedding, and one weight of the output, for each of 36 dimensions more.
        ("hamed-csawgan", {"hidden": 0, "embedding": 100}, 3_551_876, 2_779_842 + 36 * 12),
        # The output of 2,112 + 1 weights gives way to a dense layer and an output behind it.
        ("hamed-csawgan", {"hidden": 512}, 3_551_876, 2_779_842 - 2_113 + 2_113 * 512 + 513),
    ],
)
def test_networks_have_the_derived_number_of_parameters(
    system_id: str, settings: dict[str, Any], g: int, d: int
) -> None:
    nets = networks_of(system_id, **settings)
    assert {name: _count(net) for name, net in nets.items()} == {"g": g, "d": d}


@EVERY
def test_full_width_networks_make_images_in_the_range_of_tanh_and_one_logit_each(system_id: str) -> None:
    nets, labels = networks_of(system_id), torch.tensor([3, 7])
    with torch.no_grad():
        images = nets["g"](torch.randn(2, 100, generator=seeded(0)), labels)
        assert nets["d"](images, labels).shape == (2,)
    assert images.shape == (2, 3, 32, 32)
    assert 0 < images.abs().max() <= 1


def test_the_dcgan_has_no_bias_but_those_of_batch_norm() -> None:
    for net in networks_of("hamed-dcgan", width=0.125).values():
        assert all(part.bias is None for part in parts_of(net, *WEIGHTED))


def test_the_critic_has_no_batch_norm() -> None:
    nets = networks_of("hamed-csawgan", width=0.125)
    assert len(parts_of(nets["g"], nn.BatchNorm2d)) == 3
    assert not parts_of(nets["d"], nn.modules.batchnorm._NormBase, nn.GroupNorm)


@pytest.mark.parametrize(
    ("system_id", "settings", "g", "d"),
    [
        ("hamed-dcgan", {}, False, False),
        ("hamed-dcgan", {"lipschitz": "spectral"}, False, True),
        ("hamed-csawgan", {}, True, True),
        ("hamed-csawgan", {"g_spectral": False}, False, True),
        ("hamed-csawgan", {"lipschitz": "penalty"}, True, False),
    ],
)
def test_spectral_norm_is_on_all_convolutions_or_none_and_never_on_dense_layers(
    system_id: str, settings: dict[str, Any], g: bool, d: bool
) -> None:
    nets = networks_of(system_id, width=0.125, **settings)
    for name, expected in (("g", g), ("d", d)):
        convolutions = parts_of(nets[name], nn.Conv2d, nn.ConvTranspose2d)
        assert len(convolutions) == 4 + 3 * len(parts_of(nets[name], SelfAttention))
        assert {is_parametrized(part) for part in convolutions} == {expected}
        assert not any(is_parametrized(part) for part in parts_of(nets[name], nn.Linear))


def test_spectral_norm_fits_the_initial_weights_before_any_step() -> None:
    for net in networks_of("hamed-csawgan", width=0.25).values():
        for part in parts_of(net.eval(), nn.Conv2d, nn.ConvTranspose2d):
            weight = part.weight
            assert isinstance(weight, Tensor)
            matrix = (weight.transpose(0, 1) if isinstance(part, nn.ConvTranspose2d) else weight).flatten(1)
            assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(1, abs=0.1)


def test_attention_is_at_16x16_in_the_generator_and_at_8x8_in_the_critic() -> None:
    nets, seen = networks_of("hamed-csawgan"), dict[str, tuple[int, ...]]()
    for name, net in nets.items():
        (attention,) = parts_of(net, SelfAttention)
        attention.register_forward_pre_hook(lambda _, x, name=name: seen.update({name: tuple(x[0].shape)}))
    with torch.no_grad():
        nets["d"](nets["g"](torch.zeros(2, 100), torch.tensor([0, 1])), torch.tensor([0, 1]))
    assert seen == {"g": (2, 128, 16, 16), "d": (2, 128, 8, 8)}


@EVERY
def test_initial_deviation_dropout_and_slope_reach_the_networks(system_id: str) -> None:
    nets = networks_of(system_id, width=0.5, init_std=0.07, dropout=0.37, slope=0.11)
    for part in [part for net in nets.values() for part in parts_of(net, *WEIGHTED)]:
        own = dict(part.named_parameters())
        weight = own.get("weight", own.get("parametrizations.weight.original"))
        assert weight is not None
        assert weight.std().item() == pytest.approx(0.07, rel=5 / (2 * weight.numel()) ** 0.5)
        assert "bias" not in own or not own["bias"].any()
    assert [part.p for part in parts_of(nets["d"], nn.Dropout)] == [0.37]
    assert {part.negative_slope for part in parts_of(nets["d"], nn.LeakyReLU)} == {0.11}


def test_labels_may_be_classes_or_their_one_hot_vectors() -> None:
    nets, labels = networks_of("hamed-csawgan", width=0.125), torch.tensor([3, 7])
    soft = nn.functional.one_hot(labels, 10).float()
    z, images = torch.randn(2, 100, generator=seeded(0)), torch.rand(2, 3, 32, 32, generator=seeded(1))
    for net, given in ((nets["g"].eval(), z), (nets["d"].eval(), images)):
        assert torch.equal(net(given, labels), net(given, soft))
        assert not torch.allclose(net(given, labels), net(given, soft.roll(1, dims=1)))


def test_a_mixed_label_lies_between_its_classes() -> None:
    d = networks_of("hamed-csawgan", width=0.125, hidden=0)["d"].eval()
    images = torch.rand(2, 3, 32, 32, generator=seeded(1))
    first, second = (nn.functional.one_hot(torch.full((2,), label), 10).float() for label in (3, 7))
    mixed = d(images, 0.25 * first + 0.75 * second)
    assert torch.allclose(mixed, 0.25 * d(images, first) + 0.75 * d(images, second), atol=1e-6)


def _label_gap(d: nn.Module) -> Tensor:
    images = torch.rand(6, 3, 32, 32, generator=seeded(1))
    zeros, ones = torch.zeros(6, dtype=torch.int64), torch.ones(6, dtype=torch.int64)
    with torch.no_grad():
        gap: Tensor = d(images, ones) - d(images, zeros)
    return gap


@pytest.mark.parametrize(("hidden", "sees_the_match"), [(0, False), (32, True)])
def test_only_with_a_hidden_layer_does_the_critic_judge_whether_image_and_label_match(
    hidden: int, sees_the_match: bool
) -> None:
    d = networks_of("hamed-csawgan", width=0.125, hidden=hidden, init_std=0.2)["d"].double().eval()
    d.register_forward_pre_hook(lambda _, given: (given[0].double(), nn.functional.one_hot(given[1], 10).double()))
    gap = _label_gap(d)
    assert gap.abs().min() > 0
    assert (gap.std() > 1e-6 * gap.abs().max()).item() is sees_the_match


@pytest.mark.parametrize(("hidden", "learns"), [(0, False), (32, True)])
def test_only_with_a_hidden_layer_does_the_label_embedding_learn(hidden: int, learns: bool) -> None:
    system = SYSTEMS["hamed-csawgan"]
    config = overlay(system.defaults, {"width": 0.125, "hidden": hidden, "batch": 4})
    torch.manual_seed(0)
    gan = system.gan(config, 10)
    nets, labels = gan.networks(), torch.arange(4)
    batch = Batch(torch.rand(4, 3, 32, 32), labels, torch.randn(4, 100), labels)
    gan.loss("d", nets, batch)["loss_d"].backward()
    slope = nets["d"].get_submodule("embedding").weight.grad
    assert isinstance(slope, Tensor)
    assert (slope.abs().max() > 1e-9).item() is learns


def test_the_systems_train_as_stated() -> None:
    dcgan, csawgan = (SYSTEMS[name].defaults for name in ("hamed-dcgan", "hamed-csawgan"))
    assert (dcgan.loss, dcgan.lipschitz, dcgan.batch, dcgan.kimg) == ("bce", "none", 64, 50_000)
    assert (dcgan.optimizer, dcgan.g_lr, dcgan.d_lr, dcgan.beta1, dcgan.n_critic) == ("adam", 2e-4, 2e-4, 0.5, 1)
    assert (csawgan.loss, csawgan.lipschitz, csawgan.batch, csawgan.kimg) == (
        "wasserstein", "penalty+spectral", 64, 15_000,
    )  # fmt: skip
    assert (csawgan.g_lr, csawgan.d_lr, csawgan.beta1, csawgan.beta2) == (1e-4, 1e-4, 0, 0.9)
    assert (csawgan.n_critic, csawgan.penalty_weight, csawgan.latent) == (5, 10, 100)
    assert d_loss(torch.tensor([3.0]), torch.tensor([1.0]), csawgan) == -2


@pytest.mark.parametrize(("key", "value"), [("embedding", 0), ("attention_reduction", 0), ("hidden", -1)])
def test_values_out_of_range_are_refused_by_name(key: str, value: int) -> None:
    with pytest.raises(InputError, match=f"sweep: {key}"):
        configure(CSAWGANConfig(), {key: value}, "sweep")
