"""Grids of samples, and how pictures are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trainers.data.files import replaced

COLUMNS = 10
ROWS = 10
_SCALE = 2


def grid(images: Tensor) -> NDArray[np.uint8]:
    """The first ROWS x COLUMNS images of uint8 [N, C, H, W], N >= 1, side by side as uint8 [height, width, 3].

    Each pixel becomes two by two. Samples have the labels 0, 1, ... in turn, so with ten classes each column shows one
    class.
    """
    columns = min(COLUMNS, len(images))
    rows = min(ROWS, len(images) // columns)
    cells = images[: rows * columns].cpu().numpy()
    _, channels, height, width = cells.shape
    table = cells.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    picture = table.reshape(rows * height, columns * width, channels)
    enlarged = picture.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)
    return np.ascontiguousarray(np.broadcast_to(enlarged, (*enlarged.shape[:2], 3)))


def save_png(picture: NDArray[np.uint8], path: Path) -> None:
    """Writes `picture`, uint8 [height, width, 3], to `path` as `replaced` does; creates its folder. Raises OSError."""
    with replaced(path) as temporary:
        Image.fromarray(picture).save(temporary, format="png", optimize=True)
