"""The samplers that a sweep file can name, and which of them can take a space."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from search_spaces.document import Path
from search_spaces.settings import Section, by_name
from search_spaces.space import Dimension, Space


class Tpe(Section):
    """Tree-structured Parzen estimator (Bergstra et al., 2011)."""

    name: Literal["tpe"] = "tpe"
    seed: int = Field(default=0, ge=0, lt=2**31)
    startup: int = Field(default=10, ge=0, description="trials drawn at random before the estimator takes over")


class Random(Section):
    """Independent draws."""

    name: Literal["random"] = "random"
    seed: int = Field(default=0, ge=0, lt=2**31)


class Grid(Section):
    """Every point of a space without continuous dimensions, once each, in the order of the file."""

    name: Literal["grid"] = "grid"


class Gp(Section):
    """Gaussian process with the logarithm of the expected improvement (Ament et al., 2023)."""

    name: Literal["gp"] = "gp"
    seed: int = Field(default=0, ge=0, lt=2**31)
    startup: int = Field(default=10, ge=1, description="trials drawn at random before the process takes over")


class CmaEs(Section):
    """Covariance matrix adaptation (Hansen & Ostermeier, 2001)."""

    name: Literal["cmaes"] = "cmaes"
    seed: int = Field(default=0, ge=0, lt=2**31)
    startup: int = Field(default=1, ge=1, description="trials drawn at random before the first generation")


class Nsga2(Section):
    """Genetic algorithm with non-dominated sorting (Deb et al., 2002)."""

    name: Literal["nsga2"] = "nsga2"
    seed: int = Field(default=0, ge=0, lt=2**31)
    population: int = Field(default=20, ge=2, description="complete trials per generation, the first one at random")


class Qmc(Section):
    """Scrambled Sobol' sequence (Sobol', 1967; Owen, 1998): draws that leave no gaps."""

    name: Literal["qmc"] = "qmc"
    seed: int = Field(default=0, ge=0, lt=2**31)


SAMPLERS: dict[str, type[Section]] = {
    "tpe": Tpe,
    "random": Random,
    "grid": Grid,
    "gp": Gp,
    "cmaes": CmaEs,
    "nsga2": Nsga2,
    "qmc": Qmc,
}
Sampler = Annotated[Tpe | Random | Grid | Gp | CmaEs | Nsga2 | Qmc, BeforeValidator(by_name(SAMPLERS))]

#: Samplers that model or recombine only what every trial has: the rest they would draw at random without a word.
UNCONDITIONAL = ("gp", "cmaes", "nsga2")
_INSTEAD = "use tpe, random or qmc"


def refusals(sampler: Sampler, space: Space) -> Iterator[tuple[Path, str]]:
    """What in `space` the sampler cannot take, with the reason."""
    for dimension in space:
        path: Path = (dimension.name,) if dimension.name == "system" else ("search", dimension.name)
        if dimension.kind == "constant":
            continue
        if sampler.name in UNCONDITIONAL and dimension.when:
            text = f"sampler {sampler.name} takes no conditions, since it learns only from what every trial has"
            yield (*path, "when"), f"{text}; {_INSTEAD}"
        if sampler.name == "cmaes" and dimension.kind == "choice":
            yield _body(path, dimension), f"sampler cmaes needs numbers, which have an order and a distance; {_INSTEAD}"
        if sampler.name == "grid" and dimension.continuous:
            yield _body(path, dimension), "sampler grid needs a choice, an int or a constant"


def _body(path: Path, dimension: Dimension) -> Path:
    return (*path, dimension.kind)
