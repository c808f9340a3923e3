"""Scores carry what makes them comparable and order images as they should."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from trainers.data import ImageData
from trainers.errors import InputError
from trainers.evaluation.extractors import Extractor
from trainers.evaluation.reference import Reference, reference_of
from trainers.evaluation.scores import METRICS, Evaluator, Score, accuracy, class_shares, per_class_accuracy

Pair = tuple[ImageData, ImageData]


@pytest.fixture(scope="module")
def reference(mnist_mini_lenet: Extractor, mnist_mini: Pair, cache_dir: Path) -> Reference:
    return reference_of(mnist_mini_lenet, mnist_mini[0], cache_dir)


@pytest.fixture(scope="module")
def evaluator(mnist_mini_lenet: Extractor, reference: Reference) -> Evaluator:
    return Evaluator(mnist_mini_lenet, reference, tuple(METRICS), seed=3)


@pytest.fixture(scope="module")
def real(evaluator: Evaluator, mnist_mini: Pair) -> dict[str, Score]:
    return evaluator(mnist_mini[1].images, mnist_mini[1].labels).scores


def test_a_score_names_metric_number_extractor_reference_and_seed(
    real: dict[str, Score], mnist_mini_lenet: Extractor, reference: Reference
) -> None:
    assert list(real) == list(METRICS)
    for name, score in real.items():
        assert score.metric == name
        assert (score.n, score.seed) == (2000, 3)
        assert (score.extractor, score.reference) == (mnist_mini_lenet.id, reference.id)
        assert (score.stderr is None) == (name == "fid")


def test_a_score_survives_json(real: dict[str, Score]) -> None:
    for score in real.values():
        assert Score(**json.loads(json.dumps(asdict(score)))) == score


def test_real_images_score_near_the_best_value(real: dict[str, Score]) -> None:
    assert abs(real["kid"].value) < 3 * (real["kid"].stderr or 0)
    assert real["accuracy"].value >= 0.97
    assert 9 <= real["is"].value <= 10


def test_every_metric_prefers_real_images_to_noisy_ones(
    evaluator: Evaluator, real: dict[str, Score], mnist_mini: Pair
) -> None:
    images, labels = mnist_mini[1].images, mnist_mini[1].labels
    noise = torch.randint(-120, 121, images.shape, generator=torch.Generator().manual_seed(0))
    noisy = evaluator((images + noise).clamp(0, 255).to(torch.uint8), labels).scores
    for name, metric in METRICS.items():
        assert (real[name].value < noisy[name].value) == metric.minimise


def test_scoring_twice_gives_the_same(evaluator: Evaluator, mnist_mini: Pair) -> None:
    images, labels = mnist_mini[1].images[:100], mnist_mini[1].labels[:100]
    assert evaluator(images, labels) == evaluator(images, labels)


def test_only_accuracy_needs_labels(evaluator: Evaluator, mnist_mini: Pair) -> None:
    images, labels = mnist_mini[1].images[:100], mnist_mini[1].labels[:100]
    labelled, unlabelled = evaluator(images, labels), evaluator(images, labels, conditional=False)
    conditional, unconditional = labelled.scores, unlabelled.scores
    assert set(conditional) - set(unconditional) == {"accuracy"}
    assert unlabelled.per_class_accuracy is None
    assert unlabelled.class_shares == labelled.class_shares is not None
    shuffled = evaluator(images, labels.roll(1)).scores
    assert {n for n in conditional if conditional[n] != shuffled[n]} == {"accuracy"}


def test_all_metrics_share_one_pass(mnist_mini_lenet: Extractor, reference: Reference, mnist_mini: Pair) -> None:
    passes = []

    def counted(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        passes.append(len(images))
        return mnist_mini_lenet.forward(images)

    extractor = replace(mnist_mini_lenet, forward=counted)
    Evaluator(extractor, reference, tuple(METRICS), 0)(mnist_mini[1].images[:600], mnist_mini[1].labels[:600])
    assert passes == [500, 100]


def test_accuracy_is_the_share_of_right_verdicts_with_its_binomial_error() -> None:
    logits = torch.eye(3)[[0, 1, 2, 2, 1]]
    assert accuracy(logits, torch.tensor([0, 1, 2, 0, 1])) == pytest.approx((0.8, math.sqrt(0.8 * 0.2 / 5)))


def test_shares_and_accuracies_of_classes_are_those_of_the_decisions() -> None:
    logits = torch.tensor([[3.0, 0, 0], [0, 2, 1], [0, 2, 1], [1, 0, -1]])
    assert class_shares(logits) == (0.5, 0.5, 0.0)
    assert per_class_accuracy(logits, torch.tensor([0, 1, 0, 0])) == (2 / 3, 1.0, None)


def test_accuracy_is_the_mean_of_that_of_the_classes(evaluator: Evaluator, mnist_mini: Pair) -> None:
    images, labels = mnist_mini[1].images[:500], mnist_mini[1].labels[:500].roll(7)
    seen, counts = evaluator(images, labels), labels.bincount(minlength=10)
    of_classes = torch.tensor(seen.per_class_accuracy)
    assert seen.scores["accuracy"].value == pytest.approx(float((of_classes * counts).sum()) / 500)


def test_an_extractor_that_is_no_classifier_says_nothing_of_classes(
    mnist_mini_lenet: Extractor, reference: Reference, mnist_mini: Pair
) -> None:
    featureless = replace(mnist_mini_lenet, classes=None, forward=lambda x: (mnist_mini_lenet.forward(x)[0], None))
    seen = Evaluator(featureless, reference, ("kid",), 0)(mnist_mini[1].images[:100], mnist_mini[1].labels[:100])
    assert set(seen.scores) == {"kid"}
    assert seen.class_shares is seen.per_class_accuracy is None


def test_metrics_that_cannot_work_are_refused_at_once(mnist_mini_lenet: Extractor, reference: Reference) -> None:
    with pytest.raises(InputError, match="'psnr', allowed are kid, fid, is, accuracy"):
        Evaluator(mnist_mini_lenet, reference, ("kid", "psnr"), 0)
    with pytest.raises(InputError, match="at least one"):
        Evaluator(mnist_mini_lenet, reference, (), 0)
    featureless = replace(mnist_mini_lenet, classes=None, id="inception-x")
    for name in ("is", "accuracy"):
        with pytest.raises(InputError, match=f"{name} needs a classifier .* kid, fid"):
            Evaluator(featureless, reference, (name,), 0)


def test_images_and_labels_must_be_as_many(evaluator: Evaluator, mnist_mini: Pair) -> None:
    with pytest.raises(ValueError, match="10 images but 9 labels"):
        evaluator(mnist_mini[1].images[:10], mnist_mini[1].labels[:9])
