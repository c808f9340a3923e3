"""Prunes a trial if its best score is worse than a percentile of the complete trials' scores, beyond their errors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from search_spaces.pruners.rule import CONTINUE, Answer, Curve, Pruner, measure, prune
from search_spaces.settings import Images
from trainers.evaluation.scores import METRICS, Judgement, Score, difference, judge

#: Standard errors of a difference beyond which a score counts as better or worse.
ERRORS = 2.0


class _AgainstOthers(Pruner):
    """What median and percentile share: the complete trials' best scores until a rung give the limit there."""

    startup: int = Field(default=5, ge=0, description="complete trials before any is pruned")
    warmup: Images = Field(default=0, description="no trial is pruned before this length, kimg in the file")

    def judge(self, curve: Curve, complete: Iterable[Curve], most_images: int) -> Answer:
        step, best = curve.steps[-1], curve.best()
        if step < self.warmup or best is None:
            return CONTINUE
        known = [score for other in complete if (score := other.best(step)) and math.isfinite(score.value)]
        if len(known) < max(1, self.startup):
            return CONTINUE
        limit = percentile_score(known, self._kept_percent)
        judgement = compare(best, limit)
        if judgement is Judgement.WORSE:
            return prune(f"{best.metric} {best} against {limit}")
        if judgement is Judgement.UNDECIDED and best is curve.scores[-1] and (more := more_images(best, most_images)):
            return measure(more)
        return CONTINUE

    @property
    def _kept_percent(self) -> float:
        raise NotImplementedError


class Median(_AgainstOthers):
    """Prunes a trial whose best score so far is worse than the median of the complete trials at the same rung.

    It must be worse by more than two standard errors of the difference. If it is nearer to the median, its last rung is
    scored again on twice the images.
    """

    name: Literal["median"] = "median"

    @property
    def _kept_percent(self) -> float:
        return 50.0


class Percentile(_AgainstOthers):
    """As `Median`, but keeps the best `percentile` per cent."""

    name: Literal["percentile"] = "percentile"
    percentile: float = Field(default=25.0, gt=0, lt=100, description="share of trials that goes on, in per cent")

    @property
    def _kept_percent(self) -> float:
        return self.percentile


def percentile_score(scores: Sequence[Score], percentile: float) -> Score:
    """The score that the best `percentile` per cent of `scores` (at least one) reach, interpolated between two of them.

    Its standard error is that of the one or two scores it is made of.
    """
    ranked = sorted(scores, key=lambda score: score.cost)
    position = percentile / 100 * (len(ranked) - 1)
    low, high = ranked[math.floor(position)], ranked[math.ceil(position)]
    share = position - math.floor(position)
    errors = [part.stderr for part in (low, high)]
    stderr = None if None in errors else math.hypot((1 - share) * (low.stderr or 0), share * (high.stderr or 0))
    if low is high:
        stderr = low.stderr
    return replace(low, value=(1 - share) * low.value + share * high.value, stderr=stderr)


def compare(score: Score, other: Score) -> Judgement:
    """Whether `score` is better or worse than `other`, or undecided within the standard error of their difference.

    Raises ValueError if the scores do not compare.
    """
    _, stderr = difference(score, other)
    return judge(replace(score, stderr=stderr), other.value, ERRORS)


def more_images(score: Score, most: int) -> int | None:
    """The number of images for a sharper look at `score`, twice as many as before.

    None if that is more than `most`, or if more images make the score no sharper.
    """
    sharper = METRICS[score.metric].any_n and score.stderr is not None
    return 2 * score.n if sharper and 2 * score.n <= most else None
