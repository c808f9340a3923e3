"""Prunes a trial by its own scores alone, whatever the other trials scored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from search_spaces.pruners.percentile import ERRORS
from search_spaces.pruners.rule import CONTINUE, Answer, Curve, Pruner, prune
from search_spaces.settings import Images


class Patient(Pruner):
    """Prunes a trial whose last `patience` scores are no better than its best one before them, by `min_delta`."""

    name: Literal["patient"] = "patient"
    patience: int = Field(default=5, ge=1, description="rungs in a row that may bring no improvement")
    min_delta: float = Field(default=0.0, ge=0, description="by how much a score must be better to count as such")
    warmup: Images = Field(default=0, description="no trial is pruned before this length, kimg in the file")

    def judge(self, curve: Curve, complete: Iterable[Curve], most_images: int) -> Answer:
        # Values are compared without their errors: noise that looks like an improvement only lets the trial go on.
        scores = [score for score in curve.scores if score]
        if curve.steps[-1] < self.warmup or len(scores) <= self.patience:
            return CONTINUE
        parts = scores[: -self.patience], scores[-self.patience :]
        before, after = (min(part, key=lambda score: score.cost) for part in parts)
        if before.cost - after.cost > self.min_delta:
            return CONTINUE
        window = f"{self.patience} rungs" if self.patience > 1 else "rung"
        return prune(f"{after.metric} {after} in the last {window}, {before} before")


class Threshold(Pruner):
    """Prunes a trial whose best score so far is beyond a bound by more than two standard errors."""

    name: Literal["threshold"] = "threshold"
    lower: float | None = Field(default=None, description="least score that is allowed")
    upper: float | None = Field(default=None, description="largest score that is allowed")
    warmup: Images = Field(default=0, description="no trial is pruned before this length, kimg in the file")

    @model_validator(mode="after")
    def _bounded(self) -> Threshold:
        if self.lower is None and self.upper is None:
            raise ValueError("a threshold needs lower, upper or both")
        if self.lower is not None and self.upper is not None and self.lower >= self.upper:
            raise ValueError(f"lower {self.lower!r} is not below upper {self.upper!r}")
        return self

    def judge(self, curve: Curve, complete: Iterable[Curve], most_images: int) -> Answer:
        best = curve.best()
        if best is None or curve.steps[-1] < self.warmup:
            return CONTINUE
        margin = ERRORS * (best.stderr or 0.0)
        if self.lower is not None and best.value + margin < self.lower:
            return prune(f"{best.metric} {best} is below {self.lower:g}")
        if self.upper is not None and best.value - margin > self.upper:
            return prune(f"{best.metric} {best} is above {self.upper:g}")
        return CONTINUE
