"""The sweep file: YAML text to typed, frozen data and back."""

from __future__ import annotations

import re
from difflib import unified_diff
from typing import Annotated

from pydantic import Field, PlainSerializer, PlainValidator, field_validator

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
from trainers.config import KIMG, Config, configure, overlay
from trainers.data.spec import DatasetSpec

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
    sampler: ChosenSampler = samplers.Tpe()
    pruner: ChosenPruner = FreezeThaw()
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
        from trainers.catalogue import SYSTEMS  # with torch, which a sweep that is only looked at does not need

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


def read_kept(text: str) -> Sweep:
    """The sweep that `Sweep.normalised` wrote; it was checked before it was written, and is not checked again."""
    return Sweep.model_validate(document.read(text, "sweep.yaml").data)


def diff(a: Sweep, b: Sweep) -> str:
    """The change from `a` to `b` as a unified diff of their normalised texts; empty for equal sweeps."""
    lines = unified_diff(a.normalised().splitlines(), b.normalised().splitlines(), "before", "after", lineterm="")
    return "\n".join(lines)
