"""What a person says about a data set, and what comes of it."""

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
