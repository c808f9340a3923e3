"""Scores of generated images, each with all that one must know to compare it with another."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from trainers.data import ImageData
from trainers.errors import InputError
from trainers.evaluation.classes import (
    TSTR_RECIPE,
    accuracy,
    class_shares,
    intra_fid,
    intra_kid,
    per_class_accuracy,
    tstr,
)
from trainers.evaluation.extractors import Extractor, Features
from trainers.evaluation.frechet import fid, fid_infinity
from trainers.evaluation.inception_score import Marginal, inception_score
from trainers.evaluation.kid import kid
from trainers.evaluation.neighbours import PRECISION_K, coverage, density, precision, recall
from trainers.evaluation.reference import Reference

SPLITS = 10
#: Why a metric that needs the test split is for finished images alone.
TOO_SLOW = "trains a classifier for each value, which is for the end: use `gansweep score`"


@dataclass(frozen=True)
class Seen:
    """What a metric may look at: N generated images as an extractor sees them, and what they are compared with."""

    images: Tensor
    """uint8 [N, C, H, W]."""
    features: Tensor
    """float32 or float64 [N, D]."""
    logits: Tensor | None
    """float32 or float64 [N, K], None where the extractor is no classifier."""
    labels: Tensor
    """int64 [N], the classes the images were generated for."""
    reference: Reference
    """On the device of the features."""
    test: ImageData | None
    """The real images of the test split, None where only the features of the training split are at hand."""
    seed: int


Measure = Callable[[Seen], tuple[float, float | None]]


@dataclass(frozen=True)
class Metric:
    """What a metric wants and where it points."""

    name: str
    minimise: bool
    measure: Measure
    """Gives the value and its standard error, None where that has no estimate."""
    needs_logits: bool = False
    needs_labels: bool = False
    needs_test: bool = False
    """Whether it looks at the real test images instead of the features, and trains on the generated ones."""
    routine: bool = False
    """Whether it is recorded where nothing is said about it."""
    any_n: bool = False
    """Whether values of unlike numbers of images compare: their expectation does not depend on it."""
    fewest: int = 2
    """Fewest images that it is defined for."""
    within_classes: bool = False
    """Whether it needs the fewest images of every class."""


def _kid(seen: Seen, biased: bool = False) -> tuple[float, float | None]:
    return kid(seen.features, seen.reference.features, seen.reference.mean_kernel, biased)


def _is(seen: Seen, marginal: Marginal) -> tuple[float, float | None]:
    value, deviation = inception_score(_logits(seen), SPLITS, seen.seed, marginal)
    return value, deviation / math.sqrt(SPLITS - 1)


def _logits(seen: Seen) -> Tensor:
    if seen.logits is None:
        raise ValueError("the extractor gave no logits")
    return seen.logits


def _tstr(seen: Seen) -> tuple[float, float]:
    if seen.test is None:
        raise ValueError("the evaluator was given no test images")
    return tstr(seen.images, seen.labels, seen.test)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("kid", True, _kid, routine=True, any_n=True),
        Metric("fid", True, lambda seen: (fid(seen.features, seen.reference.gaussian), None), routine=True),
        Metric("is", False, lambda seen: _is(seen, "split"), needs_logits=True, routine=True, fewest=2 * SPLITS),
        Metric(
            "accuracy",
            False,
            lambda seen: accuracy(_logits(seen), seen.labels),
            needs_logits=True,
            needs_labels=True,
            routine=True,
            any_n=True,
        ),
        Metric("kid-biased", True, lambda seen: _kid(seen, biased=True)),
        Metric(
            "fid-infinity",
            True,
            lambda seen: fid_infinity(seen.features, seen.reference.gaussian, seen.seed),
            any_n=True,
            fewest=20,
        ),
        Metric("is-pooled", False, lambda seen: _is(seen, "pooled"), needs_logits=True, fewest=2 * SPLITS),
        Metric("is-external", False, lambda seen: _is(seen, "external"), needs_logits=True, fewest=2 * SPLITS),
        Metric(
            "precision",
            False,
            lambda seen: precision(seen.features, seen.reference.features, seen.reference.precision_radii),
            any_n=True,
        ),
        Metric(
            "recall",
            False,
            lambda seen: (recall(seen.features, seen.reference.features), None),
            fewest=PRECISION_K + 1,
        ),
        Metric(
            "density",
            False,
            lambda seen: density(seen.features, seen.reference.features, seen.reference.coverage_radii),
            any_n=True,
        ),
        Metric(
            "coverage",
            False,
            lambda seen: (coverage(seen.features, seen.reference.features, seen.reference.coverage_radii), None),
        ),
        Metric(
            "intra-kid",
            True,
            lambda seen: intra_kid(seen.features, seen.labels, seen.reference),
            needs_labels=True,
            any_n=True,
            within_classes=True,
        ),
        Metric(
            "intra-fid",
            True,
            lambda seen: (intra_fid(seen.features, seen.labels, seen.reference), None),
            needs_labels=True,
            within_classes=True,
        ),
        Metric("tstr", False, _tstr, needs_labels=True, needs_test=True),
    )
}


@dataclass(frozen=True)
class Score:
    """One value of one metric; `comparable` says which others it compares with."""

    metric: str
    value: float
    stderr: float | None
    """Standard error of the value, None where it has no estimate."""
    n: int
    """Number of generated images."""
    extractor: str
    """Its id, which tells weights, precision and resizing apart; of `tstr` the recipe of its classifier."""
    reference: str
    """The id of the real images it was measured against."""
    seed: int


class Judgement(StrEnum):
    """How a score lies to a threshold."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"


