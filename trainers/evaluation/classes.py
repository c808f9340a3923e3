"""Scores that use the classes of images: accuracies, and distances within each class."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

import torch
from torch import Tensor

from trainers.data.images import ImageData
from trainers.errors import InputError
from trainers.evaluation import lenet
from trainers.evaluation.frechet import fid, gaussian_of
from trainers.evaluation.kid import kid
from trainers.evaluation.reference import Reference

Value = TypeVar("Value")

#: The extractor id in a score of `tstr`: the recipe of the classifier that it trains.
TSTR_RECIPE = f"{lenet.RECIPE.name}-recipe{lenet.RECIPE.version}"


@dataclass(frozen=True)
class OfClass:
    """Measurements of the generated images of one class; None if they are impossible."""

    label: int
    n: int
    """Number of generated images."""
    accuracy: float | None
    kid: float | None
    kid_stderr: float | None
    fid: float | None


def accuracy(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Share of generated images that a classifier of real images assigns to the class they were generated for.

    This is GAN-test, train on real and test on synthetic (Shmelkov et al., 2018). `logits` are [N, K], `labels` int64
    [N]. Returns the share in [0, 1] and its binomial standard error. Raises ValueError for non-finite logits.
    """
    if not torch.isfinite(logits).all():
        raise ValueError("logits are not finite")
    share = float((logits.argmax(dim=1) == labels.to(logits.device)).double().mean())
    return share, _binomial_error(share, len(labels))


def tstr(images: Tensor, labels: Tensor, test: ImageData) -> tuple[float, float]:
    """Share of real images that a classifier trained on generated images gets right.

    This is GAN-train, train on synthetic and test on real (Shmelkov et al., 2018). A new LeNet is trained on uint8
    images [N, C, H, W] with the classes int64 [N] that they were generated for, and tested on all of `test`. Returns
    the share in [0, 1] and its binomial standard error over the real images, which leaves out the chance in the
    training. It takes as long as the training of the extractor, so it is for finished runs, not for rungs. Raises
    ValueError for images of another shape or type than those of `test`.
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
    """Share of each class among the classifier's decisions: logits [N, K] -> K shares in [0, 1] that sum to 1."""
    counts = torch.bincount(logits.argmax(dim=1).cpu(), minlength=logits.shape[1])
    return tuple((counts.double() / len(logits)).tolist())


def per_class_accuracy(logits: Tensor, labels: Tensor) -> tuple[float | None, ...]:
    """Share in [0, 1] of the images of each class (int64 [N]) that logits [N, K] assign to it; None without images.

    Raises InputError for a class of K or more.
    """
    wanted = labels.cpu()
    if (most := int(wanted.max())) >= logits.shape[1]:
        raise InputError(f"the extractor gives {logits.shape[1]} logits, which is too few for {most + 1} classes")
    right = wanted[logits.argmax(dim=1).cpu() == wanted]
    hits, images = (torch.bincount(part, minlength=logits.shape[1]).tolist() for part in (right, wanted))
    return tuple(hit / count if count else None for hit, count in zip(hits, images, strict=True))


def per_class_kid(
    features: Tensor, labels: Tensor, reference: Reference, classes: int
) -> tuple[tuple[float, float] | None, ...]:
    """`kid` with its standard error within each class, from features [N, D] generated for the classes int64 [N].

    None for a class with fewer than 2 generated or fewer than 2 real features. Raises ValueError for non-finite
    features.
    """
    return _per_class(kid, features, labels, reference, classes)


def per_class_fid(features: Tensor, labels: Tensor, reference: Reference, classes: int) -> tuple[float | None, ...]:
    """`fid` within each class, against the kept features of the reference; otherwise as `per_class_kid`.

    FID depends on the number of features, so values of classes of different size do not compare.
    """
    return _per_class(lambda x, y: fid(x, gaussian_of(y)), features, labels, reference, classes)


def intra_kid(features: Tensor, labels: Tensor, reference: Reference) -> tuple[float, float]:
    """Mean of `per_class_kid` over the classes, and its standard error for independent classes.

    `features` [N, D] are generated for the classes int64 [N]. All classes have the same weight. Raises InputError for a
    class with fewer than 2 generated or fewer than 2 real features, and ValueError for non-finite features.
    """
    found = per_class_kid(features, labels, reference, _whole_classes("intra-kid", labels, reference))
    values, errors = zip(*(each for each in found if each is not None), strict=True)
    return fmean(values), math.hypot(*errors) / len(errors)


def intra_fid(features: Tensor, labels: Tensor, reference: Reference) -> float:
    """Mean of `per_class_fid` over the classes (intra FID; Miyato and Koyama, 2018); otherwise as `intra_kid`."""
    found = per_class_fid(features, labels, reference, _whole_classes("intra-fid", labels, reference))
    return fmean(each for each in found if each is not None)


def by_class(
    features: Tensor, logits: Tensor | None, labels: Tensor, reference: Reference, classes: int
) -> tuple[OfClass, ...]:
    """All measurements of each of the `classes`.

    `features` [N, D] and `logits` [N, K] are of images generated for the classes int64 [N]. Accuracy is None if there
    are no logits of just these classes. Raises ValueError for non-finite features.
    """
    counts = torch.bincount(labels.cpu(), minlength=classes).tolist()
    accuracies: tuple[float | None, ...] = (None,) * classes
    if logits is not None and logits.shape[1] == classes:
        accuracies = per_class_accuracy(logits, labels)
    kids = per_class_kid(features, labels, reference, classes)
    fids = per_class_fid(features, labels, reference, classes)
    found = []
    for c in range(classes):
        value, stderr = kids[c] or (None, None)
        found.append(OfClass(c, counts[c], accuracies[c], value, stderr, fids[c]))
    return tuple(found)


def _whole_classes(metric: str, labels: Tensor, reference: Reference) -> int:
    """The number of classes. Raises InputError unless each has at least 2 generated and 2 real images."""
    classes = 1 + max(int(labels.max()), int(reference.labels.max()))
    made, real = (torch.bincount(part.cpu(), minlength=classes).tolist() for part in (labels, reference.labels))
    for c in range(classes):
        if min(made[c], real[c]) < 2:
            raise InputError(
                f"{metric}: class {c} has {made[c]} generated and {real[c]} real images; allowed are 2 or more of each"
            )
    return classes


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
