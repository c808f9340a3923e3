"""Scores: what each metric wants, and values with all that one must know to compare them. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

#: Parts of the inception score.
SPLITS = 10
#: Neighbours that make the ball around a point for precision and recall (Kynkäänniemi et al., 2019).
PRECISION_K = 3
#: Why a metric that needs the test split is for finished images alone.
TOO_SLOW = "trains a classifier for each value, which is for the end: use `gansweep score`"


@dataclass(frozen=True)
class Metric:
    """What a metric wants and where it points."""

    name: str
    minimise: bool
    needs_logits: bool = False
    needs_labels: bool = False
    needs_test: bool = False
    """Whether it looks at the real test images instead of the features, and trains on the generated ones."""
    routine: bool = False
    """Whether it is recorded where nothing is said about it."""
    any_n: bool = False
    """Whether values of unlike numbers of images compare: their expectation does not depend on it."""
    fewest: int = 2
    """Fewest images that it is defined for."""
    within_classes: bool = False
    """Whether it needs the fewest images of every class."""

    def cost(self, value: float) -> float:
        """`value` turned so that less is better."""
        return value if self.minimise else -value

    def best(self, values: Iterable[float]) -> float | None:
        """The best of `values`; None if there is none."""
        return min(values, key=self.cost, default=None)

    @property
    def better(self) -> str:
        """Where better values lie: lower or higher."""
        return "lower" if self.minimise else "higher"


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("kid", True, routine=True, any_n=True),
        Metric("fid", True, routine=True),
        Metric("is", False, needs_logits=True, routine=True, fewest=2 * SPLITS),
        Metric("accuracy", False, needs_logits=True, needs_labels=True, routine=True, any_n=True),
        Metric("kid-biased", True),
        Metric("fid-infinity", True, any_n=True, fewest=20),
        Metric("is-pooled", False, needs_logits=True, fewest=2 * SPLITS),
        Metric("is-external", False, needs_logits=True, fewest=2 * SPLITS),
        Metric("precision", False, any_n=True),
        Metric("recall", False, fewest=PRECISION_K + 1),
        Metric("density", False, any_n=True),
        Metric("coverage", False),
        Metric("intra-kid", True, needs_labels=True, any_n=True, within_classes=True),
        Metric("intra-fid", True, needs_labels=True, within_classes=True),
        Metric("tstr", False, needs_labels=True, needs_test=True),
    )
}


@dataclass(frozen=True)
class Score:
    """One value of one metric; `comparable` says which others it compares with."""

    metric: str
    value: float
    stderr: float | None
    """Standard error of the value, None where it has no estimate."""
    n: int
    """Number of generated images."""
    extractor: str
    """Its id, which tells weights, precision and resizing apart; of `tstr` the recipe of its classifier."""
    reference: str
    """The id of the real images it was measured against."""
    seed: int

    @property
    def cost(self) -> float:
        """The value turned so that less is better."""
        return METRICS[self.metric].cost(self.value)

    def __str__(self) -> str:
        return written(self.value, self.stderr)


def written(value: float, stderr: float | None) -> str:
    """A value for people: to the second digit of its standard error, `0.01234 ± 0.00056`; else to four digits."""
    if not stderr:
        return f"{value:.4g}"
    if not (math.isfinite(value) and 0 < stderr < math.inf):
        return f"{value:.4g} ± {stderr:.2g}"
    places = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{value:.{places}f} ± {stderr:.{places}f}"


class Judgement(StrEnum):
    """How a score lies to a threshold."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"


def comparable(a: Score, b: Score) -> str | None:
    """Why two scores do not compare, None where they do.

    Metric, extractor and reference must be the same, and the number of images where the metric's expectation depends
    on it.
    """
    for key in ("metric", "extractor", "reference"):
        own, other = getattr(a, key), getattr(b, key)
        if own != other:
            return f"{key} {own} is not {other}"
    if a.n != b.n and not METRICS[a.metric].any_n:
        return f"{a.metric} depends on the number of images: {a.n:,} are not {b.n:,}"
    return None


def difference(a: Score, b: Score) -> tuple[float, float | None]:
    """a - b and its standard error for images drawn independently; no error where either score has none.

    Raises ValueError where they do not compare.
    """
    if reason := comparable(a, b):
        raise ValueError(f"scores do not compare: {reason}")
    stderr = None if a.stderr is None or b.stderr is None else math.hypot(a.stderr, b.stderr)
    return a.value - b.value, stderr


def judge(score: Score, threshold: float, errors: float = 2.0) -> Judgement:
    """Whether a score lies beyond `threshold` by more than `errors` of its standard errors, and on which side.

    Without a standard error its value decides; equal to the threshold it is undecided. Raises ValueError for a NaN.
    """
    margin = errors * (score.stderr or 0.0)
    gain = METRICS[score.metric].cost(threshold) - score.cost
    if math.isnan(gain) or math.isnan(margin):
        raise ValueError(f"{score.metric} {score.value} with error {score.stderr} cannot be held against {threshold}")
    if abs(gain) <= margin:
        return Judgement.UNDECIDED
    return Judgement.BETTER if gain > 0 else Judgement.WORSE
