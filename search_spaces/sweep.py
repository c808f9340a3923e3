"""The sweep file: YAML text to typed, frozen data and back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import unified_diff
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, PlainSerializer, PlainValidator, ValidationError, field_validator

from search_spaces import checks, document, samplers, settings
from search_spaces.document import Complaint
from search_spaces.notation import read_search, write_search
from search_spaces.samplers import Sampler
from search_spaces.settings import (
    Budget,
    Finals,
    Points,
    Pruner,
    Resources,
    Rungs,
    Score,
    Section,
    Store,
    Study,
    Systems,
    Tracking,
)
from search_spaces.space import Dimension, Kind, Space, Value
from trainers.catalogue import SYSTEMS
from trainers.config import KIMG, Config, configure, overlay, problems
from trainers.data.catalogue import check
from trainers.data.spec import DatasetSpec
from trainers.errors import InputError
from trainers.evaluation.extractors import check_extractor
from trainers.evaluation.scores import METRICS
from trainers.evaluation.spec import ExtractorSpec

__all__ = ["Pruner", "Sampler", "Sweep", "check_sweep", "diff", "load_sweep", "parse_sweep"]

Search = Annotated[tuple[Dimension, ...], PlainValidator(read_search), PlainSerializer(write_search)]


class Sweep(Section):
    """One search, complete: every default is filled in. Lengths are whole images in memory, kimg in the file."""

    name: str
    systems: Systems = Field(alias="system")
    dataset: DatasetSpec
    search: Search = ()
    points: Points = ()
    warm_start: settings.Names = ()
    rungs: Rungs
    score: Score = Score()
    objectives: settings.Names = (settings.SCORE,)
    finals: Finals = Finals()
    sampler: Sampler = samplers.Tpe()
    pruner: Pruner = settings.FreezeThaw()
    stop_on: settings.Names = ()
    budget: Budget
    resources: Resources = Resources()
    store: Store = Store()
    study: Study = Study()
    tracking: Tracking = Tracking()

    @field_validator("name")
    @classmethod
    def _plain_word(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
            raise ValueError(
                f"allowed are letters, digits, '.', '_' and '-', not starting with '.' or '-', got {name!r}"
            )
        return name

    @property
    def space(self) -> Space:
        """The dimensions of `search` after `system`, which is a constant where there is one system."""
        kind: Kind = "constant" if len(self.systems) == 1 else "choice"
        return Space((Dimension("system", kind, values=self.systems), *self.search))

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is measured at each rung, first the metric that decides."""
        return tuple(dict.fromkeys((self.score.metric, *(self.score.also or ()))))

    def configure(self, values: dict[str, Value]) -> tuple[str, Config]:
        """System and configuration of the trial with `values`, a point of `space`; `system` may lack where it is one.

        Raises InputError for values the configuration does not allow.
        """
        chosen = {**({"system": self.systems[0]} if len(self.systems) == 1 else {}), **values}
        system = str(chosen.pop("system"))
        length = {"kimg": self.rungs[-1] / KIMG}
        config = configure(SYSTEMS[system].defaults, {**length, **chosen}, f"sweep {self.name}")
        if self.resources.scale > 1:
            config = overlay(config, {"batch": config.batch * self.resources.scale})
        return system, config

    def normalised(self) -> str:
        """Canonical YAML with every default; `parse_sweep` makes an equal sweep of it."""
        return document.dump(self.model_dump(mode="json", by_alias=True))


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


def diff(a: Sweep, b: Sweep) -> str:
    """The change from `a` to `b` as a unified diff of their normalised texts; empty for equal sweeps."""
    lines = unified_diff(a.normalised().splitlines(), b.normalised().splitlines(), "before", "after", lineterm="")
    return "\n".join(lines)


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
    for key, kinds in (("sampler", samplers.SAMPLERS), ("pruner", settings.PRUNERS)):
        if path == (key,):
            return kinds[data[key].get("name", next(iter(kinds)))]
    return fixed.get(path)
