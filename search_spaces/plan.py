"""Which trials a sweep would begin with: nothing is run, and nothing learnt from scores."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

from search_spaces.space import Dimension, Value, grid, suggest
from search_spaces.sweep import Sweep

#: Planned trials of a sweep whose budget limits no number of them.
TRIALS_WITHOUT_LIMIT = 16


def planned(sweep: Sweep) -> list[dict[str, Value]]:
    """The parameters of every trial of the budget, as far as they are known; others drawn from their distributions.

    If the budget limits no number of trials, TRIALS_WITHOUT_LIMIT, or all points of the sweep file if they are more.
    """
    count = sweep.budget.trials or max(TRIALS_WITHOUT_LIMIT, len(sweep.points))
    if sweep.sampler.name == "grid":
        return list(islice(grid(sweep.space), count))
    rng = random.Random(sweep.sampler.base_seed)

    def drawn(point: dict[str, Any]) -> dict[str, Value]:
        def pick(dimension: Dimension) -> Value:
            return point[dimension.name] if dimension.name in point else dimension.draw(rng)

        return suggest(sweep.space, pick)

    return [drawn(point) for point in (*sweep.points, *({} for _ in range(count - len(sweep.points))))]
