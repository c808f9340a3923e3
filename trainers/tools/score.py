"""Scores of the images in a folder, or of images from a checkpoint's generator."""

from __future__ import annotations

import os
import reprlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from trainers import checkpoint
from trainers.catalogue import SYSTEMS
from trainers.config import from_stored
from trainers.data.catalogue import check, load
from trainers.data.fit import fitted
from trainers.data.folder import pictures
from trainers.data.images import ImageData, blank
from trainers.data.pictures import read_pictures
from trainers.data.spec import Colour, DatasetSpec
from trainers.errors import InputError
from trainers.evaluation.classes import OfClass, by_class
from trainers.evaluation.classifier import Fetch, Known
from trainers.evaluation.evaluator import Evaluator
from trainers.evaluation.extractors import Extractor, build_extractor, check_extractor
from trainers.evaluation.reference import reference_of
from trainers.evaluation.scores import METRICS, Score, weights_in
from trainers.evaluation.spec import ExtractorSpec
from trainers.gan import System
from trainers.run import pick_device
from trainers.trainer import Trainer


@dataclass(frozen=True)
class Generated:
    """Images that are to be scored."""

    images: Tensor
    """uint8 [N, C, H, W]."""
    labels: Tensor
    """int64 [N]; zeros if `labelled` is False."""
    labelled: bool
    """Whether the labels mean anything."""


@dataclass(frozen=True)
class Scored:
    """The scores of the images of one source."""

    scores: dict[str, Score]
    """By metric, in the order asked for."""
    classes: tuple[OfClass, ...] | None
    """The measurements of each class; None if not asked for."""
    notices: tuple[str, ...] = ()
    """Sentences on what was passed over in the data set."""


def score(
    source: Path,
    dataset: DatasetSpec,
    extractor: ExtractorSpec,
    metrics: tuple[str, ...],
    samples: int,
    cache: Path,
    per_class: bool = False,
    background: Colour | None = None,
    fetch: Fetch | None = None,
) -> Scored:
    """Scores of the images in `source`: a folder of pictures, a checkpoint, or a folder of checkpoints.

    A checkpoint's generator makes `samples` images. A trained extractor is the one that scored its rungs, if its data
    are these and its weights are in `cache` or come from `fetch`. Transparent parts of pictures lie on `background`. If
    `metrics` is empty, the routine metrics that can be measured are used. Raises InputError for what cannot be scored,
    in nearly all cases before anything is trained.
    """
    check(dataset)
    check_extractor(extractor, cache)
    if unknown := [name for name in metrics if name not in METRICS]:
        raise InputError(f"--metrics {','.join(unknown)}: unknown; allowed are {', '.join(METRICS)}")
    train, test = (load(dataset, split, cache) for split in ("train", "test"))
    found = checkpoint_of(source)
    made = from_folder(source, train, background) if found is None else from_checkpoint(found, train, samples)
    _refuse(source, made, metrics, per_class, train.classes)
    known = _known(found, fetch) if found else None
    network = build_extractor(extractor, train, test, cache, pick_device(), known)
    one_size = network.size is not None or any(METRICS[name].needs_test for name in metrics)
    if tuple(made.images.shape[1:]) != train.shape and one_size:
        raise InputError(
            f"{source}: images are {tuple(made.images.shape[1:])}, but those of {train.name} {train.shape}"
        )
    evaluator = Evaluator(
        network, reference_of(network, train, cache), metrics or _routine(made, network), seed=0, test=test
    )
    seen = evaluator.see(made.images, made.labels)
    scores = evaluator.evaluation(seen, made.labelled).scores
    classes = by_class(seen.features, seen.logits, seen.labels, seen.reference, train.classes) if per_class else None
    return Scored(scores, classes, train.notices)


def _known(found: Path, fetch: Fetch | None) -> Known | None:
    """The extractor that scored the rungs of a checkpoint; None if its manifest names none."""
    manifest = checkpoint.read_manifest(found)
    extractor, data = manifest.get("extractor"), manifest.get("data")
    if not isinstance(extractor, str) or not isinstance(data, str):
        return None
    known = Known(extractor.partition("-")[0], data, weights_in(extractor))
    return replace(known, fetch=fetch) if fetch else known


