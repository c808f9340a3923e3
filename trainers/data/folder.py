"""The data set `folder`: pictures of any size, scaled to one size."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePath

import torch

from trainers.data.decoded import Settings, decoded
from trainers.data.images import ImageData, Images
from trainers.data.layout import Part, arrange, check_not_empty, classes_below, tree_of
from trainers.data.spec import DatasetSpec, Split
from trainers.errors import InputError, printable

DEFAULT_SIZE = 32


def check(spec: DatasetSpec) -> None:
    """Raises InputError if the folder has no splits and classes that can be used; reads no picture."""
    arrange(tree_of(spec.folder))


def notices(spec: DatasetSpec) -> tuple[str, ...]:
    """Sentences on what `load` passes over in the folder; reads no picture. Raises InputError like `check`."""
    return arrange(tree_of(spec.folder)).notices


def load(spec: DatasetSpec, split: Split) -> ImageData:
    """The pictures of a split, scaled. Raises InputError like `load_both`."""
    train, test = load_both(spec)
    return train if split == "train" else test


def load_both(spec: DatasetSpec, cache: Path | None = None) -> Images:
    """The pictures of both splits, scaled, and kept in the folder `cache` if it is given.

    Raises InputError like `check`, for pictures that cannot be read, all in one message, and if damaged pictures are
    passed over and none of a class is left to train on, or none at all is held out.
    """
    root, layout = spec.folder, arrange(tree_of(spec.folder))
    train, test = layout.train, layout.test
    paths = (*train.pictures, *test.pictures)
    found = decoded(root, paths, Settings(shape(spec)[1], spec.background, spec.skip_damaged), cache)
    labels = torch.tensor([*train.labels, *test.labels], dtype=torch.int64)[found.kept]
    middle = int((found.kept < len(train.pictures)).sum())
    _check_left(root, train, labels[:middle])
    if middle == len(labels):
        raise InputError(f"{root}: none of the {len(test.pictures):,} pictures held out can be read; replace them")
    kept = set(found.kept.tolist())
    notices = (*layout.notices, *(printable(f"{root}: {text}") for text in found.notices))
    skipped = tuple(printable(str(path)) for place, path in enumerate(paths) if place not in kept)

    def part(split: Split, places: slice) -> ImageData:
        classes = max(1, len(train.classes))
        return ImageData(found.images[places], labels[places], classes, spec.name, split, notices, skipped)

    return part("train", slice(0, middle)), part("test", slice(middle, None))


def shape(spec: DatasetSpec) -> tuple[int, int, int]:
    """C, H, W of the scaled images."""
    size = spec.size or DEFAULT_SIZE
    return 3, size, size


def class_counts(spec: DatasetSpec) -> dict[str, int]:
    """The number of training pictures in each class folder by its name, in the order of the labels.

    One number, for the name "", if there are no class folders. Raises InputError like `check`.
    """
    train = arrange(tree_of(spec.folder)).train
    found = Counter(train.labels)
    return {name: found[label] for label, name in enumerate(train.classes or ("",))}


def pictures(root: Path) -> tuple[list[Path], list[str]]:
    """All pictures below `root`, sorted, and the names of the class folders that hold them, in the order of labels.

    Raises InputError if there are no pictures, or if some lie beside the class folders.
    """
    tree = tree_of(root)
    check_not_empty(tree)
    part = classes_below(tree, tree.pictures, PurePath())
    return [root / path for path in part.pictures], list(part.classes)


def _check_left(root: Path, train: Part, labels: torch.Tensor) -> None:
    """Raises InputError if a class has no picture among those to train on."""
    counts = torch.bincount(labels, minlength=max(1, len(train.classes)))
    if (counts == 0).any():
        name = f" of class {train.classes[int(counts.argmin())]}" if train.classes else ""
        raise InputError(f"{root}: none of the training pictures{name} can be read; replace them")
