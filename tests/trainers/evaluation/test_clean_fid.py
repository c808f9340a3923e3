"""Scores are clean-fid's own: the same features, the same distances, from the same files, with the same network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from tests.support.random_inception import write_random_inception
from trainers.data.catalogue import load
from trainers.data.images import ImageData
from trainers.data.spec import DatasetSpec
from trainers.evaluation import cnn, inception, weights
from trainers.evaluation.extractors import Extractor, build_extractor
from trainers.evaluation.frechet import fid, gaussian_of
from trainers.evaluation.kid import kid
from trainers.evaluation.official import clean_fid
from trainers.evaluation.resize import resize
from trainers.evaluation.spec import ExtractorSpec
from trainers.names import ExtractorName

cleanfid = clean_fid()

# The official weights are in this format, and so is their stand-in.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*mode.*parameter is deprecated:DeprecationWarning"),
]

Floats = NDArray[np.floating[Any]]
Model = Callable[[Tensor], Tensor]

#: Of the norm of an image's features.
TOLERANCE = 1e-4


def _images(size: int, count: int, seed: int = 0) -> Tensor:
    """Soft blobs of colour with some noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator) * 255
    smooth = nn.functional.interpolate(coarse, (size, size), mode="bicubic")
    noise = torch.randn(count, 3, size, size, generator=generator) * 12
    return (smooth + noise).round().clamp(0, 255).to(torch.uint8)


def _folder(images: Tensor, folder: Path) -> str:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number:05}.png")
    return str(folder)


def _as_clean_fid(images: Tensor, model: Model) -> Floats:
    """Its resize and its loop over batches, without files."""
    resizer = build_resizer("clean")
    resized = np.stack([resizer(image.permute(1, 2, 0).numpy()) for image in images]).transpose(0, 3, 1, 2)
    batches = torch.from_numpy(resized).split(8)
    return np.concatenate([cleanfid.get_batch_features(batch, model, torch.device("cpu")) for batch in batches])


def _relative_distances(ours: Tensor, theirs: Floats) -> Tensor:
    expected = torch.from_numpy(theirs).double()
    distances: Tensor = (ours.double() - expected).norm(dim=1) / expected.norm(dim=1)
    return distances


def _data(images: Tensor) -> ImageData:
    return ImageData(images, torch.zeros(len(images), dtype=torch.int64), 1, "blobs", "train")


# Inception


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a file that stands in for the official one, under the official name."""
    folder = tmp_path_factory.mktemp("inception")
    write_random_inception(folder / weights.NAME, resize(_images(32, 8, seed=1), inception.SIZE))
    return folder


@pytest.fixture(scope="module")
def their_inception(official: Path) -> Model:
    model: Model = InceptionV3W(str(official), download=False)
    return model


def _inception(official: Path, name: ExtractorName = "inception", dtype: str = "float32") -> Extractor:
    spec = ExtractorSpec.model_validate({"name": name, "weights": official / weights.NAME, "dtype": dtype})
    data = _data(_images(32, 2))
    return build_extractor(spec, data, data, official, "cpu")


@pytest.fixture(scope="module")
def our_inception(official: Path) -> Extractor:
    return _inception(official)


def test_the_stand_in_tells_images_apart(our_inception: Extractor) -> None:
    features = our_inception(_images(32, 6)).features
    spread = (features - features.mean(dim=0)).norm(dim=1).mean() / features.norm(dim=1).mean()
    assert 0.05 < float(spread) < 1
    assert 0.01 < float(features.mean()) < 100


@pytest.mark.parametrize("size", [28, 32, 64, 128, 400])
def test_inception_features_are_clean_fids(size: int, our_inception: Extractor, their_inception: Model) -> None:
    images = _images(size, 4, seed=size)
    distances = _relative_distances(our_inception(images).features, _as_clean_fid(images, their_inception))
    assert float(distances.max()) <= TOLERANCE


def test_features_of_the_plain_network_are_clean_fids_and_the_scripted_ones(
    official: Path, our_inception: Extractor, their_inception: Model
) -> None:
    images = _images(32, 4)
    plain = _inception(official, "inception-pt")(images).features
    assert float(_relative_distances(plain, _as_clean_fid(images, their_inception)).max()) <= TOLERANCE
    assert float(_relative_distances(plain, our_inception(images).features.numpy()).max()) <= TOLERANCE


def test_in_float64_the_plain_network_is_the_scripted_one(official: Path) -> None:
    images = _images(32, 2)
    plain, scripted = (_inception(official, name, "float64")(images).features for name in ("inception-pt", "inception"))
    assert plain.dtype == torch.float64
    assert float(_relative_distances(plain, scripted.numpy()).max()) <= 1e-10


@pytest.mark.slow
def test_fid_from_files_is_clean_fids_on_inception_features(
    our_inception: Extractor, their_inception: Model, tmp_path: Path
) -> None:
    # 16 of 2048 features: a matrix root of 2048 x 2048 takes a minute.
    ours, theirs = _fids(our_inception, lambda x: their_inception(x)[:, :16], 24, tmp_path, dims=16)
    assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.slow
def test_fid_from_files_is_clean_fids_on_all_inception_features(
    our_inception: Extractor, their_inception: Model, tmp_path: Path
) -> None:
    ours, theirs = _fids(our_inception, their_inception, 64, tmp_path, dims=inception.DIM)
    assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.slow
def test_fid_from_files_is_clean_fids_in_float64(official: Path, tmp_path: Path) -> None:
    script = weights.load_script("inception", official / weights.NAME, "cpu").double()

    def theirs(x: Tensor) -> Tensor:
        features: Tensor = script.layers((x.double() - 128) / 128).view(len(x), -1)[:, :16]
        return features

    ours, expected = _fids(_inception(official, dtype="float64"), theirs, 24, tmp_path, dims=16)
    assert ours == pytest.approx(expected, rel=1e-4)


def _fids(ours: Extractor, theirs: Model, count: int, folder: Path, dims: int) -> tuple[float, float]:
    """Our FID on the first `dims` features and clean-fid's, from the same PNG files."""
    generated, real = _images(32, count, seed=2), _images(32, count, seed=3) // 2
    value = fid(ours(generated).features[:, :dims], gaussian_of(ours(real).features[:, :dims]))
    return value, _clean_fid(generated, real, theirs, folder)


