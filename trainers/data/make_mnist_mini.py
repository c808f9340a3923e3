"""Writes mnist-mini, a stratified subset of MNIST: `python -m trainers.data.make_mnist_mini SOURCE DEST`.

SOURCE holds the four gzipped files of MNIST. Four files of the same names are written to DEST, with the same content
at every run, and their checksums are printed.
"""

from __future__ import annotations

import gzip
import hashlib
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainers.data.idx import CLASSES, MNIST_SHA256, PARTS, read_idx
from trainers.data.spec import Split

COUNTS: dict[Split, int] = {"train": 8000, "test": 2000}


def select(labels: NDArray[np.uint8], count: int, seed: str) -> NDArray[np.int64]:
    """`count` indices into `labels` in ascending order, in which the classes keep their proportions.

    Within a class the images with the smallest hashes are chosen, so no random generator is needed.
    """
    shares = np.bincount(labels, minlength=CLASSES) * count / len(labels)
    quotas = np.floor(shares).astype(np.int64)
    quotas[np.argsort(quotas - shares, kind="stable")[: count - quotas.sum()]] += 1
    chosen: list[int] = []
    for label, quota in enumerate(quotas):
        members = np.flatnonzero(labels == label).tolist()
        chosen += sorted(members, key=lambda i: hashlib.sha256(f"{seed} {i}".encode()).digest())[:quota]
    return np.sort(np.array(chosen, dtype=np.int64))


def write_idx(array: NDArray[np.uint8], path: Path) -> str:
    """Writes a gzipped IDX file and returns the sha256 of the uncompressed content."""
    raw = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()
    path.write_bytes(gzip.compress(raw, compresslevel=9, mtime=0))
    return hashlib.sha256(raw).hexdigest()


def main(source: Path, dest: Path) -> None:
    """Writes the four files and prints their checksums. Raises InputError for damaged files in `source`."""
    dest.mkdir(parents=True, exist_ok=True)
    for split, names in PARTS.items():
        images, labels = (read_idx(source / f"{name}.gz", MNIST_SHA256[name]) for name in names)
        chosen = select(labels, COUNTS[split], f"mnist-mini {split}")
        for name, array in zip(names, (images, labels), strict=True):
            print(f'"{name}": "{write_idx(array[chosen], dest / f"{name}.gz")}",')


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
