"""Reads the input of `gansweep simulate`: recorded learning curves and a pruner."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from orchestrator.decisions.simulate import RecordedCurve
from search_spaces.document import value_of
from search_spaces.pruners import PRUNERS, ChosenPruner
from search_spaces.pruners.rule import Pruner
from trainers.config import problems
from trainers.errors import InputError

#: Rungs of a curve from a JSON file, in which each curve has a length of its own.
PARTS = 50
#: Limits that hold before memory is taken: bytes of a file, and values of an array, whose file may be far smaller.
MOST_BYTES = 64 << 20
MOST_VALUES = 10**8
#: Steps of one curve. All curves together may have 2**62, since budgets are 64-bit integers.
MOST_STEPS = 10**12

_Step = Annotated[int, Field(ge=1, le=MOST_STEPS)]
_CURVES: TypeAdapter[dict[str, Annotated[list[tuple[_Step, float]], Field(min_length=1)]]] = TypeAdapter(
    dict[str, Annotated[list[tuple[_Step, float]], Field(min_length=1)]]
)
#: What zipfile, zlib and NumPy raise for damaged archives: RuntimeError if one is encrypted, NotImplementedError for an
#: unknown compression, SyntaxError and TokenError for a header that is no Python.
_DAMAGED = (
    ValueError, KeyError, TypeError, EOFError, RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error,
    tokenize.TokenError,
)  # fmt: skip


def read_curves(path: Path) -> list[RecordedCurve]:
    """The curves of an `.npz` file (`valid_loss` [N, 1 + steps], its column 0 untrained) or a `.json` file.

    The latter is `{name: [[step, value], ...]}`. Values may be infinite or NaN, but not all of them. Raises InputError
    for any other file, and for one beyond the limits.
    """
    if path.suffix not in (".npz", ".json"):
        raise InputError(f"{path}: allowed are .npz and .json files of learning curves")
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: no learning curves (is no regular file)")
        if (size := path.stat().st_size) > MOST_BYTES:
            raise InputError(f"{path}: has {size:,} bytes; allowed are {MOST_BYTES:,}")
        curves = _from_npz(path) if path.suffix == ".npz" else _from_json(path)
    except OSError as error:
        raise InputError(f"{path}: no learning curves ({error.strerror or error})") from None
    if not curves:
        raise InputError(f"{path}: no learning curves in it")
    if not any(math.isfinite(value) for curve in curves for value in curve.values):
        raise InputError(f"{path}: no value of its learning curves is finite")
    if sum(curve.steps[-1] for curve in curves) > 2**62:
        raise InputError(f"{path}: its learning curves have more than 2**62 steps together")
    return curves


def read_pruner(text: str) -> Pruner:
    """The pruner that `text` describes as in a sweep file.

    Raises InputError if it describes none, or one of Optuna's pruners, which need a real study.
    """
    origin = f"--pruner {text if len(text) <= 60 else text[:57] + '...'}"
    written = value_of(text, origin)
    try:
        pruner: Pruner = TypeAdapter(ChosenPruner).validate_python(written)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(path)}: {why}" if path else why for path, why in problems(error))
        raise InputError(f"{origin}: {found}") from None
    if pruner.optuna_pruner((1, 2)) is not None:
        names = ", ".join(name for name, kind in PRUNERS.items() if kind.optuna_pruner is Pruner.optuna_pruner)
        raise InputError(f"{origin}: cannot be simulated; allowed are {names}")
    return pruner


def _from_npz(path: Path) -> list[RecordedCurve]:
    try:
        with zipfile.ZipFile(path) as archive, archive.open("valid_loss.npy") as file:
            losses = _array(file)
    except _DAMAGED as error:
        raise InputError(f"{path}: no learning curves ({error or type(error).__name__})") from None
    steps = tuple(range(1, losses.shape[1]))
    return [RecordedCurve(str(i), steps, steps, _finite(row[1:])) for i, row in enumerate(losses.astype(float))]


def _array(file: IO[bytes]) -> NDArray[Any]:
    """The array in `file`. Its header is judged first: a small file can promise more than fits into memory."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read:
        raise ValueError(f"version {version} of the array format is unknown")
    shape, by_columns, dtype = read[version](file)
    if len(shape) != 2 or shape[0] < 1 or shape[1] < 2 or dtype.kind not in "fiu":
        raise ValueError(f"valid_loss is {dtype} {shape}, not numbers [candidates, 1 + steps]")
    if (count := math.prod(shape)) > MOST_VALUES:
        raise ValueError(f"valid_loss has {count:,} values; allowed are {MOST_VALUES:,}")
    data = file.read(count * dtype.itemsize)
    if len(data) < count * dtype.itemsize:
        raise ValueError(f"valid_loss ends after {len(data):,} of {count * dtype.itemsize:,} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")


def _from_json(path: Path) -> list[RecordedCurve]:
    try:
        content = _CURVES.validate_json(path.read_bytes())
    except ValidationError as error:
        place, text = next(iter(problems(error)))
        raise InputError(f"{path}: no learning curves ({'.'.join(place)}{': ' if place else ''}{text})") from None
    curves = []
    for name, points in content.items():
        by_step = dict(points)  # a log that was continued has steps twice: the later value counts
        last = max(by_step)
        by_rung = {math.ceil(PARTS * step / last): (step, by_step[step]) for step in sorted(by_step)}
        steps, values = zip(*by_rung.values(), strict=True)
        curves.append(RecordedCurve(name, tuple(by_rung), steps, _finite(values)))
    return curves


def _finite(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(math.inf if math.isnan(value) else float(value) for value in values)
