"""How a sweep file or a command line names a data set, and an entry of the table of data sets."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from trainers.data.images import ImageData

Split = Literal["train", "test"]


class DatasetSpec(BaseModel):
    """A data set by name, with the place of its files and how to read them. A plain string means `name`."""

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
        default=False,
        description="convert images to each system's size and colours, and its samples back for scores",
    )

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def folder(self) -> Path:
        """The folder in which the files are expected."""
        return self.path or Path(os.environ.get("GANSWEEP_DATA", "data")) / self.name


@dataclass(frozen=True)
class Dataset:
    """One entry of the table DATASETS."""

    summary: str
    """One line for a listing."""
    shape: tuple[int, int, int] | None
    """C, H, W of an image; None if it depends on the files or options."""
    classes: int | None
    """Number of classes; None if it depends on the files."""
    check: Callable[[DatasetSpec], None]
    """Raises InputError if `load` cannot work; reads no pixels."""
    load: Callable[[DatasetSpec, Split], ImageData]
    options: frozenset[str] = frozenset()
    """The fields of DatasetSpec that apply to this data set, besides the name and those that apply to all."""
