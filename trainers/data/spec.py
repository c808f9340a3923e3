"""How a sweep file or a command line names a data set, and an entry of the table of data sets."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from trainers.config import problems
from trainers.errors import InputError

if TYPE_CHECKING:
    from trainers.data.images import ImageData

Split = Literal["train", "test"]
#: Heights and widths, in pixels, to which pictures can be scaled.
SMALLEST, LARGEST = 4, 1024
Colour = tuple[int, int, int]
"""Red, green and blue in [0, 255]."""


def read_colour(value: Any) -> Colour:
    """The colour given by name, as "#rrggbb", or as a list of three whole numbers.

    Raises ValueError for anything else.
    """
    numbers = value
    if isinstance(value, str):
        from PIL import ImageColor

        try:
            numbers = ImageColor.getrgb(value)
        except ValueError:
            numbers = ()
    valid = isinstance(numbers, list | tuple) and len(numbers) == 3
    if not valid or not all(type(each) is int and 0 <= each <= 255 for each in numbers):
        raise ValueError(
            f'allowed are names such as white and black, "#rrggbb" in quotes, and [r, g, b] in 0 to 255, got {value!r}'
        )
    red, green, blue = numbers
    return red, green, blue


def colour_option(text: str | None) -> Colour | None:
    """The value of the option `--background`. Raises InputError if it is no colour."""
    try:
        return None if text is None else read_colour(text)
    except ValueError as error:
        raise InputError(f"--background: {error}") from None


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
        default=None,
        ge=SMALLEST,
        le=LARGEST,
        description="height and width in pixels (folder only; default: those of the systems' images)",
    )
    background: Annotated[Colour, BeforeValidator(read_colour)] | None = Field(
        default=None, description="colour below transparent parts of pictures: a name, [r, g, b] or '#rrggbb' (folder)"
    )
    skip_damaged: bool = Field(default=False, description="pass over pictures that cannot be decoded (folder only)")
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


def read_spec(name: str, **options: Any) -> DatasetSpec:
    """The data set that a command line names. Raises InputError for an option with a value that is not allowed."""
    try:
        return DatasetSpec.model_validate({"name": name, **options})
    except ValidationError as error:
        raise InputError("; ".join(f"--{'.'.join(path)}: {text}" for path, text in problems(error))) from None


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
    names: tuple[str, ...] = ()
    """Names of the classes in the order of the labels; empty if they depend on the files."""
    counts: tuple[int, ...] = ()
    """Training images of each class of the published files; empty if they depend on the files."""
    options: frozenset[str] = frozenset()
    """The fields of DatasetSpec that apply to this data set, besides the name and those that apply to all."""
