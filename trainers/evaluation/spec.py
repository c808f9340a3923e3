"""How a sweep file or a command line names a feature extractor. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainers.names import ExtractorName

#: Trained on the real images of the data set: they need at least two classes, and return logits.
CLASSIFIERS: tuple[ExtractorName, ...] = ("lenet", "cnn")
#: They return no logits. Whether `custom` does is known only when it is built.
INCEPTIONS: tuple[ExtractorName, ...] = ("inception", "inception-pt")
DTypeName = Literal["float32", "float64"]


class ExtractorSpec(BaseModel):
    """A feature extractor by name. A plain string means `name`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ExtractorName = Field(
        default="lenet",
        description="lenet, cnn: classifier trained on the real images; inception: the official FID network; "
        "inception-pt: the same in plain PyTorch; custom: any network in `weights`",
    )
    weights: Path | None = Field(
        default=None,
        description="TorchScript file: of custom, or in place of the official Inception. Reading it runs code in it: "
        "name only files that you trust",
    )
    sha256: str | None = Field(
        default=None, pattern="^[0-9a-fA-F]{64}$", description="checksum that `weights` must have; recommended"
    )
    dtype: DTypeName = Field(default="float32", description="arithmetic; float64 is slow and only for checking float32")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.name in CLASSIFIERS and self.weights is not None:
            raise ValueError(f"weights belong to {', '.join(INCEPTIONS)} or custom, not to {self.name}")
        if self.name == "custom" and self.weights is None:
            raise ValueError("custom needs `weights`, a TorchScript file")
        if self.weights is None and self.sha256 is not None:
            raise ValueError("sha256 is the checksum of `weights`, which are not given")
        return self
