"""Sweep files: read, overridden, and checked before anything starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from search_spaces import checks, document, samplers, settings
from search_spaces.document import Complaint
from search_spaces.pruners import PRUNERS
from search_spaces.settings import Budget, Finals, Resources, Score, Section, Store, Study, Tracking
from search_spaces.sweep import Sweep
from trainers.config import problems
from trainers.data.catalogue import check
from trainers.data.spec import DatasetSpec
from trainers.errors import InputError
from trainers.evaluation.extractors import check_extractor
from trainers.evaluation.scores import METRICS
from trainers.evaluation.spec import ExtractorSpec


def load_sweep(path: Path, overrides: Sequence[str] = (), name: str | None = None) -> Sweep:
    """The sweep in the file `path` with `a.b.c=value` overrides, checked as far as that needs no other file.

    Raises InputError with one line per fault: file and line (or override), key, value, what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a sweep file: {error}") from None
    return parse_sweep(text, str(path), overrides, name)


def parse_sweep(text: str, source: str = "sweep.yaml", overrides: Sequence[str] = (), name: str | None = None) -> Sweep:
    """As `load_sweep`, from text; `source` stands for the file in messages and gives the default name."""
    written = document.read(text, source)
    for override in overrides:
        written.set(override)
    if name is not None:
        written.data["name"], written.origins[("name",)] = name, f"--name {name}"
    elif written.data.get("name") is None:
        written.data["name"] = Path(source).stem
    try:
        sweep = Sweep.model_validate(written.data)
    except ValidationError as error:
        written.refuse(_explained(error, written.data))
    if faults := checks.faults(sweep):
        written.refuse(faults)
    if sweep.score.also is None:
        routine = (name for name, metric in METRICS.items() if metric.routine and name != sweep.score.metric)
        also = tuple(name for name in routine if not checks.inapplicable(name, sweep))
        sweep = sweep.model_copy(update={"score": sweep.score.model_copy(update={"also": also})})
    return sweep


def check_sweep(sweep: Sweep, cache: Path) -> None:
    """Whether the data and the extractor's weights are there and suit the systems; trains and loads nothing.

    Raises InputError with one line per fault. Official weights are fetched into the folder `cache` on first use.
    """
    faults = []
    try:
        check(sweep.dataset)
        faults += [f"sweep {sweep.name}: {'.'.join(path)}: {text}" for path, text in checks.data_faults(sweep)]
    except InputError as error:
        faults.append(f"sweep {sweep.name}: dataset: {error}")
    if not faults:  # official weights are fetched for a sweep that can run, not for one that cannot
        try:
            check_extractor(sweep.score.extractor, cache)
        except InputError as error:
            faults.append(f"sweep {sweep.name}: score.extractor: {error}")
    if faults:
        raise InputError("\n".join(faults))


def _explained(error: ValidationError, data: dict[str, Any]) -> Iterator[Complaint]:
    """Pydantic's complaints, those on unknown keys with what is allowed there."""
    for path, text in problems(error):
        if text == "unknown key" and (model := _section(path[:-1], data)):
            allowed = [field.alias or name for name, field in model.model_fields.items()]
            text = checks.unknown(path[-1], allowed)
        yield path, text


def _section(path: document.Path, data: dict[str, Any]) -> type[BaseModel] | None:
    """The model that reads the section at `path`."""
    fixed: dict[document.Path, type[BaseModel]] = {
        (): Sweep,
        ("dataset",): DatasetSpec,
        ("rungs",): settings.Every,
        ("score",): Score,
        ("score", "extractor"): ExtractorSpec,
        ("finals",): Finals,
        ("budget",): Budget,
        ("resources",): Resources,
        ("store",): Store,
        ("store", "keep"): settings.Keep,
        ("store", "spool"): settings.Spool,
        ("study",): Study,
        ("tracking",): Tracking,
    }
    tables: dict[str, Mapping[str, type[Section]]] = {"sampler": samplers.SAMPLERS, "pruner": PRUNERS}
    for key, kinds in tables.items():
        if path == (key,):
            return kinds[data[key].get("name", next(iter(kinds)))]
    return fixed.get(path)
