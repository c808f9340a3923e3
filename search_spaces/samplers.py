"""The samplers that a sweep file can name, and which of them can take a space."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, SerializeAsAny

from search_spaces.document import Path
from search_spaces.settings import ClassPath, Section, by_name
from search_spaces.space import Dimension, Space


class Sampler(Section):
    """The base of all kinds of samplers. Its fields are the keys of the section `sampler` in a sweep file."""

    name: str
    learns: ClassVar[bool] = False
    """Whether it uses only the parameters and scores of trials, so that it can learn from other sweeps' trials."""
    complete_only: ClassVar[bool] = False
    """Whether it learns from complete trials only, so that pruned ones must be shown to it as complete."""
    conditions: ClassVar[bool] = True
    """Whether it can model dimensions that only some trials have; otherwise it silently draws them at random."""
    one_objective: ClassVar[bool] = False
    """Whether it can sample a sweep with one objective only."""

    @property
    def title(self) -> str:
        """Its name in messages."""
        return self.name

    @property
    def base_seed(self) -> int:
        """The seed from which the seed of each trial is derived."""
        return 0


class _Seeded(Sampler):
    """A sampler that draws random numbers."""

    seed: int = Field(default=0, ge=0, lt=2**31)

    @property
    def base_seed(self) -> int:
        return self.seed


class Tpe(_Seeded):
    """Tree-structured Parzen estimator (Bergstra et al., 2011)."""

    name: Literal["tpe"] = "tpe"
    startup: int = Field(default=10, ge=0, description="trials drawn at random before the estimator takes over")
    learns: ClassVar[bool] = True


class Random(_Seeded):
    """Independent draws."""

    name: Literal["random"] = "random"


class Grid(Sampler):
    """Every point of a space without continuous dimensions, once each, in the order of the file."""

    name: Literal["grid"] = "grid"


class Gp(_Seeded):
    """Gaussian process with the logarithm of the expected improvement (Ament et al., 2023)."""

    name: Literal["gp"] = "gp"
    startup: int = Field(default=10, ge=1, description="trials drawn at random before the process takes over")
    learns: ClassVar[bool] = True
    complete_only: ClassVar[bool] = True
    conditions: ClassVar[bool] = False


class CmaEs(_Seeded):
    """Covariance matrix adaptation (Hansen & Ostermeier, 2001)."""

    name: Literal["cmaes"] = "cmaes"
    startup: int = Field(default=1, ge=1, description="trials drawn at random before the first generation")
    complete_only: ClassVar[bool] = True
    conditions: ClassVar[bool] = False
    one_objective: ClassVar[bool] = True


class Nsga2(_Seeded):
    """Genetic algorithm with non-dominated sorting (Deb et al., 2002)."""

    name: Literal["nsga2"] = "nsga2"
    population: int = Field(default=20, ge=2, description="complete trials per generation, the first one at random")
    complete_only: ClassVar[bool] = True
    conditions: ClassVar[bool] = False


class Qmc(_Seeded):
    """Scrambled Sobol' sequence (Sobol', 1967; Owen, 1998): draws that leave no gaps."""

    name: Literal["qmc"] = "qmc"


class NamedSampler(_Seeded):
    """A sampler of another package, a subclass of `optuna.samplers.BaseSampler`; other keys are its arguments.

    It is made anew for each trial, so it keeps nothing from one trial to the next; its `after_trial` is not called.
    `seed`, if its constructor takes one, is the base of a seed for each trial.
    """

    model_config = ConfigDict(extra="allow")

    name: str = Field(default="", exclude=True, max_length=0)
    class_path: ClassPath = Field(alias="class")
    learns: ClassVar[bool] = True

    @property
    def title(self) -> str:
        return self.class_path

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of its constructor except the seed."""
        return dict(self.model_extra or {})


SAMPLERS: dict[str, type[Sampler]] = {
    "tpe": Tpe,
    "random": Random,
    "grid": Grid,
    "gp": Gp,
    "cmaes": CmaEs,
    "nsga2": Nsga2,
    "qmc": Qmc,
}
ChosenSampler = Annotated[SerializeAsAny[Sampler], BeforeValidator(by_name(SAMPLERS, NamedSampler))]

_INSTEAD = "use tpe, random or qmc"


def unsupported(sampler: Sampler, space: Space) -> Iterator[tuple[Path, str]]:
    """Problems of the sampler with dimensions of `space`."""
    for dimension in space:
        path: Path = (dimension.name,) if dimension.name == "system" else ("search", dimension.name)
        if dimension.kind == "constant":
            continue
        if not sampler.conditions and dimension.when:
            text = f"sampler {sampler.name} takes no conditions, since it learns only from what every trial has"
            yield (*path, "when"), f"{text}; {_INSTEAD}"
        if sampler.name == "cmaes" and dimension.kind == "choice":
            yield _body(path, dimension), f"sampler cmaes needs numbers, which have an order and a distance; {_INSTEAD}"
        if sampler.name == "grid" and dimension.continuous:
            yield _body(path, dimension), "sampler grid needs a choice, an int or a constant"


def _body(path: Path, dimension: Dimension) -> Path:
    return (*path, dimension.kind)
