"""The official procedure gives our numbers where both can be computed, and never passes for ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.support.random_inception import write_random_inception
from trainers.data.images import ImageData
from trainers.data.shapes import draw
from trainers.evaluation import inception, official
from trainers.evaluation.evaluator import Evaluator
from trainers.evaluation.extractors import Extractor, build_extractor
from trainers.evaluation.official import clean_fid, official_scores
from trainers.evaluation.reference import Reference, reference_of
from trainers.evaluation.resize import resize
from trainers.evaluation.scores import Score, comparable
from trainers.evaluation.spec import ExtractorSpec

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

Digits = tuple[ImageData, ImageData]
Floats = NDArray[Any]
LENET = ExtractorSpec(name="lenet")
#: More than LeNet's 84 features.
COUNT = 150


@pytest.fixture
def images(mnist_mini: Digits) -> Tensor:
    """Digits that are not quite right."""
    return mnist_mini[1].images[:COUNT] // 2


@pytest.fixture
def reference(mnist_mini_lenet: Extractor, mnist_mini: Digits, cache_dir: Path) -> Reference:
    return reference_of(mnist_mini_lenet, mnist_mini[0], cache_dir)


def ours(images: Tensor, extractor: Extractor, reference: Reference) -> dict[str, Score]:
    labels = torch.zeros(len(images), dtype=torch.int64)
    return Evaluator(extractor, reference, ("fid", "kid"), 0)(images, labels).scores


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-3)])
def test_fid_of_the_same_features_is_ours(
    dtype: str, tolerance: float, images: Tensor, mnist_mini: Digits, cache_dir: Path, mnist_mini_lenet: object
) -> None:
    spec = ExtractorSpec.model_validate({"name": "lenet", "dtype": dtype})
    extractor = build_extractor(spec, *mnist_mini, cache_dir, "cpu")
    small = ImageData(mnist_mini[0].images[:1000], mnist_mini[0].labels[:1000], 10, "digits", "train")
    reference = reference_of(extractor, small, cache_dir)
    theirs = official_scores(images, extractor, spec, reference, cache_dir, 0, "cpu")
    assert theirs["fid"].value == pytest.approx(ours(images, extractor, reference)["fid"].value, rel=tolerance)
    assert theirs["fid"].value > 1


def test_kid_over_random_subsets_goes_to_ours_over_all_pairs(
    images: Tensor, mnist_mini_lenet: Extractor, reference: Reference, cache_dir: Path
) -> None:
    seeds = range(5)
    values = [
        official_scores(images, mnist_mini_lenet, LENET, reference, cache_dir, seed, "cpu")["kid"].value
        for seed in seeds
    ]
    exact, stderr = ours(images, mnist_mini_lenet, reference)["kid"].value, stdev(values) / len(seeds) ** 0.5
    assert 0 < stderr < 0.02 * exact
    assert abs(mean(values) - exact) <= 3 * stderr


def test_the_seed_alone_decides_and_numpys_random_state_is_left_alone(
    images: Tensor, mnist_mini_lenet: Extractor, reference: Reference, cache_dir: Path
) -> None:
    def scores(seed: int) -> dict[str, Score]:
        return official_scores(images, mnist_mini_lenet, LENET, reference, cache_dir, seed, "cpu")

    np.random.seed(5)
    expected = np.random.random(3)
    np.random.seed(5)
    first = scores(1)
    assert (np.random.random(3) == expected).all()
    assert scores(1) == first
    assert scores(2)["kid"].value != first["kid"].value
    assert scores(2)["fid"].value == first["fid"].value


def test_official_scores_say_how_they_were_measured_and_do_not_compare_with_ours(
    images: Tensor, mnist_mini_lenet: Extractor, reference: Reference, cache_dir: Path
) -> None:
    theirs = official_scores(images, mnist_mini_lenet, LENET, reference, cache_dir, 3, "cpu")
    for name, own in ours(images, mnist_mini_lenet, reference).items():
        score = theirs[name]
        assert (score.metric, score.n, score.seed, score.stderr) == (name, COUNT, 3, None)
        assert score.extractor == f"clean-fid:{mnist_mini_lenet.id}"
        assert score.reference == reference.id
        assert "extractor" in str(comparable(score, own))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the official one under another name."""
    path = tmp_path_factory.mktemp("inception") / "any-name.pt"
    write_random_inception(path, resize(torch.from_numpy(draw(8, 1)[0]), inception.SIZE))
    return path


