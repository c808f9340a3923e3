"""What the classes of images add: accuracies in both directions, and distances class by class."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from trainers.data import ImageData
from trainers.evaluation import lenet
from trainers.evaluation.frechet import fid, gaussian_of
from trainers.evaluation.kid import kid
from trainers.evaluation.reference import Reference

Value = TypeVar("Value")


def accuracy(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Share of generated images that a classifier of real ones puts in the class they were generated for.

    This is train-on-real, test-on-synthetic (GAN-test; Shmelkov et al., 2018). Logits [N, K], labels int64 [N]; gives
    the share in [0, 1] and its binomial standard error. Raises ValueError for non-finite logits.
    """
    if not torch.isfinite(logits).all():
        raise ValueError("logits are not finite")
    share = float((logits.argmax(dim=1) == labels.to(logits.device)).double().mean())
    return share, _binomial_error(share, len(labels))


def tstr(images: Tensor, labels: Tensor, test: ImageData) -> tuple[float, float]:
    """Train on synthetic, test on real (GAN-train; Shmelkov et al., 2018): share of real images classified rightly.

    A fresh LeNet learns uint8 images [N, C, H, W] with the classes int64 [N] that they were generated for, and is
    tested on all of `test`. Gives the share in [0, 1] and its binomial standard error over the real images, which
    holds for this very training. A training takes as long as that of the extractor: a number for the end, not for
    rungs. Raises ValueError for images that are not like those of `test`.
    """
    if images.dtype != torch.uint8 or images.shape[1:] != test.images.shape[1:] or len(images) != len(labels):
        raise ValueError(
            f"{len(labels)} labels and images {images.dtype} {tuple(images.shape)}: "
            f"{test.name} needs as many uint8 [N, {', '.join(map(str, test.shape))}]"
        )
    net = lenet.fit(ImageData(images, labels, test.classes, "synthetic", "train"))
    share = lenet.accuracy(net, test)
    return share, _binomial_error(share, len(test.images))


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


def per_class_kid(
    features: Tensor, labels: Tensor, reference: Reference, classes: int
) -> tuple[tuple[float, float] | None, ...]:
    """`kid` with its standard error within each class; features [N, D] generated for the classes int64 [N].

    None for a class with fewer than 2 features on either side. Raises ValueError for non-finite features.
    """
    return _per_class(kid, features, labels, reference, classes)


def per_class_fid(features: Tensor, labels: Tensor, reference: Reference, classes: int) -> tuple[float | None, ...]:
    """`fid` within each class, against the kept features of the reference; as `per_class_kid`.

    The number of features is that of the class: values of classes of unlike size do not compare.
    """
    return _per_class(lambda x, y: fid(x, gaussian_of(y)), features, labels, reference, classes)


def _per_class(
    measure: Callable[[Tensor, Tensor], Value], features: Tensor, labels: Tensor, reference: Reference, classes: int
) -> tuple[Value | None, ...]:
    if len(features) != len(labels):
        raise ValueError(f"{len(features)} features but {len(labels)} labels")
    own, real = labels.to(features.device), reference.labels.to(features.device)
    known = reference.features.to(features.device)
    pairs = ((features[own == c], known[real == c]) for c in range(classes))
    return tuple(measure(x, y) if min(len(x), len(y)) > 1 else None for x, y in pairs)


def _binomial_error(share: float, count: int) -> float:
    return math.sqrt(share * (1 - share) / count)
