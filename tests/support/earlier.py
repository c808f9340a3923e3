"""Sweeps that an earlier release has written."""

from __future__ import annotations

import tarfile
from pathlib import Path

from tests.support.sweeps import REPOSITORY

FIXTURES = REPOSITORY / "tests" / "fixtures"


def unpack(release: str, root: Path) -> Path:
    """Unpacks the sweep that `release` left when its driver was killed, with its cache, below `root`; its folder."""
    with tarfile.open(FIXTURES / f"sweep-{release}.tar.xz") as archive:
        archive.extractall(root, filter="data")
    return root / "kept"
