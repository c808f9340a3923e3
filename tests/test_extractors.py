"""Extractors are trained or verified once, say who they are, and refuse what they do not suit."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor, nn

from trainers.data import ImageData
from trainers.data.files import digest
from trainers.errors import InputError
from trainers.evaluation import inception, lenet, weights
from trainers.evaluation.extractors import Extractor, ExtractorSpec, build_extractor, check_extractor
from trainers.evaluation.reference import reference_of

Pair = tuple[ImageData, ImageData]

# The official weights are in this format, and so is their stand-in.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")


def _tiny_data(split: str = "train", classes: int = 2, shape: tuple[int, ...] = (3, 20, 20)) -> ImageData:
    """Noise whose brightness is its class."""
    generator = torch.Generator().manual_seed(len(split))
    labels = torch.arange(40) % classes
    noise = torch.randint(0, 100, (40, *shape), generator=generator)
    return ImageData((noise + 100 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels, classes, "tiny", split)


@pytest.fixture
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lenet, "STEPS", (5, 5))


def _tiny_lenet(cache: Path) -> Extractor:
    return build_extractor(ExtractorSpec(), _tiny_data(), _tiny_data("test"), cache, "cpu")


# Specification


def test_a_bare_string_names_an_extractor_and_lenet_is_the_default() -> None:
    assert ExtractorSpec.model_validate("inception") == ExtractorSpec(name="inception")
    assert ExtractorSpec().name == "lenet"


@pytest.mark.parametrize(
    "bad",
    [
        "vgg",
        {"name": "lenet", "weights": "x.pt"},
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
    monkeypatch.setattr(lenet, "fit", lambda _: pytest.fail("trained again"))
    cached = build_extractor(ExtractorSpec(), *mnist_mini, cache_dir, "cpu")
    images = mnist_mini[1].images[:600]
    assert cached.id == mnist_mini_lenet.id
    assert torch.equal(cached(images).features, mnist_mini_lenet(images).features)


@pytest.mark.usefixtures("short_training")
@pytest.mark.parametrize("damage", ["bit", "truncated", "no summary"])
def test_a_damaged_cache_is_trained_again_to_the_same_weights(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = _tiny_lenet(tmp_path)
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
        after = _tiny_lenet(tmp_path)
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
    first = _tiny_lenet(tmp_path)
    gray = _tiny_data(shape=(1, 32, 32), classes=4)
    second = build_extractor(ExtractorSpec(), gray, gray, tmp_path, "cpu")
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


# Inception


class _Layers(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x, (32, 64))[:, 1:2].contiguous()


class _StandIn(nn.Module):
    """What clean-fid uses of the official module: `layers`, from [-1, 1] to 2048 features in any shape."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = _Layers()

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x)
        return features


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "stand-in.pt"
    torch.jit.save(torch.jit.script(_StandIn()), str(path))
    return path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(target: Path) -> None:
        target.write_bytes(b"half a file")
        raise OSError("connection lost")

    monkeypatch.setattr(weights, "download", fail)


def _build(spec: ExtractorSpec, cache: Path) -> Extractor:
    return build_extractor(spec, _tiny_data(), _tiny_data("test"), cache, "cpu")


def test_custom_weights_say_so_in_the_id(stand_in: Path, tmp_path: Path) -> None:
    spec = ExtractorSpec(name="inception", weights=stand_in, sha256=digest(stand_in))
    check_extractor(spec, tmp_path)
    assert _build(spec, tmp_path).id.startswith(f"inception-custom-{digest(stand_in)[:12]}-")


def test_inception_sees_images_as_clean_fid_prepares_them(stand_in: Path, tmp_path: Path) -> None:
    images = torch.randint(0, 256, (3, 3, 20, 20), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    seen = _build(ExtractorSpec(name="inception", weights=stand_in), tmp_path)(images)
    green = images[2, 1].float().numpy()
    resized = np.asarray(Image.fromarray(green).resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255)
    expected = torch.nn.functional.adaptive_avg_pool2d((torch.from_numpy(resized)[None] - 128) / 128, (32, 64))
    assert seen.logits is None
    torch.testing.assert_close(seen.features[2], expected.flatten())


def test_gray_counts_as_three_equal_channels(stand_in: Path, tmp_path: Path) -> None:
    extractor = _build(ExtractorSpec(name="inception", weights=stand_in), tmp_path)
    gray = torch.randint(0, 256, (2, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert torch.equal(extractor(gray).features, extractor(gray.expand(-1, 3, -1, -1)).features)


def test_batches_do_not_change_features(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = _tiny_data().images[:5]
    spec = ExtractorSpec(name="inception", weights=stand_in)
    whole = _build(spec, tmp_path)(images).features
    monkeypatch.setattr("trainers.evaluation.extractors.INCEPTION_BATCH", 2)
    torch.testing.assert_close(_build(spec, tmp_path)(images).features, whole)


def test_weights_with_another_checksum_are_refused(stand_in: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{stand_in} has the sha256 {digest(stand_in)}, not {'0' * 64}"):
        check_extractor(ExtractorSpec(name="inception", weights=stand_in, sha256="0" * 64), tmp_path)
    with pytest.raises(InputError, match=r"none\.pt does not exist"):
        check_extractor(ExtractorSpec(name="inception", weights=tmp_path / "none.pt"), tmp_path)
    shutil.copy(stand_in, tmp_path / weights.NAME)
    with pytest.raises(InputError, match=weights.SHA256):
        check_extractor(ExtractorSpec(name="inception"), tmp_path)


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.pt"
    path.write_bytes(b"no network")
    with pytest.raises(InputError, match=r"some\.pt is no TorchScript Inception"):
        _build(ExtractorSpec(name="inception", weights=path), tmp_path)


@pytest.mark.usefixtures("offline")
def test_missing_weights_are_one_sentence_that_says_where_the_file_belongs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="connection lost") as caught:
        check_extractor(ExtractorSpec(name="inception"), tmp_path)
    assert str(tmp_path / weights.NAME) in str(caught.value)
    assert weights.URL in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_download_of_something_else_never_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "download", lambda target: target.write_bytes(b"an error page"))
    with pytest.raises(InputError, match="what arrived has the sha256"):
        check_extractor(ExtractorSpec(name="inception"), tmp_path)
    assert not (tmp_path / weights.NAME).exists()


def test_a_good_download_is_kept(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SHA256", digest(stand_in))
    monkeypatch.setattr(weights, "download", lambda target: shutil.copyfile(stand_in, target))
    check_extractor(ExtractorSpec(name="inception"), tmp_path)
    monkeypatch.setattr(weights, "download", lambda target: pytest.fail("downloaded again"))
    extractor = _build(ExtractorSpec(name="inception"), tmp_path)
    assert extractor.id == f"inception-{digest(stand_in)[:12]}-float32-bicubic299"
    assert extractor.dim == inception.DIM
