"""A generator that makes one image alone has defined, finite scores: what each metric says of a single point."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainers.data.images import ImageData
from trainers.evaluation import lenet
from trainers.evaluation.evaluator import Evaluator
from trainers.evaluation.extractors import Extractor
from trainers.evaluation.kid import mean_kernel
from trainers.evaluation.reference import reference_of
from trainers.evaluation.scores import METRICS

Pair = tuple[ImageData, ImageData]


@pytest.fixture(scope="module")
def evaluator(mnist_mini_lenet: Extractor, mnist_mini: Pair, cache_dir: Path) -> Evaluator:
    reference = reference_of(mnist_mini_lenet, mnist_mini[0], cache_dir)
    return Evaluator(mnist_mini_lenet, reference, tuple(name for name in METRICS if name != "tstr"), seed=3)


BLACK, DIGIT = "black", "a real digit"


def _collapsed(kind: str, mnist_mini: Pair, count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """One image over and over, for the classes in turn."""
    image = mnist_mini[1].images[:1] if kind == DIGIT else torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    return image.expand(count, -1, -1, -1), torch.arange(count) % 10


def _kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x.double() @ y.double().T / x.shape[1] + 1) ** 3


@pytest.mark.parametrize("kind", [BLACK, DIGIT])
def test_a_collapsed_generator_has_the_distances_of_its_point(
    kind: str, evaluator: Evaluator, mnist_mini: Pair
) -> None:
    images, labels = _collapsed(kind, mnist_mini)
    found, real = evaluator(images, labels).scores, evaluator.reference
    point = evaluator.extractor(images).features[:1]

    def distance(known: torch.Tensor) -> float:
        return float(_kernel(point, point)) + mean_kernel(known) - 2 * float(_kernel(point, known).mean())

    def spread(known: torch.Tensor) -> float:
        known = known.double()
        return float((point[0] - known.mean(dim=0)).square().sum() + known.var(dim=0).sum())

    of_classes = [real.features[real.labels == c] for c in range(10)]
    size = float(_kernel(point, point)) + float(_kernel(point, real.features).mean())
    assert found["kid"].value == pytest.approx(distance(real.features), abs=1e-5 * size)
    diagonal = (real.features.double().square().mean(dim=1) + 1) ** 3
    excess = (float(diagonal.mean()) - mean_kernel(real.features)) / len(real.features)
    assert found["kid-biased"].value == pytest.approx(distance(real.features) + excess, abs=1e-5 * size)
    assert found["intra-kid"].value == pytest.approx(sum(map(distance, of_classes)) / 10, abs=1e-5 * size)
    for name in ("kid", "kid-biased", "intra-kid"):
        assert found[name].stderr == pytest.approx(0, abs=1e-6 * size)
    at_large = float((point[0] - real.mean).square().sum() + real.cov.trace())
    assert found["fid"].value == pytest.approx(at_large, rel=1e-6)
    assert found["fid-infinity"].value == pytest.approx(at_large, rel=1e-5)
    assert found["fid-infinity"].stderr == pytest.approx(0, abs=1e-5 * at_large)
    assert found["intra-fid"].value == pytest.approx(sum(map(spread, of_classes)) / 10, rel=1e-5)


@pytest.mark.parametrize("kind", [BLACK, DIGIT])
def test_a_collapsed_generator_has_one_class(kind: str, evaluator: Evaluator, mnist_mini: Pair) -> None:
    images, labels = _collapsed(kind, mnist_mini)
    seen = evaluator(images, labels)
    for name in ("is", "is-pooled", "is-external"):
        assert seen.scores[name].value == pytest.approx(1, abs=1e-6)
        assert seen.scores[name].stderr == pytest.approx(0, abs=1e-6)
    assert seen.scores["accuracy"].value == 0.1
    assert sorted(seen.class_shares or ())[-2:] == [0, 1]
    assert sorted(share or 0.0 for share in seen.per_class_accuracy or ()) == [0] * 9 + [1]


@pytest.mark.parametrize("kind", [BLACK, DIGIT])
def test_a_collapsed_generator_lies_in_the_balls_of_its_point_and_has_none_itself(
    kind: str, evaluator: Evaluator, mnist_mini: Pair
) -> None:
    images, labels = _collapsed(kind, mnist_mini)
    found, real = evaluator(images, labels).scores, evaluator.reference
    point = evaluator.extractor(images).features[:1].double()
    distances = (real.features.double() - point).square().sum(dim=1)
    around = {k: int((distances <= radii).sum()) for k, radii in ((3, real.precision_radii), (5, real.coverage_radii))}
    assert (around[3] > 0) == (kind == DIGIT)
    assert (found["precision"].value, found["precision"].stderr) == (float(around[3] > 0), 0)
    assert found["density"].value == pytest.approx(around[5] / 5)
    assert found["density"].stderr == pytest.approx(0, abs=1e-9)
    assert found["coverage"].value == around[5] / len(distances)
    # Balls of no radius hold their point alone, and here no real image lies on it.
    assert found["recall"].value == 0


def test_a_generator_that_repeats_one_real_image_recalls_that_image_alone(
    evaluator: Evaluator, mnist_mini: Pair
) -> None:
    images = mnist_mini[0].images[:1].expand(40, -1, -1, -1)
    alone = Evaluator(evaluator.extractor, evaluator.reference, ("recall", "precision"), 0)
    found = alone(images, torch.zeros(40, dtype=torch.int64)).scores
    assert found["recall"].value == 1 / len(evaluator.reference.features)
    assert found["precision"].value == 1


def test_a_collapsed_generator_teaches_next_to_nothing(
    evaluator: Evaluator, mnist_mini: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lenet, "RECIPE", replace(lenet.RECIPE, steps=(5, 5)))
    alone = Evaluator(evaluator.extractor, evaluator.reference, ("tstr",), 3, mnist_mini[1])
    for kind in (BLACK, DIGIT):
        score = alone(*_collapsed(kind, mnist_mini)).scores["tstr"]
        assert 0 <= score.value < 0.3
        assert math.isfinite(score.stderr or 0.0)
