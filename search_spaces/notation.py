"""How a dimension is written in a sweep file: `g_lr: {log_uniform: [1e-5, 5e-3], when: {loss: bce}}`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, get_args

from search_spaces.document import Path, Problem, pydantic_error
from search_spaces.space import CycleError, Dimension, Kind, Value, in_order

KINDS: tuple[str, ...] = get_args(Kind)
#: The kinds with a lowest and a highest value.
RANGES = ("log_uniform", "uniform", "int")
#: Keys by which other programs give a range a scale or a step, which ours do not have.
SCALES = ("log", "step", "q")
#: So many values are shown in a message.
MOST_LISTED = 16


def read_search(raw: Any) -> tuple[Dimension, ...]:
    """The dimensions of the mapping name -> notation, parents before children.

    Raises pydantic's ValidationError whose entries name the keys below `search`.
    """
    if isinstance(raw, tuple) and all(isinstance(dimension, Dimension) for dimension in raw):
        return in_order(raw)
    if not isinstance(raw, dict):
        raise ValueError(f"expected a mapping of fields to dimensions, got {raw!r}")
    problems = [problem for name, written in raw.items() for problem in _problems(name, written)]
    if problems:
        raise pydantic_error(problems)
    try:
        return in_order([_dimension(name, written) for name, written in raw.items()])
    except CycleError as cycle:
        text = f"the conditions form a cycle: {cycle}; a dimension may depend only on others that do not need it"
        raise pydantic_error([((cycle.names[0], "when"), text)]) from None


def write_search(dimensions: tuple[Dimension, ...]) -> dict[str, Any]:
    """The inverse of `read_search`, as plain data."""
    return {dimension.name: _written(dimension) for dimension in dimensions}


def _written(dimension: Dimension) -> Any:
    if dimension.kind == "constant":
        if not dimension.when:
            return dimension.values[0]
        body: Any = dimension.values[0]
    else:
        body = list(dimension.values) if dimension.kind == "choice" else [dimension.low, dimension.high]
    when = {name: list(values) for name, values in dimension.when.items()}
    return {dimension.kind: body, **({"when": when} if when else {})}


def _dimension(name: str, written: Any) -> Dimension:
    """A dimension in which `_problems` found none."""
    if not isinstance(written, dict):
        return Dimension(name, "constant", values=(written,))
    when = {parent: tuple(_listed(values)) for parent, values in written.get("when", {}).items()}
    kind: Any = _kinds(written)[0]
    body = written[kind]
    if kind in ("choice", "constant"):
        return Dimension(name, kind, values=tuple(_listed(body)), when=when)
    low, high = body if kind == "int" else map(float, body)
    return Dimension(name, kind, low, high, when=when)


def _problems(name: Any, written: Any) -> Iterator[Problem]:
    """Problems of one dimension on its own, with any system."""
    path: Path = (str(name),)
    if not isinstance(name, str):
        yield path, f"a key must be a word, got {name!r}"
    elif not isinstance(written, dict):
        yield from _bad_values(path, [written])
    else:
        kinds = _kinds(written)
        for key in written:
            if key not in (*KINDS, "when"):
                yield (*path, str(key)), _unknown(key, written, kinds)
        if len(kinds) != 1:
            yield path, f"expected exactly one of {', '.join(KINDS)}, got {', '.join(kinds) or repr(written)}"
        for kind in kinds:
            yield from _bad_body((*path, kind), kind, written[kind])
        if "when" in written:
            yield from _bad_when((*path, "when"), written["when"])


def _unknown(key: Any, written: dict[Any, Any], kinds: list[str]) -> str:
    """What is allowed in place of `key`, which no dimension has; for a scale or a step, what to write instead."""
    kind = kinds[0] if len(kinds) == 1 else ""
    body: Any = written.get(kind)
    if key not in SCALES or kind not in RANGES or list(_bad_range((), kind, body)):
        return f"unknown key; allowed is one of {', '.join(KINDS)}, and when"
    if key == "log" and kind == "log_uniform":
        return "leave it out: log_uniform has a logarithmic scale"
    if not written[key]:
        return "leave it out: ranges have no such key"
    low, high = body
    if key == "log" and kind == "uniform":
        return f"a logarithmic scale is written log_uniform: [{low}, {high}]"
    nature = "whole numbers have neither log nor step" if kind == "int" else f"{kind} has no step"
    listed = doubled(low, high) if key == "log" else stepped(low, high, written[key])
    return f"{nature}; list the values: choice: {listed}"


def doubled(low: int, high: int) -> str:
    """A list of whole numbers for a sweep file, each twice the one before it, from `low`, or at least 1, to `high`."""
    first = max(low, 1)
    values = [first << power for power in range((high // first).bit_length())]
    return _list([*values, *([high] if values[-1:] < [high] else [])])


def stepped(low: float, high: float, step: Any) -> str:
    """A list of numbers for a sweep file at distances of `step` from `low` to `high`."""
    if isinstance(step, bool) or not isinstance(step, int | float) or not _finite(step) or step <= 0:
        return f"[{low}, ..., {high}]"
    count = int(min((float(high) - float(low)) / step, MOST_LISTED) + 1e-9) + 1
    values = [low + index * step for index in range(count)]
    # 12 digits hide the rounding error of 0.1 + 0.1 + 0.1.
    return _list([value if isinstance(value, int) else float(f"{value:.12g}") for value in values])


def _list(values: list[Any]) -> str:
    shown = [str(value) for value in values[:MOST_LISTED]]
    return f"[{', '.join([*shown, *(['...'] if len(values) > MOST_LISTED else [])])}]"


def _bad_body(path: Path, kind: str, body: Any) -> Iterator[Problem]:
    if kind == "constant":
        yield from _bad_values(path, [body])
    elif kind == "choice":
        yield from _bad_list(path, body)
    else:
        yield from _bad_range(path, kind, body)


def _bad_range(path: Path, kind: str, body: Any) -> Iterator[Problem]:
    types, noun = ((int,), "whole numbers") if kind == "int" else ((int, float), "numbers")
    numbers = isinstance(body, list) and all(isinstance(x, types) and not isinstance(x, bool) for x in body)
    if not numbers or len(body) != 2:
        yield path, f"expected [low, high], two {noun}, got {body!r}"
        return
    low, high = body
    if not all(map(_finite, body)):
        yield path, f"bounds must be finite, got {body!r}"
    elif low > high or (low == high and kind != "int"):
        yield path, f"low {low!r} is not below high {high!r}"
    elif kind == "log_uniform" and low <= 0:
        yield path, f"low {low!r} must be above 0 on a logarithmic scale"


def _bad_when(path: Path, written: Any) -> Iterator[Problem]:
    if not isinstance(written, dict) or not written:
        yield path, f"expected a mapping of other dimensions to the values they must have, got {written!r}"
        return
    for parent, values in written.items():
        yield from _bad_list((*path, str(parent)), _listed(values))


def _bad_list(path: Path, body: Any) -> Iterator[Problem]:
    if not isinstance(body, list) or not body:
        yield path, f"expected a list with at least one value, got {body!r}"
        return
    found = list(_bad_values(path, body))
    yield from found
    for index, value in enumerate(body):
        if not found and value in body[:index]:
            yield path, f"{value!r} is listed twice"


def _bad_values(path: Path, values: list[Any]) -> Iterator[Problem]:
    for value in values:
        if not isinstance(value, Value) or (isinstance(value, float) and not _finite(value)):
            yield path, f"expected a word, a finite number, true or false, got {value!r}"


def _finite(number: float) -> bool:
    """Whether a float can hold it: neither infinite, nor NaN, nor a whole number beyond a float's range."""
    return abs(number) <= sys.float_info.max


def _kinds(written: dict[Any, Any]) -> list[str]:
    return [kind for kind in KINDS if kind in written]


def _listed(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]
