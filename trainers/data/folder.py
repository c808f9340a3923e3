"""The data set `folder`: pictures of any size, scaled to one size."""

from __future__ import annotations

from pathlib import Path, PurePath

import torch

from trainers.data.decoded import Settings, decoded
from trainers.data.images import ImageData
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


def load(spec: DatasetSpec, split: Split, cache: Path | None = None) -> ImageData:
    """The pictures of a split, scaled. Both splits are decoded, and kept in the folder `cache` if it is given.

    Raises InputError like `check`, for pictures that cannot be read, all in one message, and if damaged pictures are
    passed over and none of a class is left.
    """
    root, layout = spec.folder, arrange(tree_of(spec.folder))
    paths = (*layout.train.pictures, *layout.test.pictures)
    found = decoded(root, paths, Settings(shape(spec)[1], spec.background, spec.skip_damaged), cache)
    middle = int((found.kept < len(layout.train.pictures)).sum())
    places = {"train": found.kept[:middle], "test": found.kept[middle:] - len(layout.train.pictures)}
    labels = {
        name: _labels(root, part, places[name]) for name, part in (("train", layout.train), ("test", layout.test))
    }
    kept = set(found.kept.tolist())
    return ImageData(
        images=found.images[:middle] if split == "train" else found.images[middle:],
        labels=labels[split],
        classes=max(1, len(layout.train.classes)),
        name=spec.name,
        split=split,
        notices=(*layout.notices, *found.notices),
        skipped=tuple(printable(str(path)) for place, path in enumerate(paths) if place not in kept),
    )


def shape(spec: DatasetSpec) -> tuple[int, int, int]:
    """C, H, W of the scaled images."""
    size = spec.size or DEFAULT_SIZE
    return 3, size, size


def class_names(spec: DatasetSpec) -> tuple[str, ...]:
    """The names of the class folders in the order of labels; none if there are no such folders."""
    return arrange(tree_of(spec.folder)).train.classes


def pictures(root: Path) -> tuple[list[Path], list[str]]:
    """All pictures below `root`, sorted, and the names of the class folders that hold them, in the order of labels.

    Raises InputError if there are no pictures, or if some lie beside the class folders.
    """
    tree = tree_of(root)
    check_not_empty(tree)
    part = classes_below(tree, tree.pictures, PurePath())
    return [root / path for path in part.pictures], list(part.classes)


def _labels(root: Path, part: Part, places: torch.Tensor) -> torch.Tensor:
    """The classes of the pictures at `places`. Raises InputError if a class has none there."""
    labels = torch.tensor(part.labels, dtype=torch.int64)[places]
    left = torch.bincount(labels, minlength=max(1, len(part.classes)))
    if (left == 0).any():
        name = f"of class {part.classes[int(left.argmin())]} " if part.classes else ""
        raise InputError(f"{root / part.below}: no picture {name}can be read in one of the splits; replace them")
    return labels
