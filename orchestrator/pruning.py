"""Whether a trial goes on: its best score against the line that other trials draw, with the errors of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from trainers.evaluation.scores import METRICS, Judgement, Score, difference, judge
from trainers.run import Rung

#: Standard errors of the difference beyond which a trial counts as better or worse than the line.
ERRORS = 2.0


def best_until(rungs: Sequence[Rung], metric: str, images: int) -> Score | None:
    """The best score of `metric` in the rungs up to `images`; None where there is none."""
    scores = [rung.scores[metric] for rung in rungs if rung.images <= images and metric in rung.scores]
    sign = 1 if METRICS[metric].minimise else -1
    return min(scores, key=lambda score: sign * score.value, default=None)


def line(scores: Sequence[Score], percentile: float) -> Score:
    """The score that the best `percentile` per cent of `scores` (at least one) reach, between two of them if need be.

    Its standard error is that of the one or two scores it stands on.
    """
    sign = 1 if METRICS[scores[0].metric].minimise else -1
    ranked = sorted(scores, key=lambda score: sign * score.value)
    position = percentile / 100 * (len(ranked) - 1)
    low, high = ranked[math.floor(position)], ranked[math.ceil(position)]
    share = position - math.floor(position)
    errors = [part.stderr for part in (low, high)]
    stderr = None if None in errors else math.hypot((1 - share) * (low.stderr or 0), share * (high.stderr or 0))
    if low is high:
        stderr = low.stderr
    return replace(low, value=(1 - share) * low.value + share * high.value, stderr=stderr)


def against(score: Score, other: Score) -> Judgement:
    """Whether `score` is better or worse than `other`, or undecided for the standard error of their difference.

    Raises ValueError for scores that do not compare.
    """
    _, stderr = difference(score, other)
    return judge(replace(score, stderr=stderr), other.value, ERRORS)


def more_images(score: Score, most: int) -> int | None:
    """Number of images for another look at an undecided score, twice as many; None beyond `most`, or in vain."""
    sharper = METRICS[score.metric].any_n and score.stderr is not None
    return 2 * score.n if sharper and 2 * score.n <= most else None
