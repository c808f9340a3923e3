"""The inception score stays within its bounds and does not depend on how images happen to be sorted."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from trainers.evaluation.inception_score import Marginal, inception_score

CLASSES = 10


def _certain(labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, CLASSES).float() * 200


def test_it_is_the_number_of_classes_when_verdicts_are_certain_and_even() -> None:
    value, deviation = inception_score(_certain(torch.arange(1000) % CLASSES), splits=1)
    assert value == pytest.approx(CLASSES, rel=1e-12)
    assert deviation == 0


def test_it_is_one_when_all_verdicts_are_alike() -> None:
    logits = torch.randn(1, CLASSES, generator=torch.Generator().manual_seed(0)).expand(100, -1)
    assert inception_score(logits) == pytest.approx((1, 0), abs=1e-12)


@pytest.mark.parametrize("marginal", ["split", "pooled", "external"])
def test_collapsed_images_score_one_under_any_marginal(marginal: Marginal) -> None:
    for scale in (1, 1e6):
        logits = scale * torch.arange(CLASSES).float().expand(40, -1)
        assert inception_score(logits, marginal=marginal) == pytest.approx((1, 0), abs=1e-12)


@pytest.mark.parametrize("scale", [0.1, 3.0, 100.0])
def test_it_lies_between_one_and_the_number_of_classes(scale: float) -> None:
    logits = scale * torch.randn(500, CLASSES, generator=torch.Generator().manual_seed(1))
    value, _ = inception_score(logits)
    assert 1 <= value <= CLASSES + 1e-6


def test_it_equals_its_definition_on_each_split() -> None:
    logits = torch.randn(60, CLASSES, generator=torch.Generator().manual_seed(2)).double()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(5))
    scores = []
    for part in torch.softmax(logits[order], 1).reshape(3, 20, CLASSES).tolist():
        marginal = [sum(row[j] for row in part) / 20 for j in range(CLASSES)]
        terms = [p * math.log(p / marginal[j]) for row in part for j, p in enumerate(row)]
        scores.append(math.exp(sum(terms) / 20))
    mean = sum(scores) / 3
    deviation = math.sqrt(sum((score - mean) ** 2 for score in scores) / 3)
    assert inception_score(logits, splits=3, seed=5) == pytest.approx((mean, deviation), rel=1e-12)


@pytest.mark.parametrize("marginal", ["split", "pooled", "external"])
def test_the_marginal_is_of_the_images_it_is_named_after(marginal: Marginal) -> None:
    logits = torch.randn(60, CLASSES, generator=torch.Generator().manual_seed(2)).double()
    p = torch.softmax(logits[torch.randperm(60, generator=torch.Generator().manual_seed(5))], 1)
    parts = p.reshape(3, 20, CLASSES)
    own = {"split": parts, "pooled": p.expand(3, 60, CLASSES), "external": parts.roll(-1, 0)}[marginal]
    divergences = (parts * (parts / own.mean(dim=1, keepdim=True)).log()).sum(dim=2)
    scores = divergences.mean(dim=1).exp()
    expected = float(scores.mean()), float(scores.std(correction=0))
    assert inception_score(logits, splits=3, seed=5, marginal=marginal) == pytest.approx(expected, rel=1e-12)


def test_a_foreign_marginal_passes_the_number_of_classes_as_published_values_do() -> None:
    labels = torch.randint(CLASSES, (10_000,), generator=torch.Generator().manual_seed(4))
    own, pooled, external = (
        inception_score(_certain(labels), marginal=marginal)[0] for marginal in ("split", "pooled", "external")
    )
    assert own == pytest.approx(9.954, abs=0.02)
    assert pooled == pytest.approx(9.996, abs=0.01)
    assert external == pytest.approx(10.045, abs=0.04)
    assert own <= CLASSES + 1e-6


def test_a_class_that_a_foreign_marginal_lacks_leaves_the_score_finite() -> None:
    logits = _certain(torch.arange(4)) * 1e6
    assert math.isfinite(inception_score(logits, splits=2, marginal="external")[0])


def test_images_sorted_by_class_score_as_mixed_ones_do() -> None:
    labels = torch.arange(1000) % CLASSES
    mixed, _ = inception_score(_certain(labels))
    in_order, _ = inception_score(_certain(labels.sort().values))
    assert in_order == pytest.approx(mixed, rel=0.02)
    assert in_order > 9


def test_the_seed_decides_the_splits() -> None:
    logits = torch.randn(200, CLASSES, generator=torch.Generator().manual_seed(3))
    assert inception_score(logits, seed=1) == inception_score(logits, seed=1)
    assert inception_score(logits, seed=1) != inception_score(logits, seed=2)


def test_certain_verdicts_of_any_size_stay_finite() -> None:
    logits = _certain(torch.arange(100) % CLASSES) * 1e6
    assert math.isfinite(inception_score(logits)[0])


def test_too_few_or_non_finite_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 20"):
        inception_score(torch.zeros(19, CLASSES))
    with pytest.raises(ValueError, match="not finite"):
        inception_score(torch.full((20, CLASSES), float("nan")))


def test_a_single_split_has_no_foreign_marginal() -> None:
    with pytest.raises(ValueError, match="another split"):
        inception_score(torch.zeros(20, CLASSES), splits=1, marginal="external")
