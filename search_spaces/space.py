"""What is searched: dimensions, the conditions between them, and walks over a space."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations, islice, product
from typing import Any, Literal

Value = bool | int | float | str
Kind = Literal["log_uniform", "uniform", "int", "choice", "constant"]
#: So many parts of a space are counted in about a second.
MOST_PARTS = 100_000
#: Stands for each value that no condition names.
_ANY_OTHER = object()


@dataclass(frozen=True)
class Dimension:
    """One field of the configuration and the values a trial may give it.

    `low` and `high` (both inclusive) belong to log_uniform, uniform and int; `values` to choice and constant, which
    has one. The dimension is active if every parent in `when` has one of the values listed for it.
    """

    name: str
    kind: Kind
    low: float | int = 0
    high: float | int = 0
    values: tuple[Value, ...] = ()
    when: dict[str, tuple[Value, ...]] = field(default_factory=dict, hash=False)

    def allows(self, value: Value) -> bool:
        """Whether an active dimension can take `value`."""
        if self.kind in ("choice", "constant"):
            return value in self.values
        number = isinstance(value, int if self.kind == "int" else (int, float)) and not isinstance(value, bool)
        return number and self.low <= value <= self.high  # type: ignore[operator]

    def extremes(self) -> tuple[Value, ...]:
        """The extreme values: both bounds, or every listed value."""
        return self.values if self.kind in ("choice", "constant") else (self.low, self.high)

    @property
    def continuous(self) -> bool:
        return self.kind in ("uniform", "log_uniform")

    @property
    def count(self) -> int:
        """The number of values of a dimension that is not continuous."""
        return int(self.high) - int(self.low) + 1 if self.kind == "int" else len(self.values)

    def options(self) -> tuple[Value, ...]:
        """Every value of a dimension that is not continuous."""
        return tuple(range(int(self.low), int(self.high) + 1)) if self.kind == "int" else self.values

    def draw(self, rng: random.Random) -> Value:
        """A value drawn from the dimension's distribution."""
        if self.kind == "log_uniform":
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
            return min(max(value, self.low), self.high)  # exp(log(x)) may miss x by a rounding error
        if self.kind == "uniform":
            return rng.uniform(self.low, self.high)
        if self.kind == "int":
            return rng.randint(int(self.low), int(self.high))
        return rng.choice(self.values)

    def quantile(self, share: float) -> Value:
        """The quantile of the dimension's distribution at `share`, in [0, 1)."""
        if self.kind == "choice" or self.kind == "constant":
            return self.values[int(share * len(self.values))]
        if self.kind == "int":
            return int(self.low) + int(share * (int(self.high) - int(self.low) + 1))
        if self.kind == "log_uniform":
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        return min(max(value, self.low), self.high)  # rounding errors, as above


class CycleError(ValueError):
    """Dimensions whose conditions form a cycle; `names` starts and ends with the same one."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(" -> ".join(names))
        self.names = tuple(names)


@dataclass(frozen=True)
class Space:
    """Dimensions with unique names, parents before children (see `in_order`)."""

    dimensions: tuple[Dimension, ...]

    def __iter__(self) -> Iterator[Dimension]:
        return iter(self.dimensions)

    def __len__(self) -> int:
        return len(self.dimensions)

    def get(self, name: str) -> Dimension | None:
        """The dimension called `name`, or None."""
        return next((dimension for dimension in self if dimension.name == name), None)

    def requirements(self, dimension: Dimension) -> dict[str, tuple[Value, ...]]:
        """The values each ancestor must have for `dimension` to be active, its ancestors' own conditions included.

        An empty tuple marks conditions that contradict each other or the ancestor's values: it is never active.
        """
        needed: dict[str, tuple[Value, ...]] = {}
        for name, values in dimension.when.items():
            parent = self.get(name)
            if parent is None:
                raise KeyError(name)
            possible = tuple(value for value in values if parent.allows(value))
            for ancestor, allowed in {name: possible, **self.requirements(parent)}.items():
                known = needed.get(ancestor, allowed)
                needed[ancestor] = tuple(value for value in known if value in allowed)
        return needed


def in_order(dimensions: Sequence[Dimension]) -> tuple[Dimension, ...]:
    """`dimensions` with parents before children, else in the given order; parents not among them are ignored.

    Raises CycleError.
    """
    by_name = {dimension.name: dimension for dimension in dimensions}
    ordered: dict[str, Dimension] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise CycleError([*path[path.index(name) :], name])
        if name in by_name and name not in ordered:
            for parent in by_name[name].when:
                visit(parent, (*path, name))
            ordered[name] = by_name[name]

    for dimension in dimensions:
        visit(dimension.name, ())
    return tuple(ordered.values())


def active(dimension: Dimension, values: dict[str, Any]) -> bool:
    """Whether `dimension` takes part in a trial whose parents have `values`; an inactive parent has none."""
    return all(name in values and values[name] in allowed for name, allowed in dimension.when.items())


def suggest(space: Space, pick: Callable[[Dimension], Value]) -> dict[str, Value]:
    """The values of one trial: `pick` is asked for each active dimension that is no constant, in the space's order."""
    values: dict[str, Value] = {}
    for dimension in space:
        if active(dimension, values):
            values[dimension.name] = dimension.values[0] if dimension.kind == "constant" else pick(dimension)
    return values