def _clean_fid(generated: Tensor, real: Tensor, model: Model, folder: Path, **options: Any) -> float:
    return float(
        cleanfid.compute_fid(
            _folder(generated, folder / "generated"),
            _folder(real, folder / "real"),
            custom_feat_extractor=model,
            num_workers=0,
            device=torch.device("cpu"),
            verbose=False,
            **options,
        )
    )


# The convolutional classifier


@pytest.fixture(scope="module")
def shapes() -> tuple[ImageData, ImageData]:
    spec = DatasetSpec(name="shapes32")
    return load(spec, "train"), load(spec, "test")


@pytest.fixture(scope="module")
def short_cnn(
    shapes: tuple[ImageData, ImageData], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Extractor]]:
    """By type; trained for some steps only."""
    cache = tmp_path_factory.mktemp("cnn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cnn, "RECIPE", replace(cnn.RECIPE, steps=(40, 40)))
        yield lambda dtype: build_extractor(
            ExtractorSpec.model_validate({"name": "cnn", "dtype": dtype}), *shapes, cache, "cpu"
        )


def _as_model(extractor: Extractor) -> Model:
    """A model of clean-fid's: from its float [N, 3, H, W] in [0, 255] to features."""
    return lambda x: extractor.forward(x.to(torch.uint8))[0]


def _unchanged(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return image.astype(np.float32)


@pytest.mark.slow
def test_features_of_files_are_ours(
    short_cnn: Callable[[str], Extractor], shapes: tuple[ImageData, ImageData], tmp_path: Path
) -> None:
    images, extractor = shapes[1].images[:60], short_cnn("float32")
    theirs = cleanfid.get_folder_features(
        _folder(images, tmp_path / "images"),
        _as_model(extractor),
        num_workers=0,
        device=torch.device("cpu"),
        custom_fn_resize=_unchanged,
        verbose=False,
    )
    assert float(_relative_distances(extractor(images).features, theirs).max()) <= TOLERANCE


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("float64", 1e-4)])
def test_fid_from_files_is_clean_fids_on_the_classifiers_features(
    dtype: str,
    tolerance: float,
    short_cnn: Callable[[str], Extractor],
    shapes: tuple[ImageData, ImageData],
    tmp_path: Path,
) -> None:
    extractor = short_cnn(dtype)
    generated, real = shapes[1].images[:600] // 2, shapes[0].images[:600]
    ours = fid(extractor(generated).features, gaussian_of(extractor(real).features))
    theirs = _clean_fid(generated, real, _as_model(extractor), tmp_path, custom_fn_resize=_unchanged)
    assert ours == pytest.approx(theirs, rel=tolerance)


# Distances of the same features


def _features(count: int, dims: int, seed: int) -> Tensor:
    """Not negative and correlated, as those of networks are."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dims, dims, generator=torch.Generator().manual_seed(9)) / dims**0.5
    features: Tensor = (torch.randn(count, dims, generator=generator) @ mixing + 0.2 * seed).relu().double()
    return features


@pytest.mark.parametrize(("count", "tolerance"), [(500, 1e-6), (65, 1e-6), (40, 1e-5), (10, 1e-5)])
def test_fid_of_the_same_features_is_clean_fids(count: int, tolerance: float) -> None:
    generated, real = _features(count, 64, seed=1), _features(300, 64, seed=2)
    theirs = cleanfid.fid_from_feats(generated.numpy(), real.numpy())
    assert fid(generated, gaussian_of(real)) == pytest.approx(theirs, rel=tolerance)


@pytest.mark.parametrize(("count", "subset"), [(600, 200), (150, 1000)])
def test_clean_fids_kid_lies_within_our_standard_error(count: int, subset: int) -> None:
    generated, real = _features(count, 64, seed=1), _features(700, 64, seed=2)
    value, stderr = kid(generated, real)
    np.random.seed(0)
    theirs = cleanfid.kernel_distance(real.numpy(), generated.numpy(), num_subsets=200, max_subset_size=subset)
    assert abs(theirs - value) <= stderr
    assert stderr < 0.3 * value
