"""Feature extractors: from images to the numbers that the scores compare."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from trainers.data import ImageData
from trainers.errors import InputError
from trainers.evaluation import inception, lenet, weights

#: Images per forward pass; fixed, since single features depend on it in their last bits.
LENET_BATCH = 500
INCEPTION_BATCH = 50

ExtractorName = Literal["lenet", "inception"]
EXTRACTORS: tuple[ExtractorName, ...] = get_args(ExtractorName)


class ExtractorSpec(BaseModel):
    """A feature extractor by name; a bare string means `name`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ExtractorName = Field(
        default="lenet", description="lenet: classifier trained on the real images; inception: the official FID network"
    )
    weights: Path | None = Field(
        default=None, description="TorchScript file in place of the official one (inception only)"
    )
    sha256: str | None = Field(
        default=None, pattern="^[0-9a-fA-F]{64}$", description="checksum that `weights` must have"
    )

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.name != "inception" and self.weights is not None:
            raise ValueError(f"weights belong to inception alone, not to {self.name}")
        if self.weights is None and self.sha256 is not None:
            raise ValueError("sha256 is the checksum of `weights`, which are not given")
        return self


class Features(NamedTuple):
    """What an extractor sees in N images."""

    features: Tensor
    """float32 [N, D] on the extractor's device."""
    logits: Tensor | None
    """float32 [N, K] over K classes, None where the extractor is no classifier."""


@dataclass(frozen=True)
class Extractor:
    """Maps images to features in batches of a fixed size; `id` tells apart all that changes a feature."""

    id: str
    dim: int
    classes: int | None
    """Number of logits, None without."""
    channels: frozenset[int]
    """Allowed numbers of colour channels."""
    size: tuple[int, int] | None
    """Allowed height and width, None for any."""
    batch: int
    forward: Callable[[Tensor], tuple[Tensor, Tensor | None]]

    def __call__(self, images: Tensor) -> Features:
        """Features of uint8 images [N, C, H, W] on any device; N is at least 1. Raises ValueError for others."""
        if images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0:
            raise ValueError(f"images are {images.dtype} {tuple(images.shape)}, not uint8 [N, C, H, W]")
        channels, height, width = images.shape[1:]
        if channels not in self.channels or self.size not in (None, (height, width)):
            raise ValueError(
                f"images have C, H, W = {channels, height, width}; {self.id} takes C in {sorted(self.channels)} "
                f"and H, W = {self.size or 'any'}"
            )
        with torch.no_grad(), _full_precision():
            parts = [self.forward(part) for part in torch.split(images, self.batch)]
        logits = [part for _, part in parts if part is not None]
        return Features(torch.cat([part for part, _ in parts]), torch.cat(logits) if logits else None)


def check_extractor(spec: ExtractorSpec, cache: Path) -> None:
    """Raises InputError where `build_extractor` would lack weights or a place to keep its own.

    Fetches the official weights on first use, and makes nothing else.
    """
    existing = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(f"cache {cache} cannot be written: {existing} is no folder one may write to; name another")
    if spec.name == "inception":
        weights.resolve(spec.weights, spec.sha256, cache)


def build_extractor(
    spec: ExtractorSpec, train: ImageData, test: ImageData, cache: Path, device: torch.device | str
) -> Extractor:
    """The extractor of a data set on `device`; trained or fetched into `cache` on first use.

    Raises InputError as `check_extractor` does, and for data that the extractor does not suit.
    """
    if spec.name == "inception":
        path, sha256 = weights.resolve(spec.weights, spec.sha256, cache)
        return _inception(path, sha256, device)
    net, sha256 = lenet.trained(train, test, cache)
    net.to(device)

    def forward(images: Tensor) -> tuple[Tensor, Tensor | None]:
        features, logits = net(lenet.prepare(images.to(device)))
        return features, logits

    channels, height, width = train.images.shape[1:]
    return Extractor(
        id=f"lenet-{sha256[:12]}-float32-{lenet.resize_name(height, width)}",
        dim=lenet.DIM,
        classes=train.classes,
        channels=frozenset({channels}),
        size=(height, width),
        batch=LENET_BATCH,
        forward=forward,
    )


def _inception(path: Path, sha256: str, device: torch.device | str) -> Extractor:
    network = inception.Inception(path, device)
    custom = "" if sha256 == weights.SHA256 else "custom-"
    return Extractor(
        id=f"inception-{custom}{sha256[:12]}-float32-bicubic299",
        dim=inception.DIM,
        classes=None,
        channels=frozenset({1, 3}),
        size=None,
        batch=INCEPTION_BATCH,
        forward=lambda images: (network(images), None),
    )


@contextmanager
def _full_precision() -> Iterator[None]:
    """Turns TF32 off: features with 10 bits of mantissa would make scores depend on the GPU."""
    settings = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value
