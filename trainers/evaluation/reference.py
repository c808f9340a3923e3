"""The features of real images, computed once, with which generated images are compared."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from trainers.data.files import replaced
from trainers.data.images import ImageData
from trainers.evaluation.extractors import Extractor
from trainers.evaluation.frechet import Gaussian, Moments
from trainers.evaluation.kid import mean_kernel
from trainers.evaluation.neighbours import ball_radii
from trainers.evaluation.scores import COVERAGE_K, METRICS, PRECISION_K

#: Features kept for the kernel distance and for nearest neighbours.
MOST_FEATURES = 10_000
#: Part of the file name in the cache. Raise it with every change of the content.
FORMAT = 2

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reference:
    """D features of each of n real images: M of them, and their moments over all n."""

    features: Tensor
    """float32 or float64 [M, D]: all, or MOST_FEATURES evenly spaced ones."""
    labels: Tensor
    """Classes of the kept features, int64 [M]."""
    mean: Tensor
    """float64 [D] over all n images."""
    cov: Tensor
    """float64 [D, D], unbiased, over all n images."""
    n: int
    id: str
    """`ImageData.id` of the real images."""

    @cached_property
    def gaussian(self) -> Gaussian:
        """The moments with their root, which every Fréchet distance to this reference needs."""
        return Gaussian(self.mean, self.cov)

    @cached_property
    def mean_kernel(self) -> float:
        """The part of every kernel distance that depends only on this reference."""
        return mean_kernel(self.features)

    @cached_property
    def precision_radii(self) -> Tensor:
        """`ball_radii` of the kept features for precision, float64 [M]."""
        return ball_radii(self.features, PRECISION_K)

    @cached_property
    def coverage_radii(self) -> Tensor:
        """`ball_radii` of the kept features for density and coverage, float64 [M]."""
        return ball_radii(self.features, COVERAGE_K)

    def to(self, device: torch.device | str) -> Reference:
        """The same reference on `device`."""
        moved = {name: getattr(self, name).to(device) for name in ("features", "labels", "mean", "cov")}
        return replace(self, **moved)


def reference_of(extractor: Extractor, data: ImageData, cache: Path) -> Reference:
    """The reference of a split, on the CPU; cached in `cache` by the data's checksum, the split and the extractor.

    Raises ValueError for fewer than 2 images, and what the extractor raises.
    """
    path = cache / f"reference-{FORMAT}-{data.sha256[:16]}-{data.split}-{extractor.id}.safetensors"
    tensors = _read(path, extractor.dim, len(data.images))
    if tensors is None:
        tensors = _computed(extractor, data)
        with replaced(path) as temporary:
            safetensors.torch.save_file(tensors, temporary)
    return Reference(**tensors, n=len(data.images), id=data.id)


def unmeasurable(metric: str, counts: Sequence[int]) -> str | None:
    """Why `metric` has no value against real images, `counts` of each class; None if it has one."""
    needed, images = METRICS[metric].fewest_real, sum(counts)
    if images < needed:
        return f"{metric} needs at least {needed} training images, there are {images}"
    # The kept images are evenly spaced, so they have about the shares of the classes.
    fewest = min(counts) * min(images, MOST_FEATURES) // images
    if METRICS[metric].within_classes and fewest < needed:
        return (
            f"{metric} needs at least {needed} training images of each class among the {min(images, MOST_FEATURES)} of "
            f"the reference; the smallest class has {min(counts)} of {images}"
        )
    return None


def _computed(extractor: Extractor, data: ImageData) -> dict[str, Tensor]:
    """The tensors of a reference. Only the kept features and those of one batch are in memory at a time."""
    count = len(data.images)
    kept = torch.arange(min(count, MOST_FEATURES)) * count // min(count, MOST_FEATURES)
    moments, chosen = Moments(), []
    for first in range(0, count, extractor.batch):
        features = extractor(data.images[first : first + extractor.batch]).features
        moments.add(features)
        here = kept[(kept >= first) & (kept < first + len(features))] - first
        chosen.append(features[here.to(features.device)].cpu())
    gaussian = moments.gaussian()
    return {
        "features": torch.cat(chosen),
        "labels": data.labels.cpu()[kept],
        "mean": gaussian.mean.cpu(),
        "cov": gaussian.cov.cpu(),
    }


def _read(path: Path, dim: int, count: int) -> dict[str, Tensor] | None:
    """The cached tensors; None if there is no file, or a damaged one, which will be replaced."""
    if not path.exists():
        return None
    kept = min(count, MOST_FEATURES)
    expected = {"features": (kept, dim), "labels": (kept,), "mean": (dim,), "cov": (dim, dim)}
    try:
        tensors = safetensors.torch.load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        _log.warning("%s: damaged (%s); the reference is computed again", path, error)
        return None
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != expected:
        _log.warning("%s: damaged (wrong shapes); the reference is computed again", path)
        return None
    return tensors
