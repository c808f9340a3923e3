"""The data set `folder`: pictures of any size, scaled to one size."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from trainers.data.images import ImageData
from trainers.data.pictures import opened
from trainers.data.spec import DatasetSpec, Split
from trainers.errors import InputError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
DEFAULT_SIZE = 32
_TEST_SHARE = 10


def check(spec: DatasetSpec) -> None:
    """Raises InputError if a split has no pictures, or if the class folders are wrong."""
    for split in ("train", "test"):
        _list(spec, split)


def load(spec: DatasetSpec, split: Split) -> ImageData:
    """The pictures of a split, scaled. Raises InputError like `check`, and for a picture that cannot be read."""
    paths, labels, classes = _list(spec, split)
    pixels = np.stack([read_picture(path, shape(spec)[1]) for path in paths])
    return ImageData(
        images=torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        labels=torch.tensor(labels, dtype=torch.int64),
        classes=classes,
        name=spec.name,
        split=split,
    )


def shape(spec: DatasetSpec) -> tuple[int, int, int]:
    """C, H, W of the scaled images."""
    size = spec.size or DEFAULT_SIZE
    return 3, size, size


def count_classes(spec: DatasetSpec) -> int:
    """The number of class folders, at least 1. Raises InputError like `check`."""
    return _list(spec, "train")[2]


def read_picture(path: Path, size: int) -> NDArray[np.uint8]:
    """The centre square of a picture, scaled to uint8 [size, size, 3] by Pillow's Lanczos filter.

    Raises InputError for a file that cannot be read or has more than 8 bits per channel.
    """
    with opened(path) as picture:
        mode = picture.mode
        upright = ImageOps.exif_transpose(picture)
        upright.load()
    if mode.startswith(("I", "F")):
        raise InputError(f"{path}: mode {mode} has more than 8 bits per channel; convert it to 8 bits")
    square = ImageOps.fit(upright.convert("RGB"), (size, size), method=Image.Resampling.LANCZOS)
    return np.asarray(square)


def _list(spec: DatasetSpec, split: Split) -> tuple[list[Path], list[int], int]:
    """Paths, labels and number of classes of a split."""
    root = spec.folder
    if not root.is_dir():
        raise InputError(f"data set {spec.name}: there is no folder {root}; set `path` to a folder of images")
    if (root / "train").is_dir() and (root / "test").is_dir():
        paths, names = pictures(root / split)
        classes = pictures(root / "train")[1]
        if names != classes:
            raise InputError(
                f"{root}: train and test differ in their class folders: {classes} and {pictures(root / 'test')[1]}"
            )
        root = root / split
    else:
        everything, classes = pictures(root)
        paths = _part(everything, root, split)
    if not paths:
        raise InputError(f"{root}: too few images for a {split} split; allowed are files ending in {_allowed()}")
    labels = [classes.index(path.relative_to(root).parts[0]) if classes else 0 for path in paths]
    return paths, labels, max(1, len(classes))


def pictures(root: Path) -> tuple[list[Path], list[str]]:
    """All pictures below `root`, and the names of the class folders that hold them, both sorted.

    Raises InputError if there are no pictures, or if some lie beside the class folders.
    """
    parts = {path: path.relative_to(root).parts for path in root.rglob("*") if path.suffix.lower() in SUFFIXES}
    paths = sorted(p for p, names in parts.items() if p.is_file() and not any(name.startswith(".") for name in names))
    if not paths:
        raise InputError(f"{root}: no images; allowed are files ending in {_allowed()}")
    classes = sorted({parts[path][0] for path in paths if len(parts[path]) > 1})
    loose = next((path for path in paths if len(parts[path]) == 1), None)
    if classes and loose is not None:
        raise InputError(f"{loose}: lies beside the class folders {', '.join(classes)}; move it into one of them")
    return paths, classes


def _part(paths: list[Path], root: Path, split: Split) -> list[Path]:
    """The paths of a split: the tenth with the smallest hashes of their names is the test split, the rest is train."""

    def rank(path: Path) -> bytes:
        return hashlib.sha256(path.relative_to(root).as_posix().encode()).digest()

    test = set(sorted(paths, key=rank)[: -(-len(paths) // _TEST_SHARE)])
    return [path for path in paths if (path in test) == (split == "test")]


def _allowed() -> str:
    return ", ".join(sorted(SUFFIXES))
