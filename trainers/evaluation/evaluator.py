"""Scores images: one pass through the extractor serves all metrics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from trainers.data.images import ImageData
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
from trainers.evaluation.neighbours import coverage, density, precision, recall
from trainers.evaluation.reference import Reference
from trainers.evaluation.scores import METRICS, SPLITS, TOO_SLOW, Metric, Score


@dataclass(frozen=True)
class Seen:
    """The inputs of a metric: N generated images, their features, and what they are compared with."""

    images: Tensor
    """uint8 [N, C, H, W]."""
    features: Tensor
    """float32 or float64 [N, D]."""
    logits: Tensor | None
    """float32 or float64 [N, K]; None if the extractor is no classifier."""
    labels: Tensor
    """int64 [N], the classes the images were generated for."""
    reference: Reference
    """The reference, on the device of the features."""
    test: ImageData | None
    """The real images of the test split; None if the evaluator has none."""
    seed: int


Measure = Callable[[Seen], tuple[float, float | None]]
"""Returns the value of a metric and its standard error, None if there is no estimate."""


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


#: The function that measures each metric of METRICS.
MEASURES: dict[str, Measure] = {
    "kid": _kid,
    "fid": lambda seen: (fid(seen.features, seen.reference.gaussian), None),
    "is": lambda seen: _is(seen, "split"),
    "accuracy": lambda seen: accuracy(_logits(seen), seen.labels),
    "kid-biased": lambda seen: _kid(seen, biased=True),
    "fid-infinity": lambda seen: fid_infinity(seen.features, seen.reference.gaussian, seen.seed),
    "is-pooled": lambda seen: _is(seen, "pooled"),
    "is-external": lambda seen: _is(seen, "external"),
    "precision": lambda seen: precision(seen.features, seen.reference.features, seen.reference.precision_radii),
    "recall": lambda seen: (recall(seen.features, seen.reference.features), None),
    "density": lambda seen: density(seen.features, seen.reference.features, seen.reference.coverage_radii),
    "coverage": lambda seen: (
        coverage(seen.features, seen.reference.features, seen.reference.coverage_radii),
        None,
    ),
    "intra-kid": lambda seen: intra_kid(seen.features, seen.labels, seen.reference),
    "intra-fid": lambda seen: (intra_fid(seen.features, seen.labels, seen.reference), None),
    "tstr": _tstr,
}


@dataclass(frozen=True)
class Evaluation:
    """The results of one evaluation of generated images."""

    scores: dict[str, Score]
    """By metric, in the order asked for."""
    class_shares: tuple[float, ...] | None
    """Result of `classes.class_shares`; None if the extractor is no classifier."""
    per_class_accuracy: tuple[float | None, ...] | None
    """Result of `classes.per_class_accuracy`; None if the extractor is no classifier or the labels mean nothing."""


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
        """`seed` shuffles the images for the inception score; `test` is the real test split, for metrics that need it.

        Raises InputError for unknown metrics, and for those that `extractor` or `test` cannot serve.
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
        """Scores uint8 images [N, C, H, W] generated for the classes int64 [N], by `metrics`, or by its own if None.

        If `conditional` is False, the labels mean nothing and metrics that need them are left out. `extract`, if given,
        replaces the call of the extractor, for example by one that uses several processes. Raises ValueError for fewer
        images than a metric needs, InputError for fewer of a class, and what the extractor raises.
        """
        return self.evaluation(self.see(images, labels, extract), conditional, metrics)

    def see(self, images: Tensor, labels: Tensor, extract: Callable[[Tensor], Features] | None = None) -> Seen:
        """Only the pass through the extractor; arguments and errors as for a call."""
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images but {len(labels)} labels")
        features, logits = (extract or self.extractor)(images)
        if self.reference.features.device != features.device:
            self.reference = self.reference.to(features.device)
        return Seen(images, features, logits, labels, self.reference, self.test, self.seed)

    def evaluation(self, seen: Seen, conditional: bool = True, metrics: tuple[str, ...] | None = None) -> Evaluation:
        """The scores of images whose features are known; arguments and errors as for a call."""
        logits, labels = seen.logits, seen.labels
        names = [name for name in metrics or self.metrics if conditional or not METRICS[name].needs_labels]
        return Evaluation(
            scores={name: self._score(METRICS[name], seen) for name in names},
            class_shares=None if logits is None else class_shares(logits),
            per_class_accuracy=per_class_accuracy(logits, labels) if logits is not None and conditional else None,
        )

    def _score(self, metric: Metric, seen: Seen) -> Score:
        value, stderr = MEASURES[metric.name](seen)
        network, real = self.extractor.id, self.reference.id
        if metric.needs_test and self.test is not None:
            network, real = TSTR_RECIPE, self.test.id
        return Score(metric.name, value, stderr, len(seen.labels), network, real, self.seed)
