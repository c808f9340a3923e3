"""The data set `shapes32`: drawn images of ten shapes in two colours with little noise, equal on every machine.

Everything is computed in integers from the raw words of PCG64, whose stream NumPy guarantees.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from trainers.data.images import ImageData
from trainers.data.spec import DatasetSpec, Split

SIZE = 32
SHAPE = (3, SIZE, SIZE)
NAMES = ("circle", "square", "triangle", "ring", "plus", "saltire", "diamond", "rows", "columns", "checkers")
COUNTS: dict[Split, int] = {"train": 5000, "test": 1000}
_SEEDS: dict[Split, int] = {"train": 20240601, "test": 20240602}
_NOISE = 8

Ints = NDArray[np.int64]


def check(spec: DatasetSpec) -> None:
    """Does nothing, since there are no files that could be missing."""


def load(spec: DatasetSpec, split: Split) -> ImageData:
    """The images of a split."""
    images, labels = draw(COUNTS[split], _SEEDS[split])
    return ImageData(torch.from_numpy(images), torch.from_numpy(labels), len(NAMES), spec.name, split)


def draw(count: int, seed: int) -> tuple[NDArray[np.uint8], Ints]:
    """Images uint8 [count, 3, 32, 32], and their labels 0, 1, ... 9, 0, 1, ..., int64 [count]."""
    source = np.random.PCG64(seed)
    labels = np.arange(count) % len(NAMES)
    radius = _integers(source, 6, 12, (count, 1, 1))
    x0, y0 = (_integers(source, 10, 22, (count, 1, 1)) for _ in range(2))
    dx, dy = np.arange(SIZE) - x0, np.arange(SIZE)[:, None] - y0
    mask = np.empty((count, SIZE, SIZE), dtype=bool)
    for label in range(len(NAMES)):
        of_class = labels == label
        mask[of_class] = _mask(label, dx[of_class], dy[of_class], radius[of_class])
    # The ranges of dark and bright do not overlap, so every shape is visible. Either may be the shape.
    dark, bright = (_integers(source, low, low + 112, (count, 3, 1, 1)) for low in (_NOISE, 256 - 112 - _NOISE))
    inside = mask[:, None] ^ (_integers(source, 0, 2, (count, 1, 1, 1)) == 1)
    noise = _integers(source, -_NOISE, _NOISE, (count, *SHAPE))
    return (np.where(inside, bright, dark) + noise).astype(np.uint8), labels


def _integers(source: np.random.PCG64, low: int, high: int, shape: tuple[int, ...]) -> Ints:
    """Integers in [low, high), int64 of `shape`. The bias of taking the remainder is below 1e-16."""
    words: NDArray[np.uint64] = source.random_raw(int(np.prod(shape)))
    return low + (words % np.uint64(high - low)).astype(np.int64).reshape(shape)


def _mask(label: int, dx: Ints, dy: Ints, r: Ints) -> NDArray[np.bool_]:
    """The pixels of a shape of radius `r`, bool [n, H, W]; `dx` [n, 1, W] and `dy` [n, H, 1] start at its centre."""
    across, down = np.abs(dx), np.abs(dy)
    square = np.maximum(across, down) <= r
    distance = dx * dx + dy * dy
    band = r // 3 + 1
    rows, columns = (dy + r) // band % 2 == 0, (dx + r) // band % 2 == 0
    masks: dict[str, Callable[[], NDArray[np.bool_]]] = {
        "circle": lambda: distance <= r * r,
        "square": lambda: square,
        "triangle": lambda: square & (2 * across <= dy + r),
        "ring": lambda: (distance <= r * r) & (25 * distance >= 9 * r * r),
        "plus": lambda: square & (4 * np.minimum(across, down) <= r),
        "saltire": lambda: square & (4 * np.abs(across - down) <= r),
        "diamond": lambda: across + down <= r,
        "rows": lambda: square & rows,
        "columns": lambda: square & columns,
        "checkers": lambda: square & (rows ^ columns),
    }
    return masks[NAMES[label]]()
