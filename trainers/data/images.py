"""Real images in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from trainers.data.fit import fitted


@dataclass(frozen=True)
class ImageData:
    """All N images of one split in memory, with C channels, height H and width W."""

    images: Tensor
    """uint8 [N, C, H, W]."""
    labels: Tensor
    """int64 [N] in [0, classes)."""
    classes: int
    name: str
    split: str
    notices: tuple[str, ...] = ()
    """Sentences on what was passed over, or read in part, when the files of all splits were read."""
    skipped: tuple[str, ...] = ()
    """Damaged files of all splits that were passed over."""

    @cached_property
    def sha256(self) -> str:
        """Checksum of shape, images and labels, independent of the name."""
        checksum = hashlib.sha256(str(tuple(self.images.shape)).encode())
        checksum.update(self.images.cpu().contiguous().numpy().data)
        checksum.update(self.labels.cpu().contiguous().numpy().data)
        return checksum.hexdigest()

    @property
    def id(self) -> str:
        """`<name>-<split>-<first 12 digits of the sha256>`, which tells real images apart in a score."""
        return f"{self.name}-{self.split}-{self.sha256[:12]}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W of an image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def fitted(self, shape: tuple[int, int, int]) -> ImageData:
        """The same data with images of `shape` (C, H, W), converted by `fit.fitted`."""
        return replace(self, images=fitted(self.images, shape))

    def to(self, device: torch.device | str) -> ImageData:
        """The same data on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


Images = tuple[ImageData, ImageData]
"""The training and the test split of a data set."""


def blank(shape: tuple[int, int, int], classes: int, count: int) -> ImageData:
    """All-zero images of shape (C, H, W), for a Trainer that is only timed or only generates from a checkpoint.

    There are N = max(count, classes) images, uint8 [N, C, H, W]. Their labels, int64 [N], are 0, 1, ... classes - 1,
    0, 1, ..., so each class occurs.
    """
    number = max(count, classes)
    return ImageData(
        torch.zeros((number, *shape), dtype=torch.uint8), torch.arange(number) % classes, classes, "blank", "train"
    )