def _refuse(source: Path, made: Generated, metrics: tuple[str, ...], per_class: bool, classes: int) -> None:
    """Raises InputError for too few images, or for images without the classes that a metric or `per_class` needs."""
    fewest = max([2, *(METRICS[name].fewest for name in metrics)])
    if len(made.images) < fewest:
        raise InputError(f"{source}: {len(made.images)} images; allowed are {fewest} or more with these metrics")
    if made.labelled:
        return
    needed = (
        f"needs the classes that the images of {source} were made for: {classes} class folders, two or more, or a "
        "checkpoint of a conditional system"
    )
    if useless := [name for name in metrics if METRICS[name].needs_labels]:
        raise InputError(f"--metrics {','.join(useless)}: {needed}")
    if per_class:
        raise InputError(f"--per-class: {needed}")


def _routine(made: Generated, network: Extractor) -> tuple[str, ...]:
    """The routine metrics that these images and this network allow."""
    return tuple(
        metric.name
        for metric in METRICS.values()
        if metric.routine
        and (made.labelled or not metric.needs_labels)
        and (network.classes is not None or not metric.needs_logits)
        and len(made.images) >= metric.fewest
    )


def from_folder(folder: Path, data: ImageData, background: Colour | None = None) -> Generated:
    """All pictures below `folder`, labelled by its class folders if these are as many as the classes of `data`.

    Raises InputError for pictures that cannot be read, that differ in size or channels, or have more than 8 bits.
    """
    if folder.is_file():
        raise InputError(f"{folder}: is a file; name a folder of pictures or a checkpoint")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name a folder of pictures or a checkpoint")
    paths, names = pictures(folder)
    images = read_pictures(paths, data.shape[0], data.name, background)
    labelled = len(names) == data.classes > 1
    labels = [names.index(path.relative_to(folder).parts[0]) if labelled else 0 for path in paths]
    return Generated(images, torch.tensor(labels), labelled)


def from_checkpoint(folder: Path, data: ImageData, samples: int, seed: int = 0) -> Generated:
    """`samples` images of the generator in a checkpoint, converted to the shape of `data`.

    The noise is that of a rung's scores with this seed. Raises InputError if the checkpoint is damaged, or of another
    version or number of classes.
    """
    if samples < 2:
        raise InputError(f"--samples {samples}: allowed are 2 or more")
    try:
        tensors, header, manifest = checkpoint.read(folder)
        system = system_of(manifest)
        config = from_stored(type(system.defaults), header.get("config"), str(folder))
        # A Trainer needs training data; sampling uses only their number of classes.
        trainer = Trainer(system, config, blank(system.shape, data.classes, config.batch), pick_device())
        trainer.load_state(tensors, header, str(folder))
    except (checkpoint.CheckpointError, ValidationError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder}: no checkpoint of this version and these classes ({error})") from error
    made, labels = trainer.sample(samples, seed)
    return Generated(fitted(made.cpu(), data.shape), labels.cpu(), system.conditional)


def system_of(manifest: dict[str, Any]) -> System:
    """The system that the manifest of a checkpoint names. Raises ValueError if there is none of that name."""
    name = manifest.get("system")
    if not isinstance(name, str) or name not in SYSTEMS:
        raise ValueError(f"{checkpoint.MANIFEST}: system: {reprlib.repr(name)} is none of {', '.join(SYSTEMS)}")
    return SYSTEMS[name]


def checkpoint_of(source: Path) -> Path | None:
    """`source` if it is a checkpoint, the newest intact one if it is a run's folder, else None.

    Raises InputError if every checkpoint of a run is damaged.
    """
    if os.path.lexists(source / checkpoint.MANIFEST):
        return source
    for parent in (source, source / "checkpoints"):
        if any(path.is_dir() and (path / checkpoint.MANIFEST).exists() for path in parent.glob("[0-9]*")):
            found = checkpoint.newest(parent)
            if found is None:
                raise InputError(f"{parent}: every checkpoint is damaged")
            return found
    return None
