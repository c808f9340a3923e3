"""What a person says about a data set, and what comes of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from trainers.data.fit import fitted

Split = Literal["train", "test"]


class DatasetSpec(BaseModel):
    """A data set by name with where and how to read it; a bare string means `name`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="a name of the table DATASETS")
    path: Path | None = Field(
        default=None, description="folder of the files; $GANSWEEP_DATA/<name> or data/<name> by default"
    )
    download: bool = Field(default=False, description="fetch missing files (mnist, cifar10)")
    verify: bool = Field(default=True, description="refuse files whose checksums are not the published ones")
    size: int | None = Field(
        default=None, ge=4, le=1024, description="height and width in pixels (folder only; default 32)"
    )
    fit: bool = Field(
        default=False, description="give each system its own size and colours, and score samples in the data's"
    )

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def folder(self) -> Path:
        """Where the files are expected."""
        return self.path or Path(os.environ.get("GANSWEEP_DATA", "data")) / self.name


@dataclass(frozen=True)
class ImageData:
    """All images of one split in memory. N images, C channels, height H and width W."""

    images: Tensor
    """uint8 [N, C, H, W]."""
    labels: Tensor
    """int64 [N] in [0, classes)."""
    classes: int
    name: str
    split: str

    @cached_property
    def sha256(self) -> str:
        """Checksum of shape, images and labels: equal for equal data, whatever its name."""
        checksum = hashlib.sha256(str(tuple(self.images.shape)).encode())
        checksum.update(self.images.cpu().contiguous().numpy().data)
        checksum.update(self.labels.cpu().contiguous().numpy().data)
        return checksum.hexdigest()

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W of an image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def fitted(self, shape: tuple[int, int, int]) -> ImageData:
        """The same images in another size or number of channels, see `fit.fitted`."""
        return replace(self, images=fitted(self.images, shape))

    def to(self, device: torch.device | str) -> ImageData:
        """The same data on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """One entry of the table DATASETS."""

    summary: str
    """One line for a listing."""
    shape: tuple[int, int, int] | None
    """C, H, W of an image; None where the files decide."""
    classes: int | None
    """Number of classes; None where the files decide."""
    check: Callable[[DatasetSpec], None]
    """Raises InputError where `load` could not work; reads no pixels."""
    load: Callable[[DatasetSpec, Split], ImageData]
    options: frozenset[str] = frozenset()
    """Which of DatasetSpec's fields besides the name mean something here."""
