"""Scores of generated images, each with all that one must know to compare it with another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.errors import InputError
from trainers.evaluation.extractors import Extractor, Features
from trainers.evaluation.frechet import frechet_distance, gaussian_of
from trainers.evaluation.inception_score import inception_score
from trainers.evaluation.kid import kid
from trainers.evaluation.reference import Reference

SPLITS = 10


@dataclass(frozen=True)
class Metric:
    """What a metric wants and where it points."""

    name: str
    minimise: bool
    needs_logits: bool
    needs_labels: bool


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("kid", minimise=True, needs_logits=False, needs_labels=False),
        Metric("fid", minimise=True, needs_logits=False, needs_labels=False),
        Metric("is", minimise=False, needs_logits=True, needs_labels=False),
        Metric("accuracy", minimise=False, needs_logits=True, needs_labels=True),
    )
}


@dataclass(frozen=True)
class Score:
    """One value of one metric. Scores of unlike extractor or reference do not compare, FIDs of unlike n neither."""

    metric: str
    value: float
    stderr: float | None
    """Standard error of the value, None where it has no estimate."""
    n: int
    """Number of generated images."""
    extractor: str
    reference: str
    seed: int


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

    def __init__(self, extractor: Extractor, reference: Reference, metrics: tuple[str, ...], seed: int) -> None:
        """`seed` shuffles the images for the inception score. Raises InputError for metrics that do not work."""
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
        self.extractor = extractor
        self.reference = reference
        self.metrics = metrics
        self.seed = seed

    def __call__(self, images: Tensor, labels: Tensor, conditional: bool = True) -> Evaluation:
        """Scores uint8 images [N, C, H, W] generated for the classes int64 [N].

        Where `conditional` is False the labels mean nothing, and what needs them is left out.
        """
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images but {len(labels)} labels")
        seen = self.extractor(images)
        if self.reference.features.device != seen.features.device:
            self.reference = self.reference.to(seen.features.device)
        names = [name for name in self.metrics if conditional or not METRICS[name].needs_labels]
        logits = seen.logits
        return Evaluation(
            scores={name: self._score(name, seen, labels) for name in names},
            class_shares=None if logits is None else class_shares(logits),
            per_class_accuracy=per_class_accuracy(logits, labels) if logits is not None and conditional else None,
        )

    def _score(self, name: str, seen: Features, labels: Tensor) -> Score:
        value, stderr = self._value(name, seen, labels)
        return Score(name, value, stderr, len(labels), self.extractor.id, self.reference.id, self.seed)

    def _value(self, name: str, seen: Features, labels: Tensor) -> tuple[float, float | None]:
        if name == "kid":
            return kid(seen.features, self.reference.features, self.reference.mean_kernel)
        if name == "fid":
            return frechet_distance(gaussian_of(seen.features), self.reference.gaussian), None
        if seen.logits is None:
            raise ValueError(f"{self.extractor.id} gave no logits")
        if name == "is":
            value, deviation = inception_score(seen.logits, SPLITS, self.seed)
            return value, deviation / math.sqrt(SPLITS - 1)
        return accuracy(seen.logits, labels)


def accuracy(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Share of generated images that a classifier of real ones puts in the class they were generated for.

    This is train-on-real, test-on-synthetic (GAN-test; Shmelkov et al., 2018). Logits [N, K], labels int64 [N]; gives
    the share in [0, 1] and its binomial standard error.
    """
    share = float((logits.argmax(dim=1) == labels.to(logits.device)).double().mean())
    return share, math.sqrt(share * (1 - share) / len(labels))


def class_shares(logits: Tensor) -> tuple[float, ...]:
    """Share of each class among the classifier's decisions, logits [N, K] -> K shares that sum to 1."""
    counts = torch.bincount(logits.argmax(dim=1).cpu(), minlength=logits.shape[1])
    return tuple((counts.double() / len(logits)).tolist())


def per_class_accuracy(logits: Tensor, labels: Tensor) -> tuple[float | None, ...]:
    """Share of images of each class (labels int64 [N]) with the highest of logits [N, K] there; None without any."""
    wanted = labels.cpu()
    right = wanted[logits.argmax(dim=1).cpu() == wanted]
    hits, images = (torch.bincount(part, minlength=logits.shape[1]).tolist() for part in (right, wanted))
    return tuple(hit / count if count else None for hit, count in zip(hits, images, strict=True))
