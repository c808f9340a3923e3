"""Folders of small pictures that a classifier can tell apart by their colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_classes(
    root: Path, names: Sequence[str], count: int, height: int, width: int | None = None, gray: bool = False
) -> Path:
    """Writes `count` pictures of `height` x `width`, or squares, for each name, "" for none; class i has colour i."""
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(label)
        base = np.array([label % 3, label // 3 % 3, label // 9 % 3]) * 90 + 20
        for index in range(count):
            pixels = base + rng.integers(-20, 21, (height, width or height, 3))
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            (picture.convert("L") if gray else picture).save(root / name / f"{label}-{index:03d}.png")
    return root
