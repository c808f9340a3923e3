"""The residual networks are those of their papers: sizes, order of layers, initial weights, settings."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, batch_norm, conv2d, interpolate, relu
from torch.nn.utils.parametrize import is_parametrized

from tests.support.networks import networks_of, parts_of
from trainers.data.batches import seeded
from trainers.gans.resnets import SYSTEMS, Block, Resample, ResNetConfig
from trainers.layers import Norm
from trainers.schedules import lr_factor

EVERY = pytest.mark.parametrize("system_id", SYSTEMS)
WEIGHTED = (nn.Conv2d, nn.Linear)


def _conv(inputs: int, outputs: int, kernel: int) -> int:
    return inputs * outputs * kernel**2 + outputs


def _generator(n: int, latent: int = 128) -> int:
    block = 2 * n + _conv(n, n, 3) + 2 * n + _conv(n, n, 3) + _conv(n, n, 1)
    return (latent + 1) * 16 * n + 3 * block + 2 * n + _conv(n, 3, 3)


def _discriminator(n: int) -> int:
    first = _conv(3, n, 3) + _conv(n, n, 3) + _conv(3, n, 1)
    second = 2 * _conv(n, n, 3) + _conv(n, n, 1)
    return first + second + 2 * 2 * _conv(n, n, 3) + n + 1


@pytest.mark.parametrize(
    ("system_id", "filters", "g", "d"),
    [("sngan-32", 256, 4_276_739, 1_053_825), ("wgan-gp-32", 128, 1_204_483, 1_053_825)],
)
def test_networks_have_the_number_of_parameters_of_the_published_tables(
    system_id: str, filters: int, g: int, d: int
) -> None:
    assert (_generator(filters), _discriminator(128)) == (g, d)
    nets = networks_of(system_id)
    assert {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()} == {"g": g, "d": d}


@EVERY
def test_blocks_have_the_published_sizes(system_id: str) -> None:
    nets = networks_of(system_id)
    sizes: dict[str, list[tuple[int, ...]]] = {"g": [], "d": []}
    for name, net in nets.items():
        for block in parts_of(net, Block):
            block.register_forward_hook(lambda _, x, y, name=name: sizes[name].append(tuple(y.shape[1:])))
    labels = torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        images = nets["g"].eval()(torch.randn(1, 128, generator=seeded(0)), labels)
        logits = nets["d"](images, labels)
    g = 256 if system_id == "sngan-32" else 128
    assert sizes["g"] == [(g, 8, 8), (g, 16, 16), (g, 32, 32)]
    assert sizes["d"] == [(128, 16, 16), (128, 8, 8), (128, 8, 8), (128, 8, 8)]
    assert images.shape == (1, 3, 32, 32)
    assert images.abs().max() <= 1
    assert logits.shape == (1,)


def _published_block(block: Block, x: Tensor, resample: Resample, first: bool, normalised: bool) -> Tensor:
    """The block as the papers and their code write it, with the shortcut at the larger size."""
    convolutions = [part for part in block.branch if isinstance(part, nn.Conv2d)]
    norms = [part for part in block.branch if isinstance(part, nn.BatchNorm2d)]

    def ahead(h: Tensor, index: int) -> Tensor:
        return relu(batch_norm(h, None, None, norms[index].weight, norms[index].bias, True) if normalised else h)

    def larger(h: Tensor) -> Tensor:
        return interpolate(h, scale_factor=2.0) if resample == "up" else h

    def smaller(h: Tensor) -> Tensor:
        return avg_pool2d(h, 2) if resample == "down" else h

    h = larger(x if first else ahead(x, 0))
    h = conv2d(h, convolutions[0].weight, convolutions[0].bias, padding=1)
    h = smaller(conv2d(ahead(h, 1), convolutions[1].weight, convolutions[1].bias, padding=1))
    learned = parts_of(block.shortcut, nn.Conv2d)
    shortcut = larger(x)
    for part in learned:
        assert isinstance(part, nn.Conv2d)
        shortcut = conv2d(shortcut, part.weight, part.bias)
    return h + smaller(shortcut)


@pytest.mark.parametrize(
    ("inputs", "resample", "kind", "first"),
    [(4, "up", "batch", False), (4, "down", "none", False), (4, "none", "none", False), (3, "down", "none", True)],
)
def test_a_block_equals_the_published_one(inputs: int, resample: Resample, kind: Norm, first: bool) -> None:
    torch.manual_seed(0)
    block = Block(inputs, 4, 0.0, resample, kind, first).double()
    x = torch.randn(2, inputs, 6, 6, dtype=torch.float64)
    expected = _published_block(block, x, resample, first, normalised=kind == "batch")
    assert torch.allclose(block(x), expected, atol=1e-12)
    assert block(x).shape[2] == {"up": 12, "down": 3, "none": 6}[resample]


def test_the_shortcut_is_the_identity_only_where_nothing_changes() -> None:
    x = torch.randn(1, 4, 6, 6)
    assert torch.equal(Block(4, 4, 0.0, "none").shortcut(x), x)
    assert len(parts_of(Block(4, 5, 0.0, "none").shortcut, nn.Conv2d)) == 1


@EVERY
def test_the_first_convolution_sees_the_image_itself_and_the_pooling_rectified_features(system_id: str) -> None:
    d, seen = networks_of(system_id, width=0.125)["d"], dict[str, Tensor]()
    parts_of(d, nn.Conv2d)[0].register_forward_pre_hook(lambda _, x: seen.update(image=x[0]))
    d.get_submodule("features").register_forward_hook(lambda _, x, y: seen.update(features=y))
    images = torch.rand(3, 3, 32, 32, generator=seeded(0)) - 1
    d(images, torch.zeros(3, dtype=torch.int64))
    assert torch.equal(seen["image"], images)
    assert seen["features"].min() == 0
    assert seen["features"].max() > 0


def test_sum_pooling_is_mean_pooling_times_the_64_positions() -> None:
    summed, mean = (networks_of("wgan-gp-32", width=0.125, pool=pool)["d"] for pool in ("sum", "mean"))
    images, labels = torch.rand(3, 3, 32, 32, generator=seeded(0)), torch.zeros(3, dtype=torch.int64)
    assert torch.allclose(summed(images, labels), 64 * mean(images, labels), rtol=1e-4)


@pytest.mark.parametrize(("system_id", "normalised"), [("sngan-32", True), ("wgan-gp-32", False)])
def test_spectral_norm_is_on_all_layers_of_sngans_discriminator_and_nowhere_else(
    system_id: str, normalised: bool
) -> None:
    nets = networks_of(system_id, width=0.125)
    layers = parts_of(nets["d"], *WEIGHTED)
    assert len(layers) == 2 * 4 + 2 + 1
    assert {is_parametrized(part) for part in layers} == {normalised}
    assert not any(is_parametrized(part) for part in parts_of(nets["g"], *WEIGHTED))


def test_spectral_norm_fits_the_initial_weights_before_any_step() -> None:
    for part in parts_of(networks_of("sngan-32", width=0.25)["d"].eval(), *WEIGHTED):
        assert isinstance(part.weight, Tensor)
        assert torch.linalg.matrix_norm(part.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.1)


@EVERY
def test_batch_norm_is_in_the_generator_alone(system_id: str) -> None:
    nets = networks_of(system_id, width=0.125)
    assert len(parts_of(nets["g"], nn.BatchNorm2d)) == 3 * 2 + 1
    assert not parts_of(nets["d"], nn.modules.batchnorm._NormBase, nn.GroupNorm)


def _trained_weights(net: nn.Module) -> dict[str, Tensor]:
    return {
        name.removesuffix(".weight").removesuffix(".parametrizations.weight.original"): parameter
        for name, parameter in net.named_parameters()
        if parameter.dim() > 1
    }


@EVERY
def test_initial_weights_are_glorots_with_a_gain_in_the_branches(system_id: str) -> None:
    for net in networks_of(system_id, width=0.5).values():
        for name, weight in _trained_weights(net).items():
            area = weight[0, 0].numel()
            gain = math.sqrt(2) if ".branch." in name else 1.0
            deviation = gain * math.sqrt(2 / ((weight.shape[0] + weight.shape[1]) * area))
            # A uniform law has this deviation and ends at sqrt(3) of it.
            assert weight.abs().max().item() <= deviation * math.sqrt(3) * 1.0001, name
            assert weight.std().item() == pytest.approx(deviation, rel=5 / math.sqrt(2 * weight.numel())), name
        assert not any(p.any() for name, p in net.named_parameters() if name.endswith("bias"))


@EVERY
def test_initial_weights_may_follow_the_configured_deviation(system_id: str) -> None:
    for net in networks_of(system_id, width=0.5, init="normal", init_std=0.07).values():
        for weight in _trained_weights(net).values():
            assert weight.std().item() == pytest.approx(0.07, rel=5 / math.sqrt(2 * weight.numel()))


@EVERY
def test_dropout_and_slope_reach_the_networks(system_id: str) -> None:
    nets = networks_of(system_id, width=0.125, dropout=0.37, slope=0.11)
    assert [part.p for part in parts_of(nets["d"], nn.Dropout)] == [0.37]
    for net in nets.values():
        assert {part.negative_slope for part in parts_of(net, nn.LeakyReLU)} == {0.11}


@EVERY
def test_the_systems_train_as_published(system_id: str) -> None:
    config = SYSTEMS[system_id].defaults
    assert isinstance(config, ResNetConfig)
    assert (config.g_lr, config.d_lr, config.beta1, config.beta2) == (2e-4, 2e-4, 0, 0.9)
    assert (config.batch, config.n_critic, config.latent, config.slope) == (64, 5, 128, 0)
    assert (lr_factor(config, 0), lr_factor(config, 50_000), lr_factor(config, 100_000)) == (1, 0.5, 0)
    published = {"sngan-32": ("hinge", "spectral", "sum"), "wgan-gp-32": ("wasserstein", "penalty", "mean")}
    assert (config.loss, config.lipschitz, config.pool) == published[system_id]
