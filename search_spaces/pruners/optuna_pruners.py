"""Pruners that are Optuna's own, or that somebody has written for Optuna.

Here they are only named. The driver makes them and asks them (`orchestrator/study/pruners.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from search_spaces.pruners.rule import Pruner
from search_spaces.settings import ClassPath


class Hyperband(Pruner):
    """Brackets of successive halving with different first rungs (Li et al., 2018)."""

    name: Literal["hyperband"] = "hyperband"
    reduction: int = Field(default=3, ge=2, description="one trial in this many is promoted")
    one_objective: ClassVar[bool] = True

    def optuna_pruner(self, rungs: Sequence[int]) -> tuple[str, dict[str, Any]]:
        limits = {"min_resource": rungs[0], "max_resource": rungs[-1]}
        return "optuna.pruners:HyperbandPruner", {**limits, "reduction_factor": self.reduction}


class NamedPruner(Pruner):
    """A pruner of another package, a subclass of `optuna.pruners.BasePruner`; other keys are its arguments."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(default="", exclude=True, max_length=0)
    class_path: ClassPath = Field(alias="class")
    one_objective: ClassVar[bool] = True

    @property
    def title(self) -> str:
        return self.class_path

    def optuna_pruner(self, rungs: Sequence[int]) -> tuple[str, dict[str, Any]]:
        return self.class_path, dict(self.model_extra or {})
