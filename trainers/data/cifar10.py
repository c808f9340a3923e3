"""CIFAR-10 (Krizhevsky, 2009), from the files of its Python or its binary version."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainers.data.download import fetch
from trainers.data.files import digest
from trainers.data.images import ImageData
from trainers.data.spec import DatasetSpec, Split
from trainers.errors import InputError

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CLASSES = len(NAMES)
SHAPE = (3, 32, 32)
PARTS: dict[Split, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}
#: md5 of the files of the Python version, as published. None are published for the binary version.
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
_PIXELS = 3072
#: The names that the pickle of an array needs, in NumPy 1 and in NumPy 2.
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads containers, numbers, strings and arrays, and refuses every other class, since it could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a data file")
        return super().find_class(module, name)


def check(spec: DatasetSpec) -> None:
    """Raises InputError if a file is missing that is not to be downloaded."""
    if not spec.download:
        _files(spec, "train")
        _files(spec, "test")


def load(spec: DatasetSpec, split: Split) -> ImageData:
    """The images of a split, downloaded first if `spec` says so. Raises InputError for missing or damaged files."""
    if spec.download:
        fetch("CIFAR10", spec, lambda: check(spec.model_copy(update={"download": False})))
    batches = [_read(path, spec.verify) for path in _files(spec, split)]
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return ImageData(
        images=torch.from_numpy(pixels.reshape(-1, *SHAPE)),
        labels=torch.from_numpy(labels.astype(np.int64)),
        classes=CLASSES,
        name=spec.name,
        split=split,
    )


def _files(spec: DatasetSpec, split: Split) -> list[Path]:
    """The files of a split, in the folder itself or in the subfolder that the archive creates; Python version first."""
    versions = (("cifar-10-batches-py", ""), ("cifar-10-batches-bin", ".bin"))
    for archive, suffix in versions:
        for folder in (spec.folder, spec.folder / archive):
            paths = [folder / f"{name}{suffix}" for name in PARTS[split]]
            if all(path.is_file() for path in paths):
                return paths
    raise InputError(
        f"data set {spec.name}: no {', '.join(PARTS[split])} (nor these with .bin) in {spec.folder} or its "
        "cifar-10-batches-py; unpack CIFAR-10 there, set `path` to its folder, or set `download: true`"
    )


def _read(path: Path, verify: bool) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    if path.suffix == ".bin":
        pixels, labels = _read_binary(path)
    else:
        if verify and (found := digest(path, "md5")) != MD5[path.name]:
            raise InputError(
                f"{path}: md5 is {found}, not {MD5[path.name]}; fetch the file again, or set `verify: false` if the "
                "files are meant to differ"
            )
        pixels, labels = _read_pickle(path)
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != _PIXELS or labels.shape != pixels.shape[:1]:
        raise InputError(f"{path}: {pixels.dtype} {pixels.shape} and {labels.shape} are not uint8 [N, 3072] and [N]")
    if labels.size == 0 or labels.min() < 0 or labels.max() >= CLASSES:
        raise InputError(f"{path}: allowed are labels from 0 to {CLASSES - 1}, at least one")
    return pixels, labels


def _read_binary(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    content = np.fromfile(path, np.uint8)
    if content.size % (1 + _PIXELS):
        raise InputError(f"{path}: {content.size} bytes are no multiple of {1 + _PIXELS}; fetch the file again")
    records = content.reshape(-1, 1 + _PIXELS)
    return records[:, 1:], records[:, 0].astype(np.int64)


def _read_pickle(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        with open(path, "rb") as file:
            batch = _ArrayUnpickler(file, encoding="bytes").load()
        return np.asarray(batch[b"data"]), np.asarray(batch[b"labels"], dtype=np.int64)
    # A damaged pickle can raise any of these.
    except (pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a batch of CIFAR-10 ({error}); fetch the file again") from error
