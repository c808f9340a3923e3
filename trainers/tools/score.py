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
from trainers.data.catalogue import DATASETS, check, class_names, load_both, shape_of, sized
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
from trainers.evaluation.reference import reference_of, unmeasurable
from trainers.evaluation.scores import METRICS, Score, weights_in
from trainers.evaluation.spec import ExtractorSpec
from trainers.gan import System
from trainers.run import pick_device
from trainers.tools.class_folders import labels_of, shown
from trainers.trainer import Trainer, check_networks


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

    A checkpoint's generator makes `samples` images. If `dataset` is a folder without a size, its pictures are scaled to
    the size of the images in `source`. A trained extractor is the one that scored the rungs of the checkpoint, if its
    data are these and its weights are in `cache` or come from `fetch`. Transparent parts of pictures lie on
    `background`. If `metrics` is empty, the routine metrics that can be measured are used. Raises InputError for what
    cannot be scored, in nearly all cases before anything is trained.
    """
    check(dataset)
    check_extractor(extractor, cache)
    if unknown := [name for name in metrics if name not in METRICS]:
        raise InputError(f"--metrics {','.join(unknown)}: unknown; allowed are {', '.join(METRICS)}")
    found = checkpoint_of(source)
    made = from_folder(source, dataset, background, metrics, per_class) if found is None else None
    height, width = made.images.shape[2:] if made is not None else _system_at(found or source).shape[1:]
    try:
        dataset = sized(dataset, height, width)
    except InputError as error:
        raise InputError(f"{source}: {error}; --size names another size for the real ones") from error
    train, test = load_both(dataset, cache)
    if made is None:
        made = from_checkpoint(found or source, train, samples)
    _refuse(source, made, metrics, per_class, train)
    known = _known(found, fetch) if found else None
    network = build_extractor(extractor, train, test, cache, pick_device(), known)
    one_size = network.size is not None or any(METRICS[name].needs_test for name in metrics)
    if tuple(made.images.shape[1:]) != train.shape and one_size:
        scaled = f"; --size {height} scales the real ones" if dataset.size is not None and height == width else ""
        raise InputError(
            f"{source}: images are {tuple(made.images.shape[1:])}, but those of {train.name} {train.shape}{scaled}"
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


def _refuse(source: Path, made: Generated, metrics: tuple[str, ...], per_class: bool, train: ImageData) -> None:
    """Raises InputError for too few images, or for images without the classes that a metric or `per_class` needs."""
    fewest = max([2, *(METRICS[name].fewest for name in metrics)])
    if len(made.images) < fewest:
        raise InputError(f"{source}: {len(made.images)} images; allowed are {fewest} or more with these metrics")
    counts = train.labels.bincount(minlength=train.classes).tolist()
    for reason in filter(None, (unmeasurable(name, counts) for name in metrics or ("kid",))):
        raise InputError(f"--metrics: {reason} in {train.name}")
    if made.labelled:
        return
    needed = (
        f"needs the classes that the images of {source} were made for: folders with the names of the classes of "
        f"{train.name}, two or more, or a checkpoint of a conditional system"
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


def from_folder(
    folder: Path,
    dataset: DatasetSpec,
    background: Colour | None = None,
    metrics: tuple[str, ...] = (),
    per_class: bool = False,
) -> Generated:
    """All pictures below `folder`, with labels if its class folders have the names of the classes of `dataset`.

    Folders with other names are allowed if neither `metrics`, which are named, nor `per_class` need labels. One folder
    with another name is taken for a folder around all pictures.

    Raises InputError for pictures that cannot be read, that differ in size, that are in colour if the data set is gray,
    or have more than 8 bits.
    """
    if folder.is_file():
        raise InputError(f"{folder}: is a file; name a folder of pictures or a checkpoint")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name a folder of pictures or a checkpoint")
    paths, names = pictures(folder)
    known = _labels(names, dataset)
    needed = per_class or any(METRICS[name].needs_labels for name in metrics)
    classes = class_names(dataset)
    if known is None and len(classes) > 1 and names and (needed or (len(names) > 1 and not metrics)):
        raise InputError(
            f"{folder}: its class folders are {shown(names)}, but the classes of {dataset.name} are {shown(classes)}; "
            "name them alike, or give --metrics that need no classes, such as kid,fid"
        )
    images = read_pictures(paths, shape_of(dataset)[0][0], dataset.name, background)
    labels = [known[path.relative_to(folder).parts[0]] if known else 0 for path in paths]
    return Generated(images, torch.tensor(labels), known is not None)


def _labels(names: list[str], dataset: DatasetSpec) -> dict[str, int] | None:
    """The label of each class folder by its name; None if they have not the names of two classes or more.

    Classes of a data set with published labels may be named by their numbers too.
    """
    classes = class_names(dataset)
    if not names or len(classes) < 2:
        return None
    numbers = [str(label) for label in range(len(classes))] if DATASETS[dataset.name].names else []
    return labels_of(names, classes) or labels_of(names, numbers)


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
        check_networks(system, config, data.classes, tensors)
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


def _system_at(folder: Path) -> System:
    """The system of a checkpoint. Raises InputError if it is damaged or of another version."""
    try:
        return system_of(checkpoint.read_manifest(folder))
    except (checkpoint.CheckpointError, ValueError) as error:
        raise InputError(f"{folder}: no checkpoint of this version ({error})") from error


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
