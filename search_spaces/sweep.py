"""The sweep file: YAML text to typed, frozen data and back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import unified_diff
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, PlainSerializer, PlainValidator, ValidationError, field_validator

from search_spaces import document, samplers, settings
from search_spaces.notation import read_search, write_search
from search_spaces.pruners import ChosenPruner
from search_spaces.pruners.freeze_thaw import FreezeThaw
from search_spaces.samplers import ChosenSampler
from search_spaces.settings import (
    Budget,
    Finals,
    Points,
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
from trainers.config import KIMG, UNKNOWN, Config, configure, from_stored, overlay, problems, renewed
from trainers.data.spec import DatasetSpec
from trainers.errors import InputError
from trainers.formats import VERSION, Format, unchanged

#: The text of a sweep, as a study keeps it and as people may write it.
FORMAT = Format(
    (
        # Version 2 adds the number of the version, and may have `defaults`.
        unchanged,
    )
)

#: The sweep's folder has its name.
_LONGEST_NAME = 255

Search = Annotated[tuple[Dimension, ...], PlainValidator(read_search), PlainSerializer(write_search)]


class Sweep(Section):
    """One search, complete: every default is filled in. Lengths are whole images in memory, kimg in the file.

    A key with a default may be added to a section at any time: the default means what the program did before the key
    existed. Any other change needs a migration in `FORMAT`.
    """

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
    sampler: ChosenSampler = samplers.Tpe()
    pruner: ChosenPruner = FreezeThaw()
    stop_on: settings.Names = ()
    budget: Budget
    resources: Resources = Resources()
    store: Store = Store()
    study: Study = Study()
    tracking: Tracking = Tracking()
    defaults: dict[str, dict[str, Any]] = Field(
        default={}, description="configuration of each system before `search`, as at the first launch"
    )

    @field_validator("name")
    @classmethod
    def _plain_word(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
            raise ValueError(
                f"allowed are letters, digits, '.', '_' and '-', not starting with '.' or '-', got {name!r}"
            )
        if len(name) > _LONGEST_NAME:
            raise ValueError(f"allowed are {_LONGEST_NAME} characters, got {len(name):,}: {name!r}")
        return name

    @property
    def space(self) -> Space:
        """The dimensions of `search` after `system`, which is a constant if the sweep has one system."""
        kind: Kind = "constant" if len(self.systems) == 1 else "choice"
        return Space((Dimension("system", kind, values=self.systems), *self.search))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that are measured at each rung, first the one that decides."""
        return tuple(dict.fromkeys((self.score.metric, *(self.score.also or ()))))

    def defaults_of(self, system: str) -> Config:
        """The configuration of `system` before `search`: as at the sweep's first launch, or else in this release."""
        from trainers.catalogue import SYSTEMS  # imports torch, which is not needed to show a sweep

        today = SYSTEMS[system].defaults
        if (kept := self.defaults.get(system)) is None:
            return today
        return from_stored(type(today), kept, f"sweep {self.name}: defaults of {system}")

    def with_defaults(self) -> Sweep:
        """This sweep with the full configuration of each of its systems, so that later releases do not change it."""
        full = {system: self.defaults_of(system).model_dump(mode="json") for system in self.systems}
        return self.model_copy(update={"defaults": full})

    def configure(self, values: dict[str, Value]) -> tuple[str, Config]:
        """System and configuration of the trial with `values`, a point of `space`.

        `system` may be missing in `values` if the sweep has only one. Raises InputError for values that the
        configuration does not allow.
        """
        chosen = {**({"system": self.systems[0]} if len(self.systems) == 1 else {}), **values}
        system = str(chosen.pop("system"))
        length, defaults = {"kimg": self.rungs[-1] / KIMG}, self.defaults_of(system)
        config = configure(defaults, {**length, **renewed(type(defaults), chosen)}, f"sweep {self.name}")
        if self.resources.scale > 1:
            config = overlay(config, {"batch": config.batch * self.resources.scale})
        return system, config

    def normalised(self) -> str:
        """Canonical YAML with every default; `parse_sweep` makes an equal sweep of it."""
        return _text(self.model_dump(mode="json", by_alias=True))

    def as_written(self) -> str:
        """YAML of the keys that the sweep file gives, without defaults and without a format, as people write it."""
        data = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return document.dump({key: value for key, value in data.items() if value != {} and key != "defaults"})


def _text(data: dict[str, Any]) -> str:
    if not data.get("defaults"):
        data.pop("defaults", None)
    return document.dump(FORMAT.stamped(data))


def read_kept(text: str) -> Sweep:
    """The sweep that `Sweep.normalised` wrote in this release or an earlier one.

    It was checked before it was written, and is not checked again. Raises InputError if a newer program wrote it, or if
    it is damaged.
    """
    data = document.read(text, "sweep.yaml").data
    source = f"sweep {data.get('name')}"
    try:
        return Sweep.model_validate(migrated(data, source))
    except ValidationError as error:
        path, problem = problems(error)[0]
        newer = "; if a newer gansweep wrote it, install that" if problem == UNKNOWN else ""
        raise InputError(f"{source}: its kept text: {'.'.join(path)}: {problem}{newer}") from None


def migrated(data: dict[str, Any], source: str, version: int = 1) -> dict[str, Any]:
    """The data of a sweep's text in the newest format, without its version; `version` is that of data without one."""
    return {key: value for key, value in FORMAT.read(data, source, version).items() if key != VERSION}


AnyModel = TypeVar("AnyModel", bound=BaseModel)


def completed(written: Sweep, known: Sweep) -> Sweep:
    """`written` with the values of `known` for each key that its file leaves out, except those of the budget."""
    return _filled(written, known).model_copy(update={"budget": written.budget})


def _filled(written: AnyModel, known: AnyModel) -> AnyModel:
    given = written.model_fields_set
    if type(written) is not type(known):
        # Each kind of sampler and pruner has a class, and the default kind may have changed.
        if "name" in given or not given <= set(type(known).model_fields):
            return written
        return known.model_copy(update={name: getattr(written, name) for name in given})
    values: dict[str, Any] = {}
    for name, theirs in known:
        if name not in given:
            values[name] = theirs
        elif isinstance(own := getattr(written, name), BaseModel):
            values[name] = _filled(own, theirs)
    return written.model_copy(update=values)


def changed_keys(a: BaseModel, b: BaseModel, path: str = "") -> Iterator[str]:
    """The keys in which two sweeps differ, as in `--set`; those of their `defaults` are not told apart."""
    before, after = dict(a), dict(b)
    for name in {**before, **after}:
        own, other = before.get(name), after.get(name)
        if isinstance(own, BaseModel) and isinstance(other, BaseModel) and type(own) is type(other):
            yield from changed_keys(own, other, f"{path}{name}.")
        elif own != other:
            yield f"{path}{name}"


def diff(a: Sweep, b: Sweep) -> str:
    """The change from `a` to `b` as a unified diff of their normalised texts; empty for equal sweeps."""
    lines = unified_diff(a.normalised().splitlines(), b.normalised().splitlines(), "before", "after", lineterm="")
    return "\n".join(lines)
