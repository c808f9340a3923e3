"""Values of trials by several objectives: the score, and the GPU-hours that it took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from orchestrator.decisions.budget import HOUR, devices
from search_spaces.settings import GPU_HOURS
from search_spaces.sweep import Sweep
from trainers.evaluation.scores import METRICS


def directions(sweep: Sweep) -> list[str]:
    """minimize or maximize for each objective, the score first."""
    score = {"lower": "minimize", "higher": "maximize"}[METRICS[sweep.score.metric].better]
    return [score if name != GPU_HOURS else "minimize" for name in sweep.objectives]


def gpu_hours(sweep: Sweep, rungs: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
    """GPU-hours of a trial up to each of `rungs` (plain JSON), as budgets count; empty if they are no objective."""
    if GPU_HOURS not in sweep.objectives:
        return ()
    seconds = accumulate(rung["train_seconds"] + rung["score_seconds"] for rung in rungs)
    return tuple(each * devices(sweep.resources) / HOUR for each in seconds)


def hours_at_full_length(sweep: Sweep, rungs: Sequence[Mapping[str, Any]]) -> float:
    """GPU-hours of a whole trial at the speed of one that has passed `rungs`: plain JSON, one or more.

    By the hours until it was stopped, any trial that is stopped early would look good.
    """
    images: int = rungs[-1]["images"]
    return gpu_hours(sweep, rungs)[-1] * sweep.rungs[-1] / images


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other one dominates, by being no worse in either value and better in one.

    Less is better. The first value increases along the front; equal points are on it together.
    """
    found: list[int] = []
    least = math.inf
    for index in sorted(range(len(points)), key=lambda each: points[each]):
        if points[index][1] < least or (found and points[index] == points[found[-1]]):
            found.append(index)
            least = points[index][1]
    return found
