"""Reads the input of `gansweep simulate`: recorded learning curves and a pruner."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import yaml
from pydantic import TypeAdapter, ValidationError

from orchestrator.decisions.simulate import RecordedCurve
from search_spaces.pruners import PRUNERS, ChosenPruner
from search_spaces.pruners.rule import Pruner
from trainers.errors import InputError

#: Rungs of a curve from a JSON file, in which each curve has a length of its own.
PARTS = 50


def read_curves(path: Path) -> list[RecordedCurve]:
    """The curves of an `.npz` file (`valid_loss` [N, 1 + steps], its column 0 untrained) or a `.json` file.

    The latter is `{name: [[step, value], ...]}`. Raises InputError for any other file.
    """
    if path.suffix not in (".npz", ".json"):
        raise InputError(f"{path}: allowed are .npz and .json files of learning curves")
    try:
        curves = _from_npz(path) if path.suffix == ".npz" else _from_json(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: no learning curves ({error or type(error).__name__})") from error
    if not curves:
        raise InputError(f"{path}: no learning curves in it")
    return curves


def read_pruner(text: str) -> Pruner:
    """The pruner that `text` describes as in a sweep file.

    Raises InputError if it describes none, or one of Optuna's pruners, which need a real study.
    """
    try:
        pruner: Pruner = TypeAdapter(ChosenPruner).validate_python(yaml.safe_load(text))
    except (ValidationError, yaml.YAMLError) as error:
        raise InputError(f"--pruner {text}: {error}") from None
    if pruner.optuna_pruner((1, 2)) is not None:
        names = ", ".join(name for name, kind in PRUNERS.items() if kind.optuna_pruner is Pruner.optuna_pruner)
        raise InputError(f"--pruner {text}: cannot be simulated; allowed are {names}")
    return pruner


def _from_npz(path: Path) -> list[RecordedCurve]:
    with np.load(path, allow_pickle=False) as content:
        losses = content["valid_loss"].astype(float)
    if losses.ndim != 2 or losses.shape[1] < 2:
        raise ValueError(f"valid_loss is {losses.shape}, not [candidates, 1 + steps]")
    steps = tuple(range(1, losses.shape[1]))
    return [RecordedCurve(str(i), steps, steps, _finite(row[1:])) for i, row in enumerate(losses)]


def _from_json(path: Path) -> list[RecordedCurve]:
    content: dict[str, list[list[float]]] = json.loads(path.read_text())
    curves = []
    for name, points in content.items():
        # A log that was continued has steps twice: the later value counts.
        by_step = {int(step): float(value) for step, value in points}
        last = max(by_step)
        by_rung = {math.ceil(PARTS * step / last): (step, by_step[step]) for step in sorted(by_step)}
        steps, values = zip(*by_rung.values(), strict=True)
        curves.append(RecordedCurve(name, tuple(by_rung), steps, _finite(values)))
    return curves


def _finite(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(math.inf if math.isnan(value) else float(value) for value in values)
