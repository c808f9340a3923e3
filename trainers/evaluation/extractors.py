"""Feature extractors, which map images to the features that scores compare."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainers.data.images import ImageData
from trainers.errors import InputError
from trainers.evaluation import classifier, cnn, inception, lenet, weights
from trainers.evaluation.classifier import Known, Trained
from trainers.evaluation.resize import full_precision
from trainers.evaluation.spec import CLASSIFIERS, DTypeName, ExtractorSpec
from trainers.names import ExtractorName

#: Images per forward pass. Fixed, since the last bits of features depend on it.
CLASSIFIER_BATCH = 500
CUSTOM_BATCH = 100
#: By type of device. With more than about 20 images of 299x299 on a CPU, the allocator returns the memory to the system
#: after each batch, which doubles the time of the resize.
INCEPTION_BATCH = {"cpu": 16, "cuda": 100}

_DTYPES: dict[DTypeName, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}


class Features(NamedTuple):
    """The output of an extractor for N images."""

    features: Tensor
    """Finite, float32 or float64 [N, D] on the extractor's device."""
    logits: Tensor | None
    """Finite, of the same type, [N, K] for K classes; None if the extractor is no classifier."""


@dataclass(frozen=True)
class Extractor:
    """Maps images to features in batches of a fixed size. Extractors whose features may differ have different ids."""

    id: str
    dim: int
    classes: int | None
    """Number of logits; None if there are none."""
    channels: frozenset[int]
    """Allowed numbers of colour channels."""
    size: tuple[int, int] | None
    """Allowed height and width, None for any."""
    batch: int
    forward: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    weights: Path | None = None
    """The file of its weights."""
    sha256: str = ""
    """Of that file."""

    def __call__(self, images: Tensor) -> Features:
        """Features of uint8 images [N, C, H, W] in [0, 255] on any device, N at least 1.

        Memory is bounded by the batch. Raises ValueError for images of another type or shape, and InputError if the
        network returns numbers that are not finite.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0:
            raise ValueError(f"images are {images.dtype} {tuple(images.shape)}, not uint8 [N, C, H, W]")
        channels, height, width = images.shape[1:]
        if channels not in self.channels or self.size not in (None, (height, width)):
            raise ValueError(
                f"images have C, H, W = {channels, height, width}; {self.id} takes C in {sorted(self.channels)} "
                f"and H, W = {self.size or 'any'}"
            )
        with torch.no_grad(), full_precision():
            parts = [self.forward(part) for part in torch.split(images, self.batch)]
        logits = [part for _, part in parts if part is not None]
        seen = Features(torch.cat([part for part, _ in parts]), torch.cat(logits) if logits else None)
        for name, values in seen._asdict().items():
            if values is not None and not (finite := torch.isfinite(values).all(dim=1)).all():
                raise InputError(
                    f"extractor {self.id}: {name} of {int((~finite).sum())} of {len(images)} images are not finite, "
                    f"first those of image {int((~finite).nonzero()[0])}; its weights do not suit these images"
                )
        return seen


def check_extractor(spec: ExtractorSpec, cache: Path) -> None:
    """Raises InputError if `build_extractor` would lack weights, or if `cache` cannot be written.

    Downloads the official weights at the first use; creates nothing else.
    """
    existing = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(f"cache {cache} cannot be written: {existing} is no folder one may write to; name another")
    if spec.name not in CLASSIFIERS:
        weights.resolve(spec.name, spec.weights, spec.sha256, cache)


def build_extractor(
    spec: ExtractorSpec,
    train: ImageData,
    test: ImageData,
    cache: Path,
    device: torch.device | str,
    known: Known | None = None,
) -> Extractor:
    """The extractor of a data set, on `device`; trained or downloaded into `cache` at the first use.

    `known` chooses among classifiers trained on the same data, as in `classifier.trained`.

    Raises InputError like `check_extractor`, for a file that holds no such network, for data that the extractor cannot
    handle, and for weights that are lost.
    """
    if spec.name in CLASSIFIERS:
        recipe = recipe_of(spec.name)
        return _classifier(recipe, spec.dtype, train, classifier.trained(recipe, train, test, cache, known), device)
    path, sha256 = weights.resolve(spec.name, spec.weights, spec.sha256, cache)
    if spec.name == "custom":
        return _custom(path, sha256, spec.dtype, train, device)
    return _inception(spec.name, path, sha256, spec.dtype, device)


def recipe_of(name: ExtractorName) -> classifier.Recipe:
    """The network and training of one of CLASSIFIERS."""
    return {"lenet": lenet.RECIPE, "cnn": cnn.RECIPE}[name]


def _classifier(
    recipe: classifier.Recipe,
    dtype: DTypeName,
    train: ImageData,
    trained: Trained,
    device: torch.device | str,
) -> Extractor:
    net, weights, sha256 = trained
    net.to(device, _DTYPES[dtype])

    def forward(images: Tensor) -> tuple[Tensor, Tensor | None]:
        features, logits = net(recipe.prepare(images.to(device), _DTYPES[dtype]))
        return features, logits

    channels, height, width = train.shape
    return Extractor(
        id=f"{recipe.name}-{sha256[:12]}-{dtype}-{recipe.resize(height, width)}",
        dim=recipe.dim,
        classes=train.classes,
        channels=frozenset({channels}),
        size=(height, width),
        batch=CLASSIFIER_BATCH,
        forward=forward,
        weights=weights,
        sha256=sha256,
    )


def _inception(name: str, path: Path, sha256: str, dtype: DTypeName, device: torch.device | str) -> Extractor:
    load = inception.plain if name == "inception-pt" else inception.scripted
    network = load(path, device, _DTYPES[dtype])
    custom = "" if sha256 == weights.SHA256 else "custom-"
    return Extractor(
        id=f"{name}-{custom}{sha256[:12]}-{dtype}-bicubic299",
        dim=inception.DIM,
        classes=None,
        channels=frozenset({1, 3}),
        size=None,
        batch=INCEPTION_BATCH[torch.device(device).type],
        forward=lambda images: (network(images), None),
        weights=path,
        sha256=sha256,
    )


def _custom(path: Path, sha256: str, dtype: DTypeName, train: ImageData, device: torch.device | str) -> Extractor:
    """The module of the user's file, from `dtype` [N, C, H, W] in [0, 255] to features [N, D] or (features, logits)."""
    module = weights.load_script("custom", path, device).to(device, _DTYPES[dtype])

    def forward(images: Tensor) -> tuple[Tensor, Tensor | None]:
        answer = module(images.to(device, _DTYPES[dtype]))
        parts = answer if isinstance(answer, tuple) else (answer,)
        if len(parts) not in (1, 2) or not all(_is_matrix(part, len(images)) for part in parts):
            shown = ", ".join(str(tuple(part.shape)) if isinstance(part, Tensor) else repr(part) for part in parts)
            raise InputError(
                f"extractor custom: {path} gives {shown} for {len(images)} images; allowed are floating features "
                "[N, D] or (features [N, D], logits [N, K])"
            )
        features, *logits = (part.to(_DTYPES[dtype]) for part in parts)
        return features, logits[0] if logits else None

    try:
        with torch.no_grad(), full_precision():
            features, logits = forward(train.images[:2])
    except RuntimeError as error:
        raise InputError(
            f"extractor custom: {path} takes no {dtype} images {tuple(train.images[:2].shape)} in [0, 255] "
            f"({weights.first_line(error)})"
        ) from error
    channels, height, width = train.shape
    return Extractor(
        id=f"custom-{sha256[:12]}-{dtype}-asis",
        dim=features.shape[1],
        classes=None if logits is None else logits.shape[1],
        channels=frozenset({channels}),
        size=(height, width),
        batch=CUSTOM_BATCH,
        forward=forward,
        weights=path,
        sha256=sha256,
    )


def _is_matrix(part: Any, rows: int) -> bool:
    return isinstance(part, Tensor) and part.is_floating_point() and part.ndim == 2 and len(part) == rows
