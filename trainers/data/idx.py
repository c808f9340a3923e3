"""MNIST and mnist-mini, its subset in this package: IDX files, gzipped or raw."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trainers.data.download import fetch
from trainers.data.images import ImageData
from trainers.data.spec import DatasetSpec, Split
from trainers.errors import InputError

MINI = Path(__file__).parent / "mnist_mini"
PARTS: dict[Split, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
#: sha256 of the uncompressed files.
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MINI_SHA256 = {
    "train-images-idx3-ubyte": "b000826449c2b1221a90b8e427787010303e14b99d7170189589702bd7e2bfdf",
    "train-labels-idx1-ubyte": "865ea19b98a889182ef094b6d7d6af0c1b6b2387ce525e96c17c2bd94f8c6840",
    "t10k-images-idx3-ubyte": "d63b18ded71e0db5530b8dce92de8c6865aa4d9575bdc0cc2e52fd70e3e9965d",
    "t10k-labels-idx1-ubyte": "692942d2e10582968f549211e8f8a598074dea850ffbe188d59a8f824cb78f26",
}
CLASSES = 10
_UNSIGNED_BYTES = 8


def check_mnist(spec: DatasetSpec) -> None:
    """Raises InputError if a file is missing that is not to be downloaded."""
    if spec.download:
        return
    for name in MNIST_SHA256:
        _find(spec, name)


def load_mnist(spec: DatasetSpec, split: Split) -> ImageData:
    """The images of a split, downloaded first if `spec` says so. Raises InputError for missing or damaged files."""
    if spec.download:
        fetch("MNIST", spec, lambda: check_mnist(spec.model_copy(update={"download": False})))
    images, labels = (_find(spec, name) for name in PARTS[split])
    return _load(images, labels, MNIST_SHA256 if spec.verify else {}, spec.name, split)


def check_mini(spec: DatasetSpec) -> None:
    """Raises InputError if the installed package lacks a file."""
    for name in MINI_SHA256:
        if not (MINI / f"{name}.gz").is_file():
            raise InputError(f"data set {spec.name}: the installed package lacks {MINI / name}.gz; install it again")


def load_mini(spec: DatasetSpec, split: Split) -> ImageData:
    """The images of a split. Raises InputError for damaged files."""
    images, labels = (MINI / f"{name}.gz" for name in PARTS[split])
    return _load(images, labels, MINI_SHA256, spec.name, split)


def read_idx(path: Path, sha256: str | None = None) -> NDArray[np.uint8]:
    """The array of unsigned bytes in an IDX file (http://yann.lecun.com/exdb/mnist), gzipped if its name ends in .gz.

    Raises InputError if the content is no such array, or if its uncompressed sha256 is not `sha256`.
    """
    try:
        content = path.read_bytes()
        raw = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); fetch the file again") from error
    found = hashlib.sha256(raw).hexdigest()
    if sha256 is not None and found != sha256:
        raise InputError(
            f"{path}: sha256 of the uncompressed content is {found}, not {sha256}; fetch the file again, or set "
            "`verify: false` if it is meant to differ"
        )
    dimensions = raw[3] if len(raw) >= 4 else 0
    header = 4 + 4 * dimensions
    if raw[:3] != bytes((0, 0, _UNSIGNED_BYTES)) or len(raw) < header:
        raise InputError(f"{path}: not an IDX file of unsigned bytes; fetch the file again")
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", dimensions, offset=4))
    body = np.frombuffer(raw, np.uint8, offset=header)
    if body.size != np.prod(shape, dtype=np.int64):
        raise InputError(f"{path}: holds {body.size} bytes but promises the shape {shape}; fetch the file again")
    return body.reshape(shape)


def _load(images: Path, labels: Path, checksums: dict[str, str], name: str, split: Split) -> ImageData:
    pixels, classes = (read_idx(path, checksums.get(path.name.removesuffix(".gz"))) for path in (images, labels))
    if pixels.ndim != 3 or pixels.shape[1:] != (28, 28) or classes.shape != pixels.shape[:1]:
        raise InputError(f"{images}: {pixels.shape} and {labels}: {classes.shape} are not [N, 28, 28] and [N]")
    if classes.size == 0 or classes.max() >= CLASSES:
        raise InputError(f"{labels}: allowed are labels from 0 to {CLASSES - 1}, at least one")
    return ImageData(
        images=torch.from_numpy(pixels.copy()).unsqueeze(1),
        labels=torch.from_numpy(classes.astype(np.int64)),
        classes=CLASSES,
        name=name,
        split=split,
    )


def _find(spec: DatasetSpec, name: str) -> Path:
    """The file `name`, raw or gzipped, in the folder itself or in the subfolder that torchvision creates."""
    for folder in (spec.folder, spec.folder / "MNIST" / "raw"):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise InputError(
        f"data set {spec.name}: no {name} or {name}.gz in {spec.folder}; put the four MNIST files there, set `path` to "
        "their folder, set `download: true`, or use `mnist-mini`, which is built in"
    )
