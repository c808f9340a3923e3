"""A reference is computed batch by batch and knows what its features are of."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from trainers.data.images import ImageData
from trainers.errors import InputError
from trainers.evaluation import reference as reference_module
from trainers.evaluation.extractors import Extractor
from trainers.evaluation.frechet import gaussian_of
from trainers.evaluation.neighbours import COVERAGE_K, PRECISION_K, ball_radii
from trainers.evaluation.reference import reference_of

DIM = 5


def _data(count: int = 25) -> ImageData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return ImageData(images, torch.arange(count) % 3, 3, "noise", "train")


def _extractor(batch: int = 7, passes: list[int] | None = None, scale: float = 1.0) -> Extractor:
    weights = torch.randn(16, DIM, generator=torch.Generator().manual_seed(1)) * scale

    def forward(images: Tensor) -> tuple[Tensor, Tensor | None]:
        if passes is not None:
            passes.append(len(images))
        return images.flatten(1).float() @ weights, None

    return Extractor("linear", DIM, None, frozenset({1}), (4, 4), batch, forward)


@pytest.mark.parametrize("batch", [1, 7, 25, 100])
def test_its_moments_are_those_of_all_images_at_once(batch: int, tmp_path: Path) -> None:
    data = _data()
    found = reference_of(_extractor(batch), data, tmp_path)
    expected = gaussian_of(_extractor(100)(data.images).features)
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(found.cov, expected.cov, rtol=1e-5, atol=1e-2)
    assert (found.n, found.mean.dtype, found.cov.dtype) == (25, torch.float64, torch.float64)


def test_images_pass_once_and_batch_by_batch(tmp_path: Path) -> None:
    passes: list[int] = []
    extractor = _extractor(passes=passes)
    reference_of(extractor, _data(), tmp_path)
    assert passes == [7, 7, 7, 4]
    reference_of(extractor, _data(), tmp_path)
    assert len(passes) == 4


def test_kept_features_are_evenly_spaced_and_keep_their_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_module, "MOST_FEATURES", 10)
    data = _data()
    found = reference_of(_extractor(), data, tmp_path)
    chosen = [0, 2, 5, 7, 10, 12, 15, 17, 20, 22]
    torch.testing.assert_close(found.features, _extractor(100)(data.images[chosen]).features)
    assert torch.equal(found.labels, data.labels[chosen])
    assert found.n == 25


def test_what_was_kept_is_read_again(tmp_path: Path) -> None:
    first, again = (reference_of(_extractor(), _data(), tmp_path) for _ in range(2))
    for name in ("features", "labels", "mean", "cov"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert first.id == again.id


def test_a_file_that_lacks_labels_is_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = reference_of(_extractor(), _data(), tmp_path)
    path = next(tmp_path.glob("*.safetensors"))
    tensors = safetensors.torch.load_file(path)
    del tensors["labels"]
    safetensors.torch.save_file(tensors, path)
    with caplog.at_level(logging.WARNING):
        again = reference_of(_extractor(), _data(), tmp_path)
    assert "wrong shapes" in caplog.text
    assert torch.equal(again.labels, first.labels)


def test_balls_are_those_of_the_kept_features(tmp_path: Path) -> None:
    found = reference_of(_extractor(), _data(), tmp_path)
    assert torch.equal(found.precision_radii, ball_radii(found.features, PRECISION_K))
    assert torch.equal(found.coverage_radii, ball_radii(found.features, COVERAGE_K))


def test_all_its_tensors_move_together(tmp_path: Path) -> None:
    moved = reference_of(_extractor(), _data(), tmp_path).to("meta")
    assert {getattr(moved, name).device.type for name in ("features", "labels", "mean", "cov")} == {"meta"}


def test_what_has_no_reference_is_refused_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        reference_of(_extractor(), _data(1), tmp_path)
    with pytest.raises(InputError, match="not finite"):
        reference_of(_extractor(scale=math.nan), _data(), tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))
