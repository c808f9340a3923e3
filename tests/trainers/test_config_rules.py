"""The dimensions worth searching are fields with types and bounds; what contradicts itself is refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import annotated_types
import pytest
import torch
from torch import nn

from trainers.__main__ import main
from trainers.advice import warnings_of
from trainers.catalogue import SYSTEMS
from trainers.config import Config, configure, overlay
from trainers.errors import InputError
from trainers.evaluation.extractors import Extractor

EVERY = pytest.mark.parametrize("system_id", SYSTEMS)

#: What published reports search or vary: a field, the ends of its sensible range or all its choices, and a system.
DIMENSIONS: list[tuple[str, tuple[Any, ...], str]] = [
    ("g_lr", (1e-5, 1e-3), "das-gan"),
    ("d_lr", (1e-5, 2e-3), "das-gan"),
    ("beta1", (0, 0.9), "das-gan"),
    ("beta2", (0.9, 0.999), "das-gan"),
    ("optimizer", ("adam", "rmsprop", "sgd"), "das-gan"),
    ("slope", (0.01, 0.3), "das-gan"),
    ("latent_law", ("normal", "uniform"), "das-gan"),
    ("dropout_place", ("features", "logit"), "das-gan"),
    ("upsampling", ("nearest", "transposed", "shuffle"), "toh-dcgan-3"),
    ("g_activation", ("relu", "leaky", "prelu"), "toh-dcgan-3"),
    ("d_activation", ("relu", "leaky", "prelu"), "toh-dcgan-3"),
    ("init_std", (0.005, 0.1), "das-gan"),
    ("clip_value", (1e-3, 0.1), "das-gan"),
    ("clip_scope", ("trainable", "weights", "all-but-norm"), "das-gan"),
    (
        "lipschitz",
        ("none", "clip", "penalty", "spectral", "clip+penalty", "clip+spectral", "penalty+spectral"),
        "das-gan",
    ),
    ("penalty_weight", (0.1, 100), "das-gan"),
    ("n_critic", (1, 10), "das-gan"),
    ("smoothing", ("none", "fixed", "random", "two-sided"), "das-gan"),
    ("smoothing_strength", (0, 0.3), "das-gan"),
    ("label_flip", (0, 0.3), "das-gan"),
    ("dropout", (0, 0.6), "das-gan"),
    ("width", (0.25, 4), "das-gan"),
    ("extra_layer", (False, True), "monir-dcgan"),
    ("depth", (3, 4), "narman-cgan"),
    ("kernel", (4, 5), "narman-cgan"),
    ("d_kernel", (3, 4, 5), "toh-dcgan-3"),
    ("upsampling", ("nearest", "transposed"), "toh-dcgan-3"),
    ("g_norm", ("none", "batch", "instance", "layer"), "toh-dcgan-3"),
    ("d_norm", ("none", "batch", "instance", "layer"), "toh-dcgan-3"),
    ("g_spectral", (False, True), "toh-dcgan-3"),
    ("attention", ("none", "g", "both"), "toh-dcgan-3"),
    ("attention_size", (8, 16), "toh-dcgan-3"),
    ("attention_reduction", (1, 2, 4, 8), "monir-sagan"),
    ("skip", (False, True), "toh-dcgan-3"),
    ("latent", (16, 512), "das-gan"),
    ("batch", (32, 512), "das-gan"),
    ("kimg", (750, 50_000), "das-gan"),
    ("sampling", ("random", "shuffled", "sequential"), "das-gan"),
    ("schedule", ("constant", "exponential", "cosine", "linear"), "das-gan"),
    ("schedule_rate", (0.9, 0.999), "das-gan"),
    ("schedule_period", (1, 500), "das-gan"),
    ("cutmix", (0, 1), "das-gan"),
    ("cutmix_alpha", (0.2, 2), "das-gan"),
    ("saturation", (0, 0.5), "das-gan"),
    ("sharpening", (0, 1), "das-gan"),
    ("oversampling", (50_000, 120_000), "das-gan"),
    ("loss", ("bce", "wasserstein", "hinge", "least-squares"), "das-gan"),
]


@pytest.mark.parametrize(("name", "values", "system_id"), DIMENSIONS)
def test_a_dimension_takes_its_whole_range_and_nothing_of_another_kind(
    name: str, values: tuple[Any, ...], system_id: str
) -> None:
    defaults = SYSTEMS[system_id].defaults
    for value in values:
        assert getattr(configure(defaults, {name: value}, "test"), name) == value
    with pytest.raises(InputError, match=f"test: {name}: .*'seven'"):
        configure(defaults, {name: "seven"}, "test")


@EVERY
def test_every_field_has_one_line_of_meaning_a_default_and_a_range(system_id: str) -> None:
    for name, field in type(SYSTEMS[system_id].defaults).model_fields.items():
        text = field.description or ""
        assert 0 < len(text) <= 120, name
        assert "\n" not in text, name
        assert not field.is_required(), name
        if field.annotation in (int, float):
            bounded = [part for part in field.metadata if isinstance(part, annotated_types.Ge | annotated_types.Gt)]
            assert bounded, f"{name} has no lower bound"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"loss": "wasserstein", "smoothing": "fixed"},
            "'fixed' but loss wasserstein has no labels: allowed is 'none'",
        ),
        ({"loss": "hinge", "smoothing": "two-sided"}, "'two-sided' but loss hinge has no labels: allowed is 'none'"),
        ({"loss": "wasserstein", "label_flip": 0.1}, "0.1 but loss wasserstein has no labels: allowed is 0"),
        ({"lipschitz": "clip", "clip_value": 0}, "clip_value: input should be greater than 0, got 0"),
        ({"lipschitz": "clip", "clip_value": -0.01}, "clip_value: input should be greater than 0, got -0.01"),
        ({"lipschitz": "penalty", "cutmix": 0.5}, "a gradient penalty needs unmixed labels: allowed is 0"),
        ({"lipschitz": "clip+penalty", "cutmix": 0.5}, "a gradient penalty needs unmixed labels: allowed is 0"),
        ({"loss": "least-squares", "saturating": True}, "loss is 'least-squares': allowed with bce only"),
    ],
)
def test_a_contradiction_is_an_error_with_its_reason(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError) as caught:
        configure(Config(), settings, "test")
    assert reason in str(caught.value)
    for name in settings:  # each half alone is sound, unless it is out of bounds by itself
        rest = {other: value for other, value in settings.items() if other != name}
        assert "clip_value" in rest or configure(Config(), rest, "test")


def _on_meta(system_id: str, **settings: Any) -> dict[str, nn.Module]:
    system = SYSTEMS[system_id]
    with torch.device("meta"):
        return system.gan(overlay(system.defaults, settings), 10).networks()


@EVERY
def test_discriminators_give_logits_and_no_kernel_is_smaller_than_its_stride(system_id: str) -> None:
    nets = _on_meta(system_id)
    assert not any(isinstance(part, nn.Sigmoid) for part in nets["d"].modules())
    for part in (part for net in nets.values() for part in net.modules()):
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            assert all(kernel >= stride for kernel, stride in zip(part.kernel_size, part.stride, strict=True)), part


@EVERY
def test_no_system_is_doubtful_by_default(system_id: str) -> None:
    assert warnings_of(SYSTEMS[system_id], SYSTEMS[system_id].defaults) == []


@pytest.mark.parametrize(
    ("system_id", "settings", "doubt"),
    [
        ("monir-dcgan", {"lipschitz": "penalty"}, "batch normalisation"),
        ("narman-cgan", {"lipschitz": "penalty+spectral"}, "batch normalisation"),
        ("das-gan", {"lipschitz": "penalty"}, None),  # batch norm in G alone
        ("monir-dcgan", {"lipschitz": "clip+spectral"}, None),
        ("toh-dcgan-3", {"lipschitz": "penalty"}, "batch normalisation"),
        ("toh-dcgan-3", {"lipschitz": "penalty", "d_norm": "instance"}, None),
        ("toh-dcgan-3", {"lipschitz": "penalty", "d_norm": "layer"}, None),
        ("das-gan", {"loss": "wasserstein"}, "nothing bounds the critic"),
        ("das-gan", {"loss": "wasserstein", "lipschitz": "clip"}, None),
        ("das-gan", {"saturation": 0.2}, "the images are gray"),
        ("monir-dcgan", {"saturation": 0.2}, None),
    ],
)
def test_a_doubtful_combination_is_told_and_no_other(
    system_id: str, settings: dict[str, Any], doubt: str | None
) -> None:
    system = SYSTEMS[system_id]
    found = warnings_of(system, overlay(system.defaults, settings))
    assert len(found) == (doubt is not None)
    assert all(doubt in text for text in found if doubt)


def test_looking_for_doubts_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    system = SYSTEMS["monir-sagan"]
    assert warnings_of(system, overlay(system.defaults, {"lipschitz": "penalty+spectral"}))
    assert torch.equal(torch.get_rng_state(), before)


def test_training_alone_warns_once_and_trains_all_the_same(
    cache_dir: Path, mnist_mini_lenet: Extractor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [part for text in ("lipschitz=penalty", "width=0.1", "batch=20") for part in ("--set", text)]
    options = ["--kimg", "0.04", "--every", "0.02", "--samples", "20", *settings]
    assert main(["narman-cgan", *options, "--cache", str(cache_dir), "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    assert told.err.count("warning: lipschitz has a gradient penalty") == 1
    assert told.out.count("kid") == 2