def grid(space: Space) -> Iterator[dict[str, Value]]:
    """Every point of a space without continuous dimensions, once each; the last dimension varies fastest."""

    def extend(values: dict[str, Value], rest: tuple[Dimension, ...]) -> Iterator[dict[str, Value]]:
        if not rest:
            yield values
        elif not active(rest[0], values):
            yield from extend(values, rest[1:])
        else:
            for value in rest[0].options():
                yield from extend({**values, rest[0].name: value}, rest[1:])

    yield from extend({}, space.dimensions)


def pairs(space: Space) -> Iterator[dict[str, Value]]:
    """Points in which two dimensions have each pair of their extreme values, if they can be active together.

    Their ancestors have the first values that allow it, all other dimensions the first of their extreme values.
    """
    allowing = {
        dimension.name: {name: values[0] for name, values in space.requirements(dimension).items() if values}
        for dimension in space
    }
    for one, other in combinations(space, 2):
        for value, partner in product(one.extremes(), other.extremes()):
            fixed = {**allowing[one.name], **allowing[other.name], one.name: value, other.name: partner}
            yield suggest(space, partial(_fixed_or_first, fixed))


def _fixed_or_first(fixed: dict[str, Value], dimension: Dimension) -> Value:
    return fixed.get(dimension.name, dimension.extremes()[0])


def size(space: Space) -> int | None:
    """The number of points of a space; None if a dimension is continuous.

    None too for a space that its conditions part into more than MOST_PARTS parts, which has at least so many points.
    """
    if any(dimension.continuous for dimension in space):
        return None
    parts = list(islice(_parts({}, space.dimensions, named(space)), MOST_PARTS + 1))
    return sum(parts) if len(parts) <= MOST_PARTS else None


def named(space: Space) -> dict[str, tuple[Value, ...]]:
    """By dimension on which others depend: its values that their conditions name."""
    found: dict[str, dict[Value, None]] = {}
    for dimension in space:
        for parent, values in dimension.when.items():
            found.setdefault(parent, {}).update(dict.fromkeys(values))
    return {parent: tuple(values) for parent, values in found.items()}


def _parts(
    values: dict[str, Any], rest: tuple[Dimension, ...], conditions: dict[str, tuple[Value, ...]]
) -> Iterator[int]:
    """The sizes of parts of a space that have no point in common: in each, the same dimensions of `rest` are active."""
    if not rest:
        yield 1
        return
    first, others = rest[0], rest[1:]
    if not active(first, values):
        yield from _parts(values, others, conditions)
        return
    told_apart = [value for value in conditions.get(first.name, ()) if first.allows(value)]
    for value in told_apart:
        yield from _parts({**values, first.name: value}, others, conditions)
    if alike := first.count - len(told_apart):
        yield from (alike * part for part in _parts({**values, first.name: _ANY_OTHER}, others, conditions))


def points(space: Space, count: int, seed: int = 0) -> Iterator[dict[str, Value]]:
    """`count` points of the space, the same for the same seed: extremes and draws from the distributions in turn."""
    rng = random.Random(seed)
    for index in range(count):
        if index % 2 == 0:
            yield suggest(space, lambda dimension: rng.choice(dimension.extremes()))
        else:
            yield suggest(space, lambda dimension: dimension.draw(rng))
