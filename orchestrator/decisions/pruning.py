"""Whether a trial goes on: its best score against the line that other trials draw, with the errors of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from search_spaces.settings import Patient, Section, Threshold
from trainers.evaluation.scores import METRICS, Judgement, Score, difference, judge
from trainers.rungs import Rung

#: Standard errors of the difference beyond which a trial counts as better or worse than the line.
ERRORS = 2.0


def best_until(rungs: Sequence[Rung], metric: str, images: int) -> Score | None:
    """The best score of `metric` in the rungs up to `images`; None where there is none."""
    scores = [rung.scores[metric] for rung in rungs if rung.images <= images and metric in rung.scores]
    return min(scores, key=lambda score: score.cost, default=None)


def line(scores: Sequence[Score], percentile: float) -> Score:
    """The score that the best `percentile` per cent of `scores` (at least one) reach, between two of them if need be.

    Its standard error is that of the one or two scores it stands on.
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


def by_its_own(pruner: Section, rungs: Sequence[Rung], metric: str) -> str | None:
    """Why the scores in `rungs` alone end a trial, whatever the others scored; None where they do not."""
    if not isinstance(pruner, Patient | Threshold) or rungs[-1].images < pruner.warmup:
        return None
    if isinstance(pruner, Patient):
        return _without_improvement(rungs, metric, pruner.patience, pruner.min_delta)
    best = best_until(rungs, metric, rungs[-1].images)
    return None if best is None else _beyond(best, pruner.lower, pruner.upper)


def _without_improvement(rungs: Sequence[Rung], metric: str, patience: int, min_delta: float) -> str | None:
    # By value alone: noise that looks like an improvement only lets the trial go on.
    scores = [rung.scores[metric] for rung in rungs if metric in rung.scores]
    if len(scores) <= patience:
        return None
    before, after = (min(part, key=lambda score: score.cost) for part in (scores[:-patience], scores[-patience:]))
    if before.cost - after.cost > min_delta:
        return None
    window = f"{patience} rungs" if patience > 1 else "rung"
    return f"{metric} {after} in the last {window}, {before} before"


def _beyond(score: Score, lower: float | None, upper: float | None) -> str | None:
    margin = ERRORS * (score.stderr or 0.0)
    if lower is not None and score.value + margin < lower:
        return f"{score.metric} {score} is below {lower:g}"
    if upper is not None and score.value - margin > upper:
        return f"{score.metric} {score} is above {upper:g}"
    return None
