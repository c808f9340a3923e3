"""What generated images are compared with: the features of real ones, computed once."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from trainers.data import ImageData
from trainers.data.files import replaced
from trainers.evaluation.extractors import Extractor
from trainers.evaluation.frechet import Gaussian, gaussian_of
from trainers.evaluation.kid import mean_kernel

#: Features kept for the kernel distance.
MOST_FEATURES = 10_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reference:
    """Real images as an extractor sees them. D features, M of n images."""

    features: Tensor
    """float32 [M, D]: all, or MOST_FEATURES evenly spaced ones."""
    mean: Tensor
    """float64 [D] over all n images."""
    cov: Tensor
    """float64 [D, D], unbiased, over all n images."""
    n: int
    id: str
    """`<data set>-<split>-<first digits of the data's sha256>`."""

    @cached_property
    def gaussian(self) -> Gaussian:
        """The moments with their root, which every Fréchet distance to this reference needs."""
        return Gaussian(self.mean, self.cov)

    @cached_property
    def mean_kernel(self) -> float:
        """The part of every kernel distance that depends on this reference alone."""
        return mean_kernel(self.features)

    def to(self, device: torch.device | str) -> Reference:
        """The same reference on `device`."""
        return replace(self, features=self.features.to(device), mean=self.mean.to(device), cov=self.cov.to(device))


def reference_of(extractor: Extractor, data: ImageData, cache: Path) -> Reference:
    """The reference of a split, on the CPU; kept in `cache` under the data's checksum, split and extractor."""
    path = cache / f"reference-{data.sha256[:16]}-{data.split}-{extractor.id}.safetensors"
    name = f"{data.name}-{data.split}-{data.sha256[:12]}"
    tensors = _read(path, extractor.dim, len(data.images))
    if tensors is None:
        features = extractor(data.images).features
        moments = gaussian_of(features)
        kept = torch.arange(min(len(features), MOST_FEATURES)) * len(features) // min(len(features), MOST_FEATURES)
        chosen = features[kept.to(features.device)]
        tensors = {
            key: value.cpu() for key, value in (("features", chosen), ("mean", moments.mean), ("cov", moments.cov))
        }
        with replaced(path) as temporary:
            safetensors.torch.save_file(tensors, temporary)
    return Reference(**tensors, n=len(data.images), id=name)


def _read(path: Path, dim: int, count: int) -> dict[str, Tensor] | None:
    """The cached tensors, None where there are none; a damaged file is passed over and will be replaced."""
    if not path.exists():
        return None
    expected = {"features": (min(count, MOST_FEATURES), dim), "mean": (dim,), "cov": (dim, dim)}
    try:
        tensors = safetensors.torch.load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        _log.warning("%s: damaged (%s); the reference is computed again", path, error)
        return None
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != expected:
        _log.warning("%s: damaged (wrong shapes); the reference is computed again", path)
        return None
    return tensors
