"""The metrics and their requirements, and scores with all that is needed to compare them. Needs no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

#: Parts of the inception score.
SPLITS = 10
#: k of the balls around nearest neighbours for precision and recall (Kynkäänniemi et al., 2019).
PRECISION_K = 3
#: k of the balls for density and coverage (Naeem et al., 2020).
COVERAGE_K = 5
#: Why a metric that needs the test split is only for finished images; the end of a message.
TOO_SLOW = "trains a classifier for each value, which is too slow during a run: use `gansweep score`"


@dataclass(frozen=True)
class Metric:
    """The requirements of a metric, and its direction."""

    name: str
    minimise: bool
    needs_logits: bool = False
    needs_labels: bool = False
    needs_test: bool = False
    """Whether it needs the real test images instead of features, and trains a classifier on the generated ones."""
    routine: bool = False
    """Whether it is recorded by default."""
    any_n: bool = False
    """Whether values from different numbers of images compare, because their expectation does not depend on it."""
    fewest: int = 2
    """Smallest number of images for which it is defined."""
    within_classes: bool = False
    """Whether every class needs `fewest` generated and `fewest_real` real images."""
    fewest_real: int = 2
    """Smallest number of real images in the reference."""

    def cost(self, value: float) -> float:
        """`value` with the sign that makes lower better."""
        return value if self.minimise else -value

    def best(self, values: Iterable[float]) -> float | None:
        """The best of `values`; None if there is none."""
        return min(values, key=self.cost, default=None)

    @property
    def better(self) -> str:
        """`lower` or `higher`: the direction of better values."""
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
        Metric("precision", False, any_n=True, fewest_real=PRECISION_K + 1),
        Metric("recall", False, fewest=PRECISION_K + 1),
        Metric("density", False, any_n=True, fewest_real=COVERAGE_K + 1),
        Metric("coverage", False, fewest_real=COVERAGE_K + 1),
        Metric("intra-kid", True, needs_labels=True, any_n=True, within_classes=True),
        Metric("intra-fid", True, needs_labels=True, within_classes=True),
        Metric("tstr", False, needs_labels=True, needs_test=True),
    )
}


@dataclass(frozen=True)
class Score:
    """One value of one metric. `comparable` tells which other scores it compares with."""

    metric: str
    value: float
    stderr: float | None
    """Standard error of the value; None if there is no estimate."""
    n: int
    """Number of generated images."""
    extractor: str
    """The extractor's id, which names weights, precision and resizing; for `tstr` the recipe of its classifier."""
    reference: str
    """The id of the real images it was measured against."""
    seed: int

    @property
    def cost(self) -> float:
        """The value with the sign that makes lower better."""
        return METRICS[self.metric].cost(self.value)

    def __str__(self) -> str:
        return written(self.value, self.stderr)


def written(value: float, stderr: float | None) -> str:
    """A value as text: to two digits of its standard error, `0.01234 ± 0.00056`; without one, to four digits."""
    if not stderr:
        return f"{value:.4g}"
    if not (math.isfinite(value) and 0 < stderr < math.inf):
        return f"{value:.4g} ± {stderr:.2g}"
    places = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{value:.{places}f} ± {stderr:.{places}f}"


def weights_in(extractor: str) -> str:
    """The first 12 digits of the sha256 of the weights, which an extractor's id has; empty for another text."""
    found = re.search("-([0-9a-f]{12})-", extractor)
    return found[1] if found else ""


class Judgement(StrEnum):
    """The comparison of a score with a threshold."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"


def comparable(a: Score, b: Score) -> str | None:
    """The reason why two scores do not compare; None if they do.

    Metric, extractor and reference must be equal, and the number of images too, if the metric's expectation depends on
    it.
    """
    for key in ("metric", "extractor", "reference"):
        own, other = getattr(a, key), getattr(b, key)
        if own != other:
            return f"{key} {own} is not {other}"
    if a.n != b.n and not METRICS[a.metric].any_n:
        return f"{a.metric} depends on the number of images: {a.n:,} are not {b.n:,}"
    return None


def difference(a: Score, b: Score) -> tuple[float, float | None]:
    """a - b, and its standard error for independently drawn images; the latter is None if either score has none.

    Raises ValueError if they do not compare.
    """
    if reason := comparable(a, b):
        raise ValueError(f"scores do not compare: {reason}")
    stderr = None if a.stderr is None or b.stderr is None else math.hypot(a.stderr, b.stderr)
    return a.value - b.value, stderr


def judge(score: Score, threshold: float, errors: float = 2.0) -> Judgement:
    """Whether a score is better or worse than `threshold` by more than `errors` of its standard errors.

    A score without a standard error is undecided only if it equals the threshold. Raises ValueError for a NaN.
    """
    margin = errors * (score.stderr or 0.0)
    gain = METRICS[score.metric].cost(threshold) - score.cost
    if math.isnan(gain) or math.isnan(margin):
        raise ValueError(
            f"{score.metric} {score.value} with error {score.stderr} cannot be compared with the threshold {threshold}"
        )
    if abs(gain) <= margin:
        return Judgement.UNDECIDED
    return Judgement.BETTER if gain > 0 else Judgement.WORSE
