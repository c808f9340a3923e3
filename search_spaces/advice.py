"""Warnings about sweeps that are allowed but hardly ever wanted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

from search_spaces.checks import TRIED_POINTS
from search_spaces.space import Dimension, Space, Value, points, size, suggest
from search_spaces.sweep import Sweep
from trainers.advice import warnings_of
from trainers.catalogue import SYSTEMS

#: A budget of hours or GPU-hours may well train all points of a smaller space.
FEW_POINTS = 100


def sweep_warnings(sweep: Sweep) -> list[str]:
    """One sentence for each doubt about `sweep`."""
    # Numbers choose no layers, so one point for each combination of words and flags is enough.
    unlike: dict[tuple[tuple[str, Value], ...], dict[str, Value]] = {}
    for values in points(sweep.space, TRIED_POINTS):
        unlike.setdefault(tuple(item for item in values.items() if isinstance(item[1], str | bool)), values)
    chosen = [sweep.configure(values) for values in unlike.values()]
    doubts = [f"{name}: {text}" for name, config in chosen for text in warnings_of(SYSTEMS[name], config)]
    return [*dict.fromkeys(doubts), *repeated_trials(sweep), *_repeated_points(sweep)]


def repeated_trials(sweep: Sweep) -> Iterator[str]:
    """A warning if the budget allows more trials than there are points: with one seed, equal points train the same.

    A space in which a dimension is continuous has no such end, and sampler grid refuses more trials than points.
    """
    count, trials = size(sweep.space), sweep.budget.trials
    if sweep.sampler.name == "grid" or count is None or count >= (FEW_POINTS if trials is None else trials):
        return
    limit = "the budget limits no number of trials" if trials is None else f"budget.trials is {trials}"
    yield (
        f"the search space has {count} point{'s' if count > 1 else ''}, but {limit}: further trials are identical to "
        f"earlier ones, since all have one seed; set budget.trials to {count} or less, search more values, or repeat "
        "points with other seeds by sampler: grid and search.seed: {choice: [0, 1, 2]}"
    )


def _repeated_points(sweep: Sweep) -> Iterator[str]:
    """A warning about the first of `points` that equals an earlier one and leaves nothing to the sampler."""
    seen: dict[tuple[tuple[str, Value], ...], int] = {}
    for index, point in enumerate(sweep.points):
        with suppress(KeyError):  # the sampler draws what the point lacks
            first = seen.setdefault(_values(sweep.space, point), index)
            if first != index:
                yield f"points {first} and {index} give identical trials; leave one of them out"
                return


def _values(space: Space, point: Mapping[str, Value]) -> tuple[tuple[str, Value], ...]:
    """The values of the trial that `point` gives. Raises KeyError if it lacks one."""

    def given(dimension: Dimension) -> Value:
        return point[dimension.name]

    return tuple(suggest(space, given).items())
