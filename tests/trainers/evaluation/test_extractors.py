"""Extractors are trained or verified once, say who they are, and refuse what they do not suit."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from trainers.data.catalogue import load
from trainers.data.files import digest
from trainers.data.images import ImageData
from trainers.data.spec import DatasetSpec
from trainers.errors import InputError
from trainers.evaluation import classifier, cnn, lenet
from trainers.evaluation.extractors import Extractor, build_extractor, check_extractor
from trainers.evaluation.reference import reference_of
from trainers.evaluation.spec import ExtractorSpec
from trainers.names import ExtractorName

Pair = tuple[ImageData, ImageData]


def _tiny_data(split: str = "train", classes: int = 2, shape: tuple[int, ...] = (3, 20, 20)) -> ImageData:
    """Noise whose brightness is its class."""
    generator = torch.Generator().manual_seed(len(split))
    labels = torch.arange(40) % classes
    noise = torch.randint(0, 100, (40, *shape), generator=generator)
    return ImageData((noise + 100 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels, classes, "tiny", split)


@pytest.fixture
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    for network in (lenet, cnn):
        monkeypatch.setattr(network, "RECIPE", replace(network.RECIPE, steps=(5, 5)))


def _tiny(name: ExtractorName, cache: Path, **data: Any) -> Extractor:
    return build_extractor(ExtractorSpec(name=name), _tiny_data(**data), _tiny_data("test", **data), cache, "cpu")


# Specification


def test_a_bare_string_names_an_extractor_and_lenet_is_the_default() -> None:
    assert ExtractorSpec.model_validate("inception") == ExtractorSpec(name="inception")
    assert ExtractorSpec().name == "lenet"


@pytest.mark.parametrize(
    "bad",
    [
        "vgg",
        {"name": "lenet", "weights": "x.pt"},
        {"name": "cnn", "weights": "x.pt"},
        "custom",
        {"name": "lenet", "dtype": "float16"},
        {"name": "inception", "sha256": "0" * 64},
        {"name": "inception", "weights": "x.pt", "sha256": "short"},
        {"name": "inception", "layer": 3},
    ],
)
def test_options_that_make_no_sense_are_refused(bad: object) -> None:
    with pytest.raises(ValidationError):
        ExtractorSpec.model_validate(bad)


def test_a_cache_that_cannot_be_written_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        check_extractor(ExtractorSpec(), tmp_path / "file" / "cache")


# LeNet


def test_lenet_has_61706_parameters() -> None:
    assert sum(p.numel() for p in lenet.LeNet(channels=1, classes=10).parameters()) == 61_706


def test_lenet_recognises_the_digits_it_has_not_seen(mnist_mini_lenet: Extractor, mnist_mini: Pair) -> None:
    test = mnist_mini[1]
    seen = mnist_mini_lenet(test.images)
    assert seen.logits is not None
    assert tuple(seen.features.shape) == (2000, 84)
    assert seen.features.dtype == torch.float32
    assert float(seen.features.min()) >= 0
    assert float((seen.logits.argmax(1) == test.labels).float().mean()) >= 0.97


def test_the_cache_records_accuracy_and_checksum(
    mnist_mini_lenet: Extractor, mnist_mini: Pair, cache_dir: Path
) -> None:
    path = next(cache_dir.glob(f"lenet-{mnist_mini[0].sha256[:16]}-*.safetensors"))
    summary = json.loads(path.with_suffix(".json").read_text())
    assert summary["test_accuracy"] >= 0.97
    assert summary["sha256"] == digest(path)
    assert mnist_mini_lenet.id == f"lenet-{digest(path)[:12]}-float32-zeropad"


def test_the_cached_extractor_is_the_trained_one(
    mnist_mini_lenet: Extractor, mnist_mini: Pair, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "fit", lambda *_: pytest.fail("trained again"))
    cached = build_extractor(ExtractorSpec(), *mnist_mini, cache_dir, "cpu")
    images = mnist_mini[1].images[:600]
    assert cached.id == mnist_mini_lenet.id
    assert torch.equal(cached(images).features, mnist_mini_lenet(images).features)


@pytest.mark.usefixtures("short_training")
@pytest.mark.parametrize("name", ["lenet", "cnn"])
@pytest.mark.parametrize("damage", ["bit", "truncated", "no summary"])
def test_a_damaged_cache_is_trained_again_to_the_same_weights(
    damage: str, name: ExtractorName, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = _tiny(name, tmp_path)
    path = next(tmp_path.glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "truncated":
        path.write_bytes(content[:100])
    else:
        path.with_suffix(".json").unlink()
    with caplog.at_level(logging.WARNING):
        after = _tiny(name, tmp_path)
    assert "damaged" in caplog.text
    assert after.id == before.id
    assert torch.equal(after(_tiny_data().images).features, before(_tiny_data().images).features)


@pytest.mark.usefixtures("short_training")
def test_training_leaves_random_state_and_thread_count_alone() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    lenet.fit(_tiny_data())
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.usefixtures("short_training")
def test_other_data_has_another_extractor(tmp_path: Path) -> None:
    first = _tiny("lenet", tmp_path)
    second = _tiny("lenet", tmp_path, shape=(1, 32, 32), classes=4)
    assert (first.classes, second.classes) == (2, 4)
    assert first.id.endswith("bilinear")
    assert second.id.endswith("asis")


def test_digits_are_padded_with_nought() -> None:
    x = lenet.prepare(torch.full((1, 1, 28, 28), 255, dtype=torch.uint8))
    assert torch.equal(x[0, 0, 2:30, 2:30], torch.ones(28, 28))
    assert float(x.sum()) == 28 * 28


def test_data_of_one_class_has_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tiny has 1 class.*inception"):
        build_extractor(ExtractorSpec(), _tiny_data(classes=1), _tiny_data("test", 1), tmp_path, "cpu")


def test_images_of_another_kind_are_refused(mnist_mini_lenet: Extractor) -> None:
    for images in (torch.zeros(2, 3, 28, 28, dtype=torch.uint8), torch.zeros(2, 1, 32, 32, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="C, H, W"):
            mnist_mini_lenet(images)
    for images in (torch.zeros(2, 1, 28, 28), torch.zeros(0, 1, 28, 28, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="not uint8"):
            mnist_mini_lenet(images)


def test_features_need_no_gradient_and_leave_settings_alone(mnist_mini_lenet: Extractor, mnist_mini: Pair) -> None:
    precision = torch.backends.cuda.matmul.fp32_precision
    threads = torch.get_num_threads()
    assert not mnist_mini_lenet(mnist_mini[1].images[:2]).features.requires_grad
    assert torch.backends.cuda.matmul.fp32_precision == precision
    assert torch.get_num_threads() == threads


# The convolutional classifier


@pytest.mark.usefixtures("short_training")
@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 16, 31), (3, 32, 32), (4, 40, 16), (1, 64, 64)])
def test_the_cnn_takes_any_colours_and_sizes_from_16_pixels(shape: tuple[int, ...], tmp_path: Path) -> None:
    extractor = _tiny("cnn", tmp_path, shape=shape, classes=4)
    seen = extractor(_tiny_data(shape=shape).images)
    assert seen.logits is not None
    assert tuple(seen.features.shape) == (40, extractor.dim) == (40, cnn.DIM)
    assert tuple(seen.logits.shape) == (40, 4)
    assert float(seen.features.min()) >= 0
    path = next(tmp_path.glob("cnn-*.safetensors"))
    resize = "asis" if max(shape[1:]) <= 32 else "bilinear32"
    assert extractor.id == f"cnn-{digest(path)[:12]}-float32-{resize}"
    assert json.loads(path.with_suffix(".json").read_text())["test_accuracy"] <= 1


@pytest.mark.usefixtures("short_training")
def test_the_cnn_sees_one_image_whatever_is_beside_it(tmp_path: Path) -> None:
    extractor, images = _tiny("cnn", tmp_path), _tiny_data().images
    torch.testing.assert_close(extractor(images[3:4]).features[0], extractor(images).features[3])


@pytest.mark.slow
def test_the_cnn_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cnn, "RECIPE", replace(cnn.RECIPE, steps=(60, 60)))
    spec = DatasetSpec(name="shapes32")
    build_extractor(ExtractorSpec(name="cnn"), load(spec, "train"), load(spec, "test"), tmp_path, "cpu")
    assert json.loads(next(tmp_path.glob("cnn-*.json")).read_text())["test_accuracy"] >= 0.7


def test_images_too_small_for_the_cnn_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cnn: data set tiny has images of 15x20 pixels, allowed.*16x16"):
        _tiny("cnn", tmp_path, shape=(3, 15, 20))


@pytest.mark.usefixtures("short_training")
@pytest.mark.parametrize("name", ["lenet", "cnn"])
def test_float64_is_the_same_network_with_more_digits(name: ExtractorName, tmp_path: Path) -> None:
    data = _tiny_data()
    single, double = (
        build_extractor(ExtractorSpec(name=name, dtype=dtype), data, data, tmp_path, "cpu")
        for dtype in ("float32", "float64")
    )
    assert double.id == single.id.replace("float32", "float64")
    features = double(data.images).features
    assert features.dtype == torch.float64
    torch.testing.assert_close(single(data.images).features.double(), features, rtol=1e-4, atol=1e-5)
    assert not torch.equal(features, features.float().double())


# Reference


def test_a_reference_is_computed_once_and_replaced_when_damaged(
    mnist_mini_lenet: Extractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mnist_mini: Pair
) -> None:
    data = mnist_mini[1]
    monkeypatch.setattr("trainers.evaluation.reference.MOST_FEATURES", 300)
    first = reference_of(mnist_mini_lenet, data, tmp_path)
    features = mnist_mini_lenet(data.images).features.double().numpy()
    assert (first.n, tuple(first.features.shape)) == (2000, (300, 84))
    assert first.id.startswith("mnist-mini-test-")
    np.testing.assert_allclose(first.cov, np.cov(features, rowvar=False))
    path = next(tmp_path.glob("reference-*.safetensors"))
    written = path.stat().st_mtime_ns
    again = reference_of(mnist_mini_lenet, data, tmp_path)
    assert path.stat().st_mtime_ns == written
    assert torch.equal(again.features, first.features)
    path.write_bytes(b"damaged")
    assert torch.equal(reference_of(mnist_mini_lenet, data, tmp_path).cov, first.cov)


@pytest.mark.parametrize("what", ["features", "logits"])
def test_numbers_that_are_not_finite_are_refused_with_their_image(mnist_mini_lenet: Extractor, what: str) -> None:
    def forward(images: Tensor) -> tuple[Tensor, Tensor | None]:
        features, logits = torch.ones(len(images), 84), torch.ones(len(images), 10)
        {"features": features, "logits": logits}[what][images[:, 0, 0, 0] == 7] = float("nan")
        return features, logits

    images = torch.zeros(6, 1, 28, 28, dtype=torch.uint8)
    images[[3, 4]] = 7
    with pytest.raises(InputError, match=f"lenet-.*: {what} of 2 of 6 images are not finite, first those of image 3"):
        replace(mnist_mini_lenet, forward=forward, batch=2)(images)