def comparable(a: Score, b: Score) -> str | None:
    """Why two scores do not compare, None where they do.

    Metric, extractor and reference must be the same, and the number of images where the metric's expectation depends
    on it.
    """
    for key in ("metric", "extractor", "reference"):
        own, other = getattr(a, key), getattr(b, key)
        if own != other:
            return f"{key} {own} is not {other}"
    if a.n != b.n and not METRICS[a.metric].any_n:
        return f"{a.metric} depends on the number of images: {a.n:,} are not {b.n:,}"
    return None


def difference(a: Score, b: Score) -> tuple[float, float | None]:
    """a - b and its standard error for images drawn independently; no error where either score has none.

    Raises ValueError where they do not compare.
    """
    if reason := comparable(a, b):
        raise ValueError(f"scores do not compare: {reason}")
    stderr = None if a.stderr is None or b.stderr is None else math.hypot(a.stderr, b.stderr)
    return a.value - b.value, stderr


def judge(score: Score, threshold: float, errors: float = 2.0) -> Judgement:
    """Whether a score lies beyond `threshold` by more than `errors` of its standard errors, and on which side.

    Without a standard error its value decides; equal to the threshold it is undecided. Raises ValueError for a NaN.
    """
    margin = errors * (score.stderr or 0.0)
    gain = (threshold - score.value) * (1 if METRICS[score.metric].minimise else -1)
    if math.isnan(gain) or math.isnan(margin):
        raise ValueError(f"{score.metric} {score.value} with error {score.stderr} cannot be held against {threshold}")
    if abs(gain) <= margin:
        return Judgement.UNDECIDED
    return Judgement.BETTER if gain > 0 else Judgement.WORSE


@dataclass(frozen=True)
class Evaluation:
    """All that one pass through the extractor says of generated images."""

    scores: dict[str, Score]
    """By metric, the one that decides first."""
    class_shares: tuple[float, ...] | None
    """As `class_shares` gives them; None where the extractor is no classifier."""
    per_class_accuracy: tuple[float | None, ...] | None
    """As `per_class_accuracy` gives them; None without a classifier or where labels mean nothing."""


class Evaluator:
    """Scores images against a reference; one pass through the extractor serves all metrics."""

    def __init__(
        self,
        extractor: Extractor,
        reference: Reference,
        metrics: tuple[str, ...],
        seed: int,
        test: ImageData | None = None,
    ) -> None:
        """`seed` shuffles the images for the inception score, `test` is the real test split for what needs it.

        Raises InputError for metrics that do not work.
        """
        if not metrics:
            raise InputError(f"metrics: at least one is needed, allowed are {', '.join(METRICS)}")
        for name in metrics:
            if name not in METRICS:
                raise InputError(f"metrics: unknown metric {name!r}, allowed are {', '.join(METRICS)}")
            if METRICS[name].needs_logits and extractor.classes is None:
                fitting = ", ".join(metric.name for metric in METRICS.values() if not metric.needs_logits)
                raise InputError(
                    f"metrics: {name} needs a classifier and {extractor.id} is none: allowed with it are {fitting}; "
                    "or use the extractor lenet"
                )
            if METRICS[name].needs_test and test is None:
                raise InputError(f"metrics: {name} {TOO_SLOW}")
        self.extractor = extractor
        self.reference = reference
        self.metrics = metrics
        self.seed = seed
        self.test = test

    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        conditional: bool = True,
        metrics: tuple[str, ...] | None = None,
        extract: Callable[[Tensor], Features] | None = None,
    ) -> Evaluation:
        """Scores uint8 images [N, C, H, W] generated for the classes int64 [N], by `metrics` where given, else its own.

        Where `conditional` is False the labels mean nothing, and what needs them is left out. `extract` does the
        extractor's pass, by several processes perhaps, where given. Raises ValueError for fewer images than a metric
        needs, InputError for fewer of a class, and what the extractor raises.
        """
        return self.evaluation(self.see(images, labels, extract), conditional, metrics)

    def see(self, images: Tensor, labels: Tensor, extract: Callable[[Tensor], Features] | None = None) -> Seen:
        """The pass through the extractor; arguments and errors as for a call."""
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images but {len(labels)} labels")
        features, logits = (extract or self.extractor)(images)
        if self.reference.features.device != features.device:
            self.reference = self.reference.to(features.device)
        return Seen(images, features, logits, labels, self.reference, self.test, self.seed)

    def evaluation(self, seen: Seen, conditional: bool = True, metrics: tuple[str, ...] | None = None) -> Evaluation:
        """What a call gives, of images that went through the extractor already."""
        logits, labels = seen.logits, seen.labels
        names = [name for name in metrics or self.metrics if conditional or not METRICS[name].needs_labels]
        return Evaluation(
            scores={name: self._score(METRICS[name], seen) for name in names},
            class_shares=None if logits is None else class_shares(logits),
            per_class_accuracy=per_class_accuracy(logits, labels) if logits is not None and conditional else None,
        )

    def _score(self, metric: Metric, seen: Seen) -> Score:
        value, stderr = metric.measure(seen)
        network, real = self.extractor.id, self.reference.id
        if metric.needs_test and self.test is not None:
            network, real = TSTR_RECIPE, f"{self.test.name}-{self.test.split}-{self.test.sha256[:12]}"
        return Score(metric.name, value, stderr, len(seen.labels), network, real, self.seed)
