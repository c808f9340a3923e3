"""Accuracies in both directions, and distances class by class."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from trainers.data.images import ImageData
from trainers.errors import InputError
from trainers.evaluation import lenet
from trainers.evaluation.classes import (
    accuracy,
    by_class,
    class_shares,
    intra_fid,
    intra_kid,
    per_class_accuracy,
    per_class_fid,
    per_class_kid,
    tstr,
)
from trainers.evaluation.frechet import fid, gaussian_of
from trainers.evaluation.kid import kid
from trainers.evaluation.reference import Reference

Pair = tuple[ImageData, ImageData]


def test_accuracy_is_the_share_of_right_verdicts_with_its_binomial_error() -> None:
    logits = torch.eye(3)[[0, 1, 2, 2, 1]]
    assert accuracy(logits, torch.tensor([0, 1, 2, 0, 1])) == pytest.approx((0.8, math.sqrt(0.8 * 0.2 / 5)))


def test_verdicts_that_are_not_finite_have_no_accuracy() -> None:
    with pytest.raises(ValueError, match="not finite"):
        accuracy(torch.full((3, 2), math.nan), torch.zeros(3, dtype=torch.int64))


def test_shares_and_accuracies_of_classes_are_those_of_the_decisions() -> None:
    logits = torch.tensor([[3.0, 0, 0], [0, 2, 1], [0, 2, 1], [1, 0, -1]])
    assert class_shares(logits) == (0.5, 0.5, 0.0)
    assert per_class_accuracy(logits, torch.tensor([0, 1, 0, 0])) == (2 / 3, 1.0, None)


# Train on synthetic, test on real


def test_a_classifier_learns_from_images_what_their_labels_say(
    mnist_mini: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lenet, "RECIPE", replace(lenet.RECIPE, steps=(60, 60)))
    train, test = mnist_mini
    images, labels = train.images[:2000], train.labels[:2000]
    value, stderr = tstr(images, labels, test)
    assert value > 0.7
    assert stderr == pytest.approx(math.sqrt(value * (1 - value) / 2000))
    # Every label one too high: what is learnt well is wrong throughout.
    assert tstr(images, (labels + 1) % 10, test)[0] < 0.1


def test_images_that_are_not_like_the_real_ones_train_nothing(mnist_mini: Pair) -> None:
    images, labels = mnist_mini[0].images[:10], mnist_mini[0].labels[:10]
    for wrong in (images / 255, images.expand(-1, 3, -1, -1), images[:9]):
        with pytest.raises(ValueError, match=r"10 labels and images .* needs as many uint8"):
            tstr(wrong, labels, mnist_mini[1])


# Distances class by class


def _reference(labels: Tensor) -> Reference:
    features = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(0)) + labels[:, None]
    moments = gaussian_of(features)
    return Reference(features, labels, moments.mean, moments.cov, len(labels), "r")


def test_the_distances_of_a_class_are_those_of_its_images_alone() -> None:
    reference = _reference(torch.arange(60) % 3)
    labels = torch.arange(40) % 2
    features = torch.randn(40, 4, generator=torch.Generator().manual_seed(1)) + labels[:, None]
    kids, fids = (measure(features, labels, reference, 4) for measure in (per_class_kid, per_class_fid))
    for c in range(2):
        own, real = features[labels == c], reference.features[reference.labels == c]
        assert kids[c] == kid(own, real)
        assert fids[c] == fid(own, gaussian_of(real))
    # Class 2 has no samples, class 3 not even real images.
    assert kids[2:] == fids[2:] == (None, None)


def test_a_class_of_one_image_has_no_distance() -> None:
    reference = _reference(torch.arange(20) % 2)
    features, labels = torch.randn(5, 4, generator=torch.Generator().manual_seed(2)), torch.tensor([0, 1, 1, 1, 1])
    assert [value is None for value in per_class_fid(features, labels, reference, 2)] == [True, False]


def test_swapped_classes_are_seen_by_class_and_not_at_large() -> None:
    labels = torch.arange(400) % 2
    reference = _reference(labels)
    features = torch.randn(400, 4, generator=torch.Generator().manual_seed(3)) + labels[:, None]
    at_large, stderr = kid(features, reference.features)
    assert abs(at_large) < 4 * stderr
    for right, swapped in zip(
        per_class_kid(features, labels, reference, 2), per_class_kid(features, 1 - labels, reference, 2), strict=True
    ):
        assert right is not None
        assert swapped is not None
        assert abs(right[0]) < 4 * right[1]
        assert swapped[0] > 4 * swapped[1]


def test_features_and_labels_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="5 features but 4 labels"):
        per_class_kid(torch.zeros(5, 4), torch.zeros(4, dtype=torch.int64), _reference(torch.arange(20) % 2), 2)


# Means over the classes


def _made(labels: Tensor, seed: int) -> Tensor:
    return torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(seed)) + 2 * labels[:, None]


def test_intra_distances_are_the_means_over_the_classes_whatever_their_sizes() -> None:
    reference, labels = _reference(torch.arange(90) % 3), torch.tensor([0] * 30 + [1] * 5 + [2] * 12)
    features = _made(labels, 4)
    kids, fids = per_class_kid(features, labels, reference, 3), per_class_fid(features, labels, reference, 3)
    values, errors = zip(*(each for each in kids if each is not None), strict=True)
    value, stderr = intra_kid(features, labels, reference)
    assert value == pytest.approx(sum(values) / 3, rel=1e-12)
    assert stderr == pytest.approx(math.sqrt(sum(error**2 for error in errors)) / 3, rel=1e-12)
    assert intra_fid(features, labels, reference) == pytest.approx(sum(f for f in fids if f is not None) / 3)


def test_of_one_class_the_intra_distance_is_the_distance() -> None:
    reference, labels = _reference(torch.zeros(50, dtype=torch.int64)), torch.zeros(20, dtype=torch.int64)
    features = _made(labels, 5)
    assert intra_kid(features, labels, reference) == pytest.approx(kid(features, reference.features), rel=1e-12)
    assert intra_fid(features, labels, reference) == pytest.approx(fid(features, gaussian_of(reference.features)))


def test_the_error_of_the_mean_kid_is_its_deviation() -> None:
    reference, labels = _reference(torch.arange(300) % 3), torch.arange(150) % 3
    found = [intra_kid(_made(labels, 100 + i), labels, reference) for i in range(100)]
    values, errors = (torch.tensor(column) for column in zip(*found, strict=True))
    assert float(values.std() / errors.mean()) == pytest.approx(1, abs=0.25)


def test_the_mean_kid_does_not_depend_on_the_number_of_images_and_the_mean_fid_does() -> None:
    reference = _reference(torch.arange(300) % 3)
    few, many = torch.arange(12) % 3, torch.arange(240) % 3
    kids = torch.tensor(
        [[intra_kid(_made(labels, 300 + i), labels, reference)[0] for labels in (few, many)] for i in range(150)]
    )
    fids = torch.tensor(
        [[intra_fid(_made(labels, 300 + i), labels, reference) for labels in (few, many)] for i in range(20)]
    )
    for values, differs in ((kids, False), (fids, True)):
        excess = values[:, 0] - values[:, 1]
        assert (float(excess.mean()) > 4 * float(excess.std()) / math.sqrt(len(excess))) == differs


@pytest.mark.parametrize(
    ("made", "real", "complaint"),
    [
        ([0, 0, 1, 2, 2], [0, 0, 1, 1, 2, 2], "class 1 has 1 generated and 2 real images; allowed are 2 or more"),
        ([0, 0, 2, 2], [0, 0, 1, 1, 2, 2], "class 1 has 0 generated and 2 real images"),
        ([0, 0, 1, 1], [0, 0, 1], "class 1 has 2 generated and 1 real images"),
        ([0, 0, 3, 3], [0, 0, 1, 1], "class 1 has 0 generated and 2 real images"),
        ([0, 0, 1, 1, 2, 2], [0, 0, 1, 1], "class 2 has 2 generated and 0 real images"),
    ],
)
def test_a_class_with_fewer_than_two_images_has_no_mean(made: list[int], real: list[int], complaint: str) -> None:
    labels, reference = torch.tensor(made), _reference(torch.tensor(real))
    for name, measure in (("intra-kid", intra_kid), ("intra-fid", intra_fid)):
        with pytest.raises(InputError, match=f"{name}: {complaint}"):
            measure(_made(labels, 6), labels, reference)


def test_all_that_is_known_of_a_class_is_one_row() -> None:
    reference, labels = _reference(torch.arange(60) % 3), torch.tensor([0, 0, 0, 1, 3])
    features, logits = _made(labels, 7), torch.eye(4)[[0, 1, 0, 1, 0]]
    rows = by_class(features, logits, labels, reference, 4)
    assert [(row.label, row.n, row.accuracy) for row in rows] == [(0, 3, 2 / 3), (1, 1, 1.0), (2, 0, None), (3, 1, 0.0)]
    kids = per_class_kid(features, labels, reference, 4)
    assert [(row.kid, row.kid_stderr) for row in rows] == [each or (None, None) for each in kids]
    assert [row.fid for row in rows] == list(per_class_fid(features, labels, reference, 4))
    assert [row.kid is None for row in rows] == [False, True, True, True]


def test_a_classifier_of_other_classes_or_none_gives_no_accuracy_of_classes() -> None:
    reference, labels = _reference(torch.arange(60) % 3), torch.arange(9) % 3
    for logits in (None, torch.zeros(9, 5), torch.zeros(9, 2)):
        assert {row.accuracy for row in by_class(_made(labels, 8), logits, labels, reference, 3)} == {None}
