"""Scores carry what makes them comparable and order images as they should."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from trainers.data.images import ImageData
from trainers.errors import InputError
from trainers.evaluation import classes, lenet
from trainers.evaluation.evaluator import Evaluator
from trainers.evaluation.extractors import Extractor
from trainers.evaluation.kid import kid
from trainers.evaluation.reference import Reference, reference_of
from trainers.evaluation.scores import METRICS, Judgement, Score, comparable, difference, judge

Pair = tuple[ImageData, ImageData]

#: What every evaluator measures; `tstr` needs the real test images and trains on those that are scored.
AT_RUNGS = tuple(name for name in METRICS if name != "tstr")
LABELLED = {"accuracy", "intra-kid", "intra-fid"}


@pytest.fixture(scope="module")
def reference(mnist_mini_lenet: Extractor, mnist_mini: Pair, cache_dir: Path) -> Reference:
    return reference_of(mnist_mini_lenet, mnist_mini[0], cache_dir)


@pytest.fixture(scope="module")
def evaluator(mnist_mini_lenet: Extractor, reference: Reference) -> Evaluator:
    return Evaluator(mnist_mini_lenet, reference, AT_RUNGS, seed=3)


@pytest.fixture(scope="module")
def real(evaluator: Evaluator, mnist_mini: Pair) -> dict[str, Score]:
    return evaluator(mnist_mini[1].images, mnist_mini[1].labels).scores


def test_a_score_names_metric_number_extractor_reference_and_seed(
    real: dict[str, Score], mnist_mini_lenet: Extractor, reference: Reference
) -> None:
    assert tuple(real) == AT_RUNGS
    for name, score in real.items():
        assert score.metric == name
        assert (score.n, score.seed) == (2000, 3)
        assert (score.extractor, score.reference) == (mnist_mini_lenet.id, reference.id)
        assert (score.stderr is None) == (name in {"fid", "recall", "coverage", "intra-fid"})


def test_a_score_survives_json(real: dict[str, Score]) -> None:
    for score in real.values():
        assert Score(**json.loads(json.dumps(asdict(score)))) == score


def test_real_images_score_near_the_best_value(real: dict[str, Score]) -> None:
    assert abs(real["kid"].value) < 3 * (real["kid"].stderr or 0)
    assert real["accuracy"].value >= 0.97
    assert 9 <= real["is"].value <= 10
    assert real["is"].value < real["is-pooled"].value < real["is-external"].value
    assert real["kid-biased"].value > max(0, real["kid"].value)
    assert real["fid-infinity"].value < real["fid"].value
    for name in ("precision", "recall", "density"):
        assert real[name].value > 0.8
    # That none of 2,000 samples is nearer than the 5th of 8,000 real images has the probability 0.8^5.
    assert real["coverage"].value == pytest.approx(1 - 0.8**5, abs=0.03)


def test_every_metric_prefers_real_images_to_noisy_ones(
    evaluator: Evaluator, real: dict[str, Score], mnist_mini: Pair
) -> None:
    images, labels = mnist_mini[1].images, mnist_mini[1].labels
    noise = torch.randint(-120, 121, images.shape, generator=torch.Generator().manual_seed(0))
    noisy = evaluator((images + noise).clamp(0, 255).to(torch.uint8), labels).scores
    for name in AT_RUNGS:
        assert (real[name].value < noisy[name].value) == METRICS[name].minimise


def test_scoring_twice_gives_the_same(evaluator: Evaluator, mnist_mini: Pair) -> None:
    images, labels = mnist_mini[1].images[:100], mnist_mini[1].labels[:100]
    assert evaluator(images, labels) == evaluator(images, labels)


def test_only_what_looks_at_classes_needs_labels(evaluator: Evaluator, mnist_mini: Pair) -> None:
    images, labels = mnist_mini[1].images[:100], mnist_mini[1].labels[:100]
    labelled, unlabelled = evaluator(images, labels), evaluator(images, labels, conditional=False)
    conditional, unconditional = labelled.scores, unlabelled.scores
    assert set(conditional) - set(unconditional) == LABELLED
    assert unlabelled.per_class_accuracy is None
    assert unlabelled.class_shares == labelled.class_shares is not None
    shuffled = evaluator(images, labels.roll(1)).scores
    assert {n for n in conditional if conditional[n] != shuffled[n]} == LABELLED


def test_all_metrics_share_one_pass(mnist_mini_lenet: Extractor, reference: Reference, mnist_mini: Pair) -> None:
    passes = []

    def counted(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        passes.append(len(images))
        return mnist_mini_lenet.forward(images)

    extractor = replace(mnist_mini_lenet, forward=counted)
    Evaluator(extractor, reference, AT_RUNGS, 0)(mnist_mini[1].images[:600], mnist_mini[1].labels[:600])
    assert passes == [500, 100]


@pytest.mark.parametrize("batch", [1, 64, 500])
def test_the_network_is_given_one_batch_at_a_time(
    batch: int, mnist_mini_lenet: Extractor, reference: Reference, mnist_mini: Pair
) -> None:
    passes = []

    def counted(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        passes.append(len(images))
        return mnist_mini_lenet.forward(images)

    extractor = replace(mnist_mini_lenet, forward=counted, batch=batch)
    Evaluator(extractor, reference, ("kid",), 0)(mnist_mini[1].images[:150], mnist_mini[1].labels[:150])
    assert max(passes) <= batch
    assert sum(passes) == 150


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


def test_today_four_metrics_are_recorded_unasked() -> None:
    assert [name for name, metric in METRICS.items() if metric.routine] == ["kid", "fid", "is", "accuracy"]


@pytest.mark.parametrize("name", [name for name in AT_RUNGS if not METRICS[name].within_classes])
def test_each_metric_is_defined_from_its_fewest_images_on(
    name: str, evaluator: Evaluator, reference: Reference, mnist_mini: Pair
) -> None:
    fewest = METRICS[name].fewest
    alone = Evaluator(evaluator.extractor, evaluator.reference, (name,), 0)
    images, labels = mnist_mini[1].images, mnist_mini[1].labels
    score = alone(images[:fewest], labels[:fewest]).scores[name]
    assert math.isfinite(score.value)
    assert math.isfinite(score.stderr or 0.0)
    if name != "accuracy":  # one image is right or wrong: that is a share, if a poor one
        with pytest.raises(ValueError, match=f"at least {fewest}"):
            alone(images[: fewest - 1], labels[: fewest - 1])


@pytest.mark.parametrize("name", ["intra-kid", "intra-fid"])
def test_metrics_within_classes_are_defined_from_their_fewest_images_of_each_class_on(
    name: str, evaluator: Evaluator, mnist_mini: Pair
) -> None:
    alone = Evaluator(evaluator.extractor, evaluator.reference, (name,), 0)
    labels = torch.arange(10).repeat(2)
    images = mnist_mini[1].images[:20]
    assert METRICS[name].fewest == 2
    assert math.isfinite(alone(images, labels).scores[name].value)
    with pytest.raises(InputError, match=f"{name}: class 9 has 1 generated and .* allowed are 2 or more"):
        alone(images[:19], labels[:19])


# Train on synthetic, test on real


def test_training_on_the_images_is_scored_under_its_own_recipe_and_data(
    evaluator: Evaluator, mnist_mini: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lenet, "RECIPE", replace(lenet.RECIPE, steps=(5, 5)))
    test = mnist_mini[1]
    images, labels = mnist_mini[0].images[:40], mnist_mini[0].labels[:40]
    both = Evaluator(evaluator.extractor, evaluator.reference, ("tstr", "kid"), 3, test)
    found = both(images, labels).scores
    assert (found["tstr"].value, found["tstr"].stderr) == classes.tstr(images, labels, test)
    assert found["tstr"].extractor == f"lenet-recipe{lenet.RECIPE.version}"
    assert found["tstr"].reference == f"mnist-mini-test-{test.sha256[:12]}"
    assert (found["kid"].extractor, found["kid"].reference) == (evaluator.extractor.id, evaluator.reference.id)
    assert set(both(images, labels, conditional=False).scores) == {"kid"}


def test_a_rung_does_not_train_on_its_images(mnist_mini_lenet: Extractor, reference: Reference) -> None:
    with pytest.raises(InputError, match=r"metrics: tstr trains a classifier for each value, .* use `gansweep score`"):
        Evaluator(mnist_mini_lenet, reference, ("kid", "tstr"), 0)


# Images that are none


def test_features_that_are_not_finite_have_no_score(evaluator: Evaluator, mnist_mini: Pair) -> None:
    def broken(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return torch.full((len(images), 84), math.nan), torch.zeros(len(images), 10)

    extractor = replace(evaluator.extractor, forward=broken)
    with pytest.raises(InputError, match="not finite"):
        Evaluator(extractor, evaluator.reference, ("accuracy",), 0)(
            mnist_mini[1].images[:40], mnist_mini[1].labels[:40]
        )


@pytest.mark.parametrize("kind", ["[-1, 1]", "[0, 1]", "int64", "int8", "bool", "one image", "none"])
def test_images_of_another_range_type_or_shape_are_refused(kind: str, evaluator: Evaluator, mnist_mini: Pair) -> None:
    images = mnist_mini[1].images[:40]
    wrong = {
        "[-1, 1]": images / 127.5 - 1,
        "[0, 1]": images / 255,
        "int64": images.long(),
        "int8": images.to(torch.int8),
        "bool": images > 127,
        "one image": images[:, 0],
        "none": images[:0],
    }[kind]
    shown = re.escape(f"images are {wrong.dtype} {tuple(wrong.shape)}, not uint8 [N, C, H, W]")
    with pytest.raises(ValueError, match=shown):
        evaluator(wrong, mnist_mini[1].labels[: len(wrong)])


# Comparing


def _score(metric: str = "kid", value: float = 1.0, stderr: float | None = 0.3, n: int = 1000, **other: str) -> Score:
    return Score(metric, value, stderr, n, other.get("extractor", "e-float32"), other.get("reference", "r"), seed=0)


@pytest.mark.parametrize("metric", METRICS)
def test_scores_of_equal_origin_compare_whatever_their_seed(metric: str) -> None:
    assert comparable(_score(metric), replace(_score(metric, 2.0, None), seed=7)) is None


@pytest.mark.parametrize(
    ("b", "reason"),
    [
        (_score("fid"), "metric kid is not fid"),
        (_score("kid-biased"), "metric kid is not kid-biased"),
        (_score(extractor="e-float64"), "extractor e-float32 is not e-float64"),
        (_score(reference="s"), "reference r is not s"),
    ],
)
def test_scores_of_unlike_origin_do_not_compare(b: Score, reason: str) -> None:
    a = _score()
    assert comparable(a, b) == reason
    assert comparable(b, a) is not None
    with pytest.raises(ValueError, match=reason):
        difference(a, b)


@pytest.mark.parametrize("metric", METRICS)
def test_only_metrics_without_a_bias_compare_over_unlike_numbers_of_images(metric: str) -> None:
    reason = comparable(_score(metric, n=1000), _score(metric, n=10_000))
    if metric in {"kid", "accuracy", "fid-infinity", "precision", "density", "intra-kid"}:
        assert reason is None
    else:
        assert reason == f"{metric} depends on the number of images: 1,000 are not 10,000"


def test_the_error_of_a_difference_is_that_of_independent_values() -> None:
    a, b = _score(value=1.5, stderr=0.3), _score(value=1.0, stderr=0.4)
    assert difference(a, b) == pytest.approx((0.5, 0.5))
    assert difference(b, a) == pytest.approx((-0.5, 0.5))
    assert difference(a, replace(b, stderr=None)) == (0.5, None)


def test_a_difference_of_kids_has_the_deviation_that_its_error_says() -> None:
    generator = torch.Generator().manual_seed(0)
    known = torch.randn(200, 4, generator=generator)

    def drawn(n: int) -> Score:
        return _score("kid", *kid(torch.randn(n, 4, generator=generator) + 0.5, known, 0.0), n=n)

    pairs = [difference(drawn(150), drawn(300)) for _ in range(100)]
    values, errors = (torch.tensor(column) for column in zip(*pairs, strict=True))
    assert float(values.std() / errors.mean()) == pytest.approx(1, abs=0.25)
    assert abs(float(values.mean() / values.std())) < 0.4


@pytest.mark.parametrize(
    ("metric", "value", "stderr", "expected"),
    [
        ("kid", 0.3, 0.3, Judgement.BETTER),
        ("kid", 0.5, 0.3, Judgement.UNDECIDED),
        ("kid", 1.5, 0.3, Judgement.UNDECIDED),
        ("kid", 1.7, 0.3, Judgement.WORSE),
        ("accuracy", 0.3, 0.3, Judgement.WORSE),
        ("accuracy", 1.7, 0.3, Judgement.BETTER),
        ("fid", 0.9, None, Judgement.BETTER),
        ("fid", 1.0, None, Judgement.UNDECIDED),
        ("fid", 1.1, None, Judgement.WORSE),
        ("kid", math.inf, 0.3, Judgement.WORSE),
    ],
)
def test_a_threshold_is_beaten_missed_or_too_near(
    metric: str, value: float, stderr: float | None, expected: Judgement
) -> None:
    assert judge(_score(metric, value, stderr), threshold=1.0) is expected


def test_more_errors_leave_more_undecided() -> None:
    score = _score(value=0.3, stderr=0.3)
    assert [judge(score, 1.0, errors) for errors in (0, 2, 3)] == ["better", "better", "undecided"]


def test_a_value_that_is_no_number_is_not_judged() -> None:
    for score in (_score(value=math.nan), _score(stderr=math.nan)):
        with pytest.raises(ValueError, match=r"cannot be compared with the threshold 1\.0"):
            judge(score, 1.0)
