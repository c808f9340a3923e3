"""Checks of a sweep against its data, so that no trial starts that must fail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from search_spaces.document import Path, Problem
from search_spaces.space import MOST_PARTS, Dimension, Space, Value, grid, named
from trainers.catalogue import SYSTEMS
from trainers.data.catalogue import DATASETS, check, counts_of, shape_of
from trainers.data.images import blank
from trainers.evaluation.classifier import one_thread
from trainers.evaluation.extractors import build_extractor, check_extractor, recipe_of
from trainers.evaluation.reference import unmeasurable
from trainers.evaluation.scores import METRICS
from trainers.evaluation.spec import CLASSIFIERS

if TYPE_CHECKING:
    from pathlib import Path as File

    from search_spaces.sweep import Sweep

#: Fields of the configuration that decide whether the data fill a batch.
_BATCHING = ("batch", "sampling", "oversampling")


def data_problems(sweep: Sweep) -> list[Problem]:
    """The problems of `sweep` with its data, whose files are listed, and read only if `verify` is false.

    Raises InputError if files are missing or wrong.
    """
    check(sweep.dataset)
    return list(shape_problems(sweep)) or list(count_problems(sweep, counts_of(sweep.dataset)))


def shape_problems(sweep: Sweep) -> Iterator[Problem]:
    """Problems of the shape of the images and the number of classes. Raises InputError if files cannot be listed."""
    shape, classes = shape_of(sweep.dataset)
    for name in sweep.systems:
        system = SYSTEMS[name]
        if system.shape != shape and not sweep.dataset.fit:
            text = f"{sweep.dataset.name} has images of shape {shape}, but {name} makes {system.shape}"
            yield ("dataset",), f"{text}; allowed: {_suited(system.shape, sweep.dataset.name)}"
        if system.conditional and classes < 2:
            yield ("dataset",), f"{sweep.dataset.name} has one class, but {name} is conditional and needs two or more"
    extractor, path = sweep.score.extractor.name, ("score", "extractor")
    if extractor in CLASSIFIERS:
        smallest = recipe_of(extractor).smallest
        if classes < 2:
            yield path, f"{extractor} learns to tell classes apart, but {sweep.dataset.name} has one; use inception"
        if min(shape[1:]) < smallest:
            text = f"{extractor} takes images of {smallest}x{smallest} pixels or more"
            yield path, f"{text}, but those of {sweep.dataset.name} have {shape[2]}x{shape[1]}; use lenet or inception"
    for metric in (METRICS[name] for name in sweep.metrics if name in METRICS):
        if metric.within_classes and sweep.score.samples < (fewest := metric.fewest * classes):
            yield ("score", "samples"), f"{metric.name} needs at least {fewest} samples for {classes} classes"


def count_problems(sweep: Sweep, counts: Sequence[int]) -> Iterator[Problem]:
    """Problems of the number of training images of each class. Needs valid dimensions and conditions."""
    yield from _batch_problems(sweep, sum(counts))
    for name in (name for name in sweep.metrics if name in METRICS):
        if reason := unmeasurable(name, counts):
            yield ("score", "metric" if name == sweep.score.metric else "also"), f"{reason} in {sweep.dataset.name}"


def extractor_problems(sweep: Sweep, cache: File) -> Iterator[Problem]:
    """Problems of the extractor; one from a file of the user's own is built, and tried with two black images.

    Official weights are fetched into the folder `cache` on first use. Raises InputError if weights are missing, are no
    such network, or take no such images.
    """
    spec = sweep.score.extractor
    check_extractor(spec, cache)
    if spec.weights is None:
        return
    shape, classes = shape_of(sweep.dataset)
    images = blank(shape, classes, 2)
    with one_thread():  # a launch forks later, which it should not with threads
        network = build_extractor(spec, images, images, cache, "cpu")
    for name in sweep.metrics if network.classes is None else ():
        if METRICS[name].needs_logits:
            path: Path = ("score", "metric" if name == sweep.score.metric else "also")
            yield path, f"{name} needs a classifier's logits, which {spec.weights} does not give; lenet does"
    if network.classes is not None and network.classes < classes and any(SYSTEMS[s].conditional for s in sweep.systems):
        text = f"{spec.weights} gives {network.classes} logits, but {sweep.dataset.name} has {classes} classes"
        yield ("score", "extractor"), text


def _batch_problems(sweep: Sweep, images: int) -> Iterator[Problem]:
    """The largest batch of each source that an epoch cannot fill: it has each of the training `images` once."""
    worst: dict[tuple[Path, str], tuple[int, str]] = {}
    for values in islice(grid(_corners(sweep.space)), MOST_PARTS):
        system = str(values["system"])
        defaults = sweep.defaults_of(system)
        batch, sampling, oversampling = (values.get(name, getattr(defaults, name)) for name in _BATCHING)
        epoch, whole = max(images, int(oversampling)), int(batch) * sweep.resources.scale
        if sampling == "random" or whole <= epoch:
            continue
        source = (("search", "batch"), "") if "batch" in values else (("dataset",), f" (the default of {system})")
        shares = f", {batch} for each of {sweep.resources.workers_per_trial} workers," if whole > int(batch) else ""
        drawn = f"{epoch} images per epoch, oversampled from " if epoch > images else ""
        text = f"{whole}{source[1]}{shares} is more than the {drawn}{images} training images of {sweep.dataset.name}"
        remedy = f"sampling {sampling} needs batches of at most {epoch // sweep.resources.scale}; random takes any"
        worst[source] = max(worst.get(source, (0, "")), (whole - epoch, f"batch {text}; {remedy}"))
    yield from ((path, text) for (path, _), (_, text) in worst.items())


def _corners(space: Space) -> Space:
    """The dimensions that decide whether the data fill a batch, with those that they depend on, as choices.

    Of a range of whole numbers these are the bounds, and the values that a condition names with their neighbours:
    between them, more images or smaller batches are never worse.
    """
    kept = {name for dimension in space if dimension.name in _BATCHING for name in space.requirements(dimension)}
    conditions = named(space)

    def corners(dimension: Dimension) -> tuple[Value, ...]:
        if dimension.kind != "int":
            return dimension.values
        near = {int(value) + offset for value in conditions.get(dimension.name, ()) for offset in (-1, 0, 1)}
        return tuple(sorted(value for value in {dimension.low, dimension.high, *near} if dimension.allows(value)))

    return Space(
        tuple(
            replace(dimension, kind="choice", values=corners(dimension))
            for dimension in space
            if dimension.name in {"system", *_BATCHING, *kept}
        )
    )


def _suited(shape: tuple[int, int, int], given: str) -> str:
    """What suits images of `shape` in place of the data set `given`; pictures in folders are read in colour."""
    fitting = [name for name, dataset in DATASETS.items() if dataset.shape == shape]
    if shape[0] == 3:
        fitting.append(f"`size: {shape[1]}`" if DATASETS[given].shape is None else "folder")
    return f"{', '.join(fitting)}, or `fit: true`" if fitting else "`fit: true`"
