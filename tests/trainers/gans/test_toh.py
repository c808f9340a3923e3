"""What `toh-2024` states of each system, and what holds for every configuration of the family."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from trainers.config import Config, configure, overlay
from trainers.data.batches import seeded
from trainers.data.images import ImageData
from trainers.data.shapes import draw
from trainers.errors import InputError
from trainers.gans.toh import SYSTEMS, Generator, TohConfig
from trainers.layers import SelfAttention
from trainers.trainer import Trainer

EVERY = pytest.mark.parametrize("system_id", SYSTEMS)
WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
COUNTS = {
    "toh-dcgan-1": (1_007_363, 522_497),
    "toh-dcgan-2": (1_223_171, 142_785),
    "toh-dcgan-3": (1_051_139, 663_745),
    "toh-dcgan-4": (1_103_879, 662_977),
    "toh-dcgan-5": (785_155, 663_745),
    "toh-cgan-1": (1_374_211, 2_768_833),
    "toh-cgan-2": (1_375_363, 2_770_625),
    "toh-cgan-3": (1_383_619, 2_768_833),
    "toh-wgan-1": (1_007_363, 142_529),
    "toh-wgan-2": (1_222_531, 2_758_593),
    "toh-sadcgan-1": (1_108_996, 2_760_385),
    "toh-sadcgan-2": (1_108_996, 2_765_506),
    "toh-improved-dcgan-3": (1_051_139, 663_745),
    "toh-improved-cgan-1": (1_374_211, 2_768_833),
}


def _networks(system_id: str, **settings: Any) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    system = SYSTEMS[system_id]
    return system.gan(overlay(system.defaults, settings), 10).networks()


def _images_and_logits(nets: dict[str, nn.Module], count: int = 2) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count)
    with torch.no_grad():
        images = nets["g"](torch.randn(count, 100, generator=seeded(0)), labels)
        return images, nets["d"](images, labels)


def _kinds(net: nn.Module, *kinds: type[nn.Module]) -> list[nn.Module]:
    return [part for part in net.modules() if isinstance(part, kinds)]


@EVERY
def test_networks_have_the_tabled_number_of_parameters(system_id: str) -> None:
    nets = _networks(system_id)
    assert tuple(sum(p.numel() for p in nets[name].parameters()) for name in "gd") == COUNTS[system_id]


@EVERY
def test_full_width_networks_make_images_in_the_range_of_tanh_and_one_logit_each(system_id: str) -> None:
    images, logits = _images_and_logits(_networks(system_id))
    assert images.shape == (2, 3, 32, 32)
    assert 0 < images.abs().max() <= 1
    assert logits.shape == (2,)


@EVERY
def test_a_quarter_of_the_width_leaves_a_quarter_of_the_filters(system_id: str) -> None:
    full, quarter = _networks(system_id), _networks(system_id, width=0.25)
    for name in "gd":
        wide, narrow = (_kinds(nets[name], nn.Conv2d, nn.ConvTranspose2d) for nets in (full, quarter))
        # The output convolution's three channels are not filters.
        filters = [conv.out_channels // 4 if conv.out_channels > 3 else 3 for conv in wide]  # type: ignore[operator]
        assert [conv.out_channels for conv in narrow] == filters
    images, logits = _images_and_logits(quarter)
    assert images.shape == (2, 3, 32, 32)
    assert logits.shape == (2,)


@EVERY
def test_spectral_norm_is_where_the_report_has_it_and_nowhere_else(system_id: str) -> None:
    # Flags of the weighted layers in order, from the input to the output.
    expected = {
        "toh-cgan-2": {"g": [0, 1, 1, 1, 0], "d": [0] * 5},
        "toh-cgan-3": {"g": [0, 1, 1, 1, 0, 0], "d": [0] * 5},
        "toh-dcgan-4": {"g": [0] * 5, "d": [1] * 4},
        "toh-wgan-2": {"g": [0] * 4, "d": [1, 1, 1, 1, 0]},
    }
    found = {
        name: [int(is_parametrized(part)) for part in _kinds(net, *WEIGHTED)]
        for name, net in _networks(system_id, width=0.125).items()
    }
    assert found == expected.get(system_id, {name: [0] * len(flags) for name, flags in found.items()})


@EVERY
def test_attention_sees_the_16x16_maps_of_64_channels_in_the_sadcgans_alone(system_id: str) -> None:
    nets, seen = _networks(system_id), dict[str, list[tuple[int, ...]]]()
    for name, net in nets.items():
        for part in _kinds(net, SelfAttention):
            part.register_forward_pre_hook(lambda _, x, name=name: seen.setdefault(name, []).append(tuple(x[0].shape)))
    _images_and_logits(nets)
    place = [(2, 64, 16, 16)]
    assert seen == {"toh-sadcgan-1": {"g": place}, "toh-sadcgan-2": {"g": place, "d": place}}.get(system_id, {})


@EVERY
def test_activations_are_leaky_but_for_dcgan_4(system_id: str) -> None:
    nets = _networks(system_id, width=0.125)
    used = {name: {type(part) for part in _kinds(net, nn.ReLU, nn.LeakyReLU, nn.PReLU)} for name, net in nets.items()}
    leaky: dict[str, set[type]] = {"g": {nn.LeakyReLU}, "d": {nn.LeakyReLU}}
    assert used == ({"g": {nn.PReLU}, "d": {nn.ReLU}} if system_id == "toh-dcgan-4" else leaky)


@EVERY
def test_dropout_slope_and_initial_deviation_reach_the_networks(system_id: str) -> None:
    nets = _networks(system_id, width=0.5, dropout=0.37, slope=0.125, init_std=0.07)
    assert [part.p for part in _kinds(nets["d"], nn.Dropout)] == [0.37]
    for net in nets.values():
        assert {part.negative_slope for part in _kinds(net, nn.LeakyReLU)} <= {0.125}
        assert {part.init for part in _kinds(net, nn.PReLU)} <= {0.125}
        for layer in _kinds(net, *WEIGHTED):
            own = dict(layer.named_parameters())
            weight = own.get("weight", own.get("parametrizations.weight.original"))
            assert weight is not None
            # Five standard errors of the estimated deviation.
            assert weight.std().item() == pytest.approx(0.07, rel=5 / math.sqrt(2 * weight.numel()))
            assert "bias" not in own or not own["bias"].any()


def _trainer(system_id: str, **settings: Any) -> Trainer:
    images, labels = draw(16, seed=0)
    data = ImageData(torch.from_numpy(images), torch.from_numpy(labels), classes=10, name="shapes", split="train")
    config = overlay(SYSTEMS[system_id].defaults, {"batch": 4, "width": 0.125, **settings})
    return Trainer(SYSTEMS[system_id], config, data)


@EVERY
def test_losses_are_finite_and_every_parameter_learns(system_id: str) -> None:
    trainer = _trainer(system_id)
    before = {name: {k: p.clone() for k, p in net.named_parameters()} for name, net in trainer.nets.items()}
    losses = trainer.advance(3 * 4)
    assert all(math.isfinite(value) for value in losses.values())
    for name, net in trainer.nets.items():
        still = [k for k, p in net.named_parameters() if torch.equal(p, before[name][k])]
        # Batch norm cancels the bias before it; a Wasserstein critic's last bias cancels between real and generated.
        cancelled = len(_kinds(net, nn.BatchNorm2d)) + int(name == "d" and trainer.config.loss == "wasserstein")
        assert all(key.endswith("bias") for key in still)
        assert len(still) <= cancelled


def test_a_critic_with_attention_and_layer_norm_takes_a_gradient_penalty() -> None:
    losses = _trainer("toh-sadcgan-2", loss="wasserstein", lipschitz="penalty+spectral", d_norm="layer").advance(8)
    assert losses["penalty"] > 0
    assert all(math.isfinite(value) for value in losses.values())


@pytest.mark.parametrize(("attention_size", "channels"), [(8, 128), (16, 64), (32, 32)])
def test_attention_can_be_moved(attention_size: int, channels: int) -> None:
    nets = _networks("toh-sadcgan-2", attention_size=attention_size, d_stem=32)
    seen = []
    for net in nets.values():
        (attention,) = _kinds(net, SelfAttention)
        attention.register_forward_pre_hook(lambda _, x: seen.append(tuple(x[0].shape)))
    _images_and_logits(nets)
    assert seen == [(2, channels, attention_size, attention_size)] * 2


@pytest.mark.parametrize(
    ("settings", "sound", "reason"),
    [
        ({"attention": "g", "g_output_doubles": True}, {"attention": "none"}, "g_output_doubles leaves G's stages"),
        ({"attention": "both"}, {"d_stem": 8}, "D has such a stage only with a d_stem"),
        ({"attention": "both"}, {"attention": "g"}, "D has such a stage only with a d_stem"),
    ],
)
def test_attention_at_full_size_needs_a_stage_there(
    settings: dict[str, Any], sound: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=f"attention_size is 32 but {reason}.*: allowed is 8 or 16"):
        configure(TohConfig(), {"attention_size": 32, **settings}, "sweep")
    configure(TohConfig(), {"attention_size": 32, **settings, **sound}, "sweep")
    configure(TohConfig(), {"attention_size": 16, **settings}, "sweep")


@pytest.mark.parametrize("g_spectral", [False, True])
def test_shuffled_doubling_convolves_to_four_times_the_filters(g_spectral: bool) -> None:
    nets = _networks("toh-dcgan-3", upsampling="shuffle", g_spectral=g_spectral)
    convolutions = [part for part in nets["g"].modules() if isinstance(part, nn.Conv2d)]
    assert [(part.in_channels, part.out_channels) for part in convolutions] == [(128, 512), (128, 256), (64, 3)]
    assert [is_parametrized(part) for part in convolutions] == [g_spectral, g_spectral, False]
    g, d = COUNTS["toh-dcgan-3"]
    more = 3 * (128 * 128 * 9 + 128) + 3 * (128 * 64 * 9 + 64)
    assert tuple(sum(p.numel() for p in nets[name].parameters()) for name in "gd") == (g + more, d)
    assert _images_and_logits(nets)[0].shape == (2, 3, 32, 32)


def test_a_shuffled_output_makes_each_colour_of_four_channels() -> None:
    g = _networks("toh-dcgan-5", upsampling="shuffle", width=0.25)["g"].eval()
    assert isinstance(g, Generator)
    (convolution,) = _kinds(g.output, nn.Conv2d)
    seen: list[Tensor] = []
    convolution.register_forward_hook(lambda _, x, y: seen.append(y))
    with torch.no_grad():
        images = g(torch.randn(2, 100, generator=seeded(1)), torch.arange(2))
    assert seen[0].shape == (2, 12, 16, 16)
    assert torch.equal(images[:, 1, 1::2, 0::2], seen[0][:, 4 + 2].tanh())  # green, lower left of every square


def test_a_spectrally_normalised_critic_normalises_its_attention() -> None:
    d = _networks("toh-sadcgan-2", lipschitz="spectral")["d"]
    assert all(is_parametrized(part) for part in _kinds(d, *WEIGHTED))


def test_the_skip_is_a_1x1_convolution_of_the_enlarged_first_stage() -> None:
    g = _networks("toh-cgan-3", width=0.25, g_norm="none")["g"]
    assert isinstance(g, Generator)
    assert g.skip is not None
    z, labels = torch.randn(2, 100, generator=seeded(1)), torch.tensor([3, 7])
    kept: dict[str, Tensor] = {}
    for name in ("early", "late"):
        g.get_submodule(name).register_forward_hook(lambda _, x, y, name=name: kept.update({name: y}))
    images = g.eval()(z, labels)
    large = kept["early"].repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.allclose(g.output(kept["late"] + g.skip(large)), images, atol=1e-6)
    assert not torch.allclose(g.output(kept["late"]), images, atol=1e-6)


def _alternatives() -> list[tuple[str, Any]]:
    own = {name: field.annotation for name, field in TohConfig.model_fields.items() if name not in Config.model_fields}
    words = {name: (False, True) if kind is bool else get_args(kind) for name, kind in own.items()}
    return [(name, value) for name, values in words.items() if not name.endswith("filters") for value in values]


@pytest.mark.parametrize("system_id", ["toh-dcgan-1", "toh-dcgan-5", "toh-cgan-3"])
def test_every_choice_of_every_field_builds(system_id: str) -> None:
    alternatives = _alternatives()
    assert len(alternatives) > 20
    for name, value in alternatives:
        settings = {"width": 0.0625, "attention": "both", name: value}
        if name == "attention_size":
            settings |= {"d_stem": 16, "g_output_doubles": False}  # so that there is a stage of each size
        images, logits = _images_and_logits(_networks(system_id, **settings))
        assert images.shape == (2, 3, 32, 32), (name, value)
        assert logits.isfinite().all(), (name, value)


@pytest.mark.parametrize("doubles", [False, True])
@pytest.mark.parametrize("attention_size", [8, 16])
@pytest.mark.parametrize("settings", [
    {"g_filters": [8, 8, 8], "d_filters": [8, 8]}, {"g_filters": [8] * 4, "d_filters": [8] * 4, "d_stem": 8}
], ids=["shortest", "longest"])  # fmt: skip
def test_every_depth_keeps_the_stage_that_attention_follows(
    settings: dict[str, Any], attention_size: int, doubles: bool
) -> None:
    chosen = {"attention": "both", "attention_size": attention_size, "g_output_doubles": doubles, **settings}
    nets = _networks("toh-dcgan-3", **chosen)
    assert [len(_kinds(nets[name], SelfAttention)) for name in "gd"] == [1, 1]
    assert _images_and_logits(nets)[0].shape == (2, 3, 32, 32)


def test_every_field_is_described() -> None:
    assert all(field.description for field in TohConfig.model_fields.values())


@EVERY
def test_a_configuration_equals_its_own_json(system_id: str) -> None:
    dumped = SYSTEMS[system_id].defaults.model_dump()
    assert json.loads(json.dumps(dumped)) == dumped
    assert overlay(TohConfig(), dumped) == SYSTEMS[system_id].defaults


@pytest.mark.parametrize(
    ("key", "value"), [("g_filters", [8, 8]), ("d_filters", [8] * 5), ("d_filters", [8, 0]), ("d_kernel", 6)]
)
def test_structures_that_do_not_fit_are_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(InputError, match=f"sweep: {key}"):
        configure(TohConfig(), {key: value}, "sweep")


def test_wasserstein_systems_train_as_stated() -> None:
    for system_id, lipschitz in [("toh-wgan-1", "clip"), ("toh-wgan-2", "spectral")]:
        config = SYSTEMS[system_id].defaults
        assert (config.loss, config.lipschitz, config.n_critic) == ("wasserstein", lipschitz, 5)
        assert (config.optimizer, config.g_lr, config.d_lr, config.beta2) == ("rmsprop", 5e-5, 5e-5, 0.99)
