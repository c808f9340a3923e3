"""Rungs: the points of a run at which it is scored, and which of them are the best."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from pydantic import TypeAdapter, ValidationError

from trainers.config import problems
from trainers.evaluation.scores import Score


@dataclass(frozen=True)
class Rung:
    """What was measured after `images` images; a diverged run has no scores."""

    images: int
    scores: dict[str, Score]
    losses: dict[str, float]
    """Mean of each recorded loss since the rung before, images per second (`images_per_s`), and `clipped_share`: the
    share of a clipped critic's parameters that are on their bound."""
    train_seconds: float
    score_seconds: float
    diverged: str | None = None
    """The losses that are not finite, in words; None if all are."""
    diversity: float | None = None
    """Mean distance between samples over that between real images; within classes if the system is conditional."""
    repeats: float | None = None
    """Share of the samples with another sample unusually near, as in `monitor.repeats`; None for fewer than 100."""
    class_shares: tuple[float, ...] | None = None
    """Share of each class among the samples, None if the extractor is no classifier."""
    per_class_accuracy: tuple[float | None, ...] | None = None
    """Accuracy of the samples of each class; None without a classifier or classes, and for a class without samples."""
    verdicts: tuple[str, ...] = ()
    """The monitor's verdicts on the run so far, as `KIND: EVIDENCE`."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON. A loss that is not finite becomes a text (nan, inf, -inf), since JSON has no such numbers."""
        scores = {name: {**vars(score)} for name, score in self.scores.items()}
        losses = {name: value if math.isfinite(value) else str(value) for name, value in self.losses.items()}
        return {**vars(self), "scores": scores, "losses": losses}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Rung:
        """The inverse of `to_json`. Fields with a default may be missing: an earlier release did not know them."""
        scores = {name: Score(**score) for name, score in record["scores"].items()}
        losses = {name: float(value) for name, value in record["losses"].items()}
        lists = {name: tuple(value) for name, value in record.items() if isinstance(value, list)}
        return cls(**{**record, "scores": scores, "losses": losses, **lists})


def history_of(manifest: dict[str, Any]) -> list[Rung]:
    """The rungs in the manifest of a checkpoint, oldest first, at least one. Raises ValueError if it has no such."""
    try:
        records = [asdict(Rung.from_json(record)) for record in manifest["history"]]
        rungs = TypeAdapter(list[Rung]).validate_json(
            json.dumps(records), strict=True
        )  # lists are tuples, texts no numbers
    except ValidationError as error:
        path, text = problems(error)[0]
        raise ValueError(f"history: {'.'.join(path)}: {text}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"history: expected a list of rungs ({type(error).__name__}: {error})") from None
    if not rungs or any(later <= earlier for earlier, later in pairwise([0, *(rung.images for rung in rungs)])):
        raise ValueError("history: the images of its rungs must be positive and increase")
    return rungs


def worth_keeping(rungs: Sequence[Rung], metric: str, best: int = 1) -> set[int]:
    """Images of the `best` rungs with the best values of `metric`, and of the `best` before the last one.

    The last rung may be measured again, with a worse score; then the best of the others is needed.
    """
    return {rung.images for past in (rungs, rungs[:-1]) for rung in best_rungs(past, metric, best)}


def best_rungs(rungs: Sequence[Rung], metric: str, count: int) -> list[Rung]:
    """The best `count` of the rungs that have a score, best first; of equal ones the earlier comes first."""
    sound = [rung for rung in rungs if metric in rung.scores]
    return sorted(sound, key=lambda rung: rung.scores[metric].cost)[:count]


def best_rung(rungs: Sequence[Rung], metric: str) -> Rung | None:
    """The rung with the best score by `metric`, the earliest of equal ones; None if no rung has a score."""
    return next(iter(best_rungs(rungs, metric, 1)), None)
