"""The trials with which a sweep would begin. None is run, so nothing is learned from scores."""

from __future__ import annotations

import random
from itertools import islice, repeat
from typing import Any

from search_spaces.space import Dimension, Value, grid, suggest
from search_spaces.sweep import Sweep

#: Planned trials of a sweep if its budget does not limit their number.
TRIALS_WITHOUT_LIMIT = 16
#: No more trials are planned, however many the budget allows: so many show what an average trial is like.
MOST_PLANNED = 10_000


def planned(sweep: Sweep) -> list[dict[str, Value]]:
    """The parameters of the trials that the budget allows; those that the file does not fix are drawn at random.

    Without a limit on their number: TRIALS_WITHOUT_LIMIT trials, or all points of the file if there are more. The first
    MOST_PLANNED trials if there are more.
    """
    count = min(sweep.budget.trials or max(TRIALS_WITHOUT_LIMIT, len(sweep.points)), MOST_PLANNED)
    if sweep.sampler.name == "grid":
        return list(islice(grid(sweep.space), count))
    rng = random.Random(sweep.sampler.base_seed)

    def drawn(point: dict[str, Any]) -> dict[str, Value]:
        def pick(dimension: Dimension) -> Value:
            return point[dimension.name] if dimension.name in point else dimension.draw(rng)

        return suggest(sweep.space, pick)

    return [drawn(point) for point in islice((*sweep.points, *repeat({}, count)), count)]