@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_inception_features_come_from_clean_fids_network_and_are_ours(
    channels: int, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.from_numpy(draw(10, 7)[0])[:, :channels]
    generated = images[:5]
    data = ImageData(images[5:], torch.zeros(5, dtype=torch.int64), 1, "shapes", "train")
    spec = ExtractorSpec.model_validate({"name": "inception", "weights": weights})
    extractor = build_extractor(spec, data, data, tmp_path, "cpu")
    reference = reference_of(extractor, data, tmp_path)
    own = extractor(generated).features.double()
    taken: list[Any] = []

    def distance(*moments: Any) -> float:
        taken.extend(moments)
        return 1.5

    # A matrix root of 2048 x 2048 takes a minute.
    monkeypatch.setattr(clean_fid(), "frechet_distance", distance)
    monkeypatch.setattr(official, "BATCH", 3)
    # An extractor that fails shows that its features are not the official ones.
    broken = replace(extractor, forward=lambda batch: pytest.fail("asked the wrong network"))
    theirs = official_scores(generated, broken, spec, reference, tmp_path, 0, "cpu")
    assert theirs["fid"].value == 1.5
    assert np.linalg.norm(taken[0] - own.mean(dim=0).numpy()) <= 1e-4 * float(own.mean(dim=0).norm())
    assert np.linalg.norm(taken[1] - own.T.cov().numpy()) <= 1e-3 * float(own.T.cov().norm())
    assert (taken[2] == reference.mean.numpy()).all()
    assert (taken[3] == reference.cov.numpy()).all()
    # With fewer images than a subset has, each subset is all of them.
    assert theirs["kid"].value == pytest.approx(ours(generated, extractor, reference)["kid"].value, rel=1e-3)


# Old and new scipy

SCIPYS_ROOT = scipy.linalg.sqrtm


def _root_of_scipy_1_18(product: Floats) -> Floats:
    """Without `disp` and `blocksize`, which scipy 1.18 refuses."""
    root: Floats = SCIPYS_ROOT(product)
    return root


def _root_of_scipy_1_15(product: Floats, disp: bool = True, blocksize: int = 64) -> Floats | tuple[Floats, float]:
    """With both arguments, of which `disp=False` asks for an estimate of the error too."""
    root: Floats = SCIPYS_ROOT(product)
    return root if disp else (root, float(np.linalg.norm(root @ root - product) ** 2 / np.linalg.norm(product)))


def _distance(mean: Floats, cov: Floats) -> float:
    """clean-fid's, from a standard normal distribution."""
    value = clean_fid().frechet_distance(mean, cov, np.zeros_like(mean), np.eye(len(cov)))
    return float(value)


@pytest.mark.filterwarnings("error:.*disp.*:DeprecationWarning")
@pytest.mark.parametrize("root", [_root_of_scipy_1_18, _root_of_scipy_1_15])
def test_scores_are_the_same_with_old_and_new_scipy(
    root: object,
    images: Tensor,
    mnist_mini_lenet: Extractor,
    reference: Reference,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = official_scores(images, mnist_mini_lenet, LENET, reference, cache_dir, 0, "cpu")
    monkeypatch.setattr(scipy.linalg, "sqrtm", root)
    assert official_scores(images, mnist_mini_lenet, LENET, reference, cache_dir, 0, "cpu") == expected


def test_a_root_that_is_not_finite_is_taken_again_of_regular_matrices(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Floats] = []

    def singular_at_first(product: Floats) -> Floats:
        asked.append(product)
        return np.full_like(product, np.nan) if len(asked) == 1 else _root_of_scipy_1_18(product)

    monkeypatch.setattr(scipy.linalg, "sqrtm", singular_at_first)
    mean, cov = np.array([1.0, 2.0]), np.diag([4.0, 0.0])
    # |m|^2 + (2 - 1)^2 + (0 - 1)^2; the second deviation is the root of the 1e-6 that clean-fid adds.
    assert _distance(mean, cov) == pytest.approx(7.0, abs=3e-3)
    assert len(asked) == 2
    assert "singular product" in capsys.readouterr().out


def test_a_complex_root_counts_by_its_real_part_unless_it_is_far_from_real(monkeypatch: pytest.MonkeyPatch) -> None:
    mean, cov = np.array([1.0, 2.0]), np.diag([4.0, 9.0])
    monkeypatch.setattr(scipy.linalg, "sqrtm", lambda product: _root_of_scipy_1_18(product) + 1e-5j)
    assert _distance(mean, cov) == pytest.approx(5.0 + 1.0 + 4.0)
    monkeypatch.setattr(scipy.linalg, "sqrtm", lambda product: _root_of_scipy_1_18(product) + 0.1j)
    with pytest.raises(ValueError, match="Imaginary component"):
        _distance(mean, cov)
