"""The sections of a sweep file other than the search itself, as frozen, strictly typed data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator, field_validator

from search_spaces.document import invalid
from search_spaces.space import Value
from trainers.config import KIMG
from trainers.evaluation.extractors import ExtractorSpec

#: A trial is scored and saved at each, so that more can only be a slip of the pen.
MOST_RUNGS = 10_000


class Section(BaseModel):
    """Unknown keys and wrong types are errors; `"12"` is no number and `true` no 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def images(kimg: Any) -> int:
    """Thousands of images, as people write them, as whole images. Raises ValueError."""
    if isinstance(kimg, bool) or not isinstance(kimg, int | float) or not 0 <= kimg <= 1e9:
        raise ValueError(f"expected a number of kimg from 0 to 1e9, got {kimg!r}")
    whole = round(kimg * KIMG)
    if abs(kimg * KIMG - whole) > 1e-6:  # 9.6 * 1000 may miss 9600 by a rounding error
        raise ValueError(f"{kimg!r} kimg is {kimg * KIMG:.9g} images, not a whole number")
    return whole


def kimg(count: int) -> int | float:
    """Images as thousands of images; a whole number as an int."""
    return count // KIMG if count % KIMG == 0 else count / KIMG


#: kimg in the file, whole images in memory.
Images = Annotated[int, BeforeValidator(images), PlainSerializer(kimg)]


class Every(Section):
    """Rungs at every, 2 * every, ..., until."""

    every: Images = Field(gt=0)
    until: Images = Field(gt=0)

    @property
    def rungs(self) -> tuple[int, ...]:
        return tuple(range(self.every, self.until + 1, self.every))


def _read_rungs(raw: Any) -> tuple[int, ...]:
    if isinstance(raw, list) and raw:
        complaints, rungs = [], []
        for index, entry in enumerate(raw):
            try:
                rungs.append(images(entry))
            except ValueError as error:
                complaints.append(((str(index),), str(error)))
                continue
            if rungs[-1] <= max([0, *rungs[:-1]]):
                complaints.append(((str(index),), f"rungs must be positive and increase, got {entry!r} in {raw!r}"))
        if complaints:
            raise invalid(complaints)
        return tuple(rungs)
    if not isinstance(raw, dict):
        raise ValueError(f"expected {{every: KIMG, until: KIMG}} or a list of kimg, got {raw!r}")
    every = Every.model_validate(raw)
    if every.until % every.every:
        text = f"{raw['until']!r} is not a multiple of every {raw['every']!r}"
        raise invalid([(("until",), text)])
    if (count := every.until // every.every) > MOST_RUNGS:
        raise invalid([(("every",), f"{raw['every']!r} makes {count} rungs; allowed are at most {MOST_RUNGS}")])
    return every.rungs


def _write_rungs(rungs: tuple[int, ...]) -> Any:
    """The one canonical notation of these rungs: `every` where it can say them."""
    if rungs == Every.model_construct(every=rungs[0], until=rungs[-1]).rungs:
        return {"every": kimg(rungs[0]), "until": kimg(rungs[-1])}
    return [kimg(rung) for rung in rungs]


#: Images shown to G at which a trial is scored, strictly increasing; kimg in the file.
Rungs = Annotated[tuple[int, ...], PlainValidator(_read_rungs), PlainSerializer(_write_rungs)]


def _read_names(raw: Any) -> tuple[str, ...]:
    names = [raw] if isinstance(raw, str) else raw
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"expected a list of words, got {raw!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"a word is listed twice in {raw!r}")
    return tuple(names)


def _read_systems(raw: Any) -> tuple[str, ...]:
    names = raw["choice"] if isinstance(raw, dict) and set(raw) == {"choice"} else raw
    if not names or (names is raw and not isinstance(raw, str)):
        raise ValueError(f"expected the id of a system, or {{choice: [ID, ID]}}, got {raw!r}")
    return _read_names(names)


def _write_systems(systems: tuple[str, ...]) -> Any:
    return systems[0] if len(systems) == 1 else {"choice": list(systems)}


#: One id, or several among which the search chooses.
Systems = Annotated[tuple[str, ...], PlainValidator(_read_systems), PlainSerializer(_write_systems)]
Names = Annotated[tuple[str, ...], PlainValidator(_read_names), PlainSerializer(list)]


def _as_tuple(raw: Any) -> Any:
    return tuple(raw) if isinstance(raw, list) else raw


#: Trials to run first, each as values of dimensions; what one leaves out is the sampler's.
Points = Annotated[tuple[dict[str, Value], ...], BeforeValidator(_as_tuple), PlainSerializer(list)]


class Score(Section):
    """What is measured at each rung."""

    metric: str = Field(default="kid", description="the metric that prunes and decides")
    samples: int = Field(default=2000, ge=2, le=1_000_000, description="generated images per measurement")
    doublings: int = Field(
        default=2, ge=0, le=10, description="how often twice the images are scored where a trial is near the line"
    )
    extractor: ExtractorSpec = Field(
        default=ExtractorSpec.model_validate("lenet"), description="network of the features"
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of the scored noise, the same for every trial")
    also: Names | None = Field(default=None, description="further metrics to record; by default all that apply")


class Finals(Section):
    """The best trials, scored again by clean-fid's own procedure when all trials are done."""

    trials: int = Field(default=3, ge=0, description="so many of the best; 0 for none")
    samples: int = Field(default=10_000, ge=2, le=1_000_000, description="generated images; 10,000 or 50,000 are usual")


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


class Median(Section):
    """Stops a trial whose best score so far is worse than the median of the others at the same rung."""

    name: Literal["median"] = "median"
    startup: int = Field(default=5, ge=0, description="finished trials before any is stopped")
    warmup: Images = Field(default=0, description="no trial is stopped before this length, kimg in the file")


class Percentile(Section):
    """As `Median`, keeping the best `percentile` per cent."""

    name: Literal["percentile"] = "percentile"
    percentile: float = Field(default=25.0, gt=0, lt=100, description="share of trials that goes on, in per cent")
    startup: int = Field(default=5, ge=0, description="finished trials before any is stopped")
    warmup: Images = Field(default=0, description="no trial is stopped before this length, kimg in the file")


class Halving(Section):
    """Asynchronous successive halving (Li et al., 2020)."""

    name: Literal["halving"] = "halving"
    reduction: int = Field(default=4, ge=2, description="one trial in this many is promoted")


class Hyperband(Section):
    """Brackets of successive halving with different first rungs (Li et al., 2018)."""

    name: Literal["hyperband"] = "hyperband"
    reduction: int = Field(default=3, ge=2, description="one trial in this many is promoted")


class Unpruned(Section):
    """Every trial runs to the last rung."""

    name: Literal["none"] = "none"


SAMPLERS: dict[str, type[Section]] = {"tpe": Tpe, "random": Random, "grid": Grid}
PRUNERS: dict[str, type[Section]] = {
    "median": Median,
    "percentile": Percentile,
    "halving": Halving,
    "hyperband": Hyperband,
    "none": Unpruned,
}


def _by_name(kinds: dict[str, type[Section]]) -> Callable[[Any], Section]:
    """A reader of `{name: NAME, ...}` or plain NAME; the first kind is the default name."""

    def read(raw: Any) -> Section:
        if isinstance(raw, Section):
            return raw
        written = {"name": raw} if isinstance(raw, str) else raw
        if not isinstance(written, dict):
            raise ValueError(f"expected {{name: NAME, ...}} with one of {', '.join(kinds)}, got {raw!r}")
        name = written.get("name", next(iter(kinds)))
        if not isinstance(name, str) or name not in kinds:
            raise invalid([(("name",), f"unknown name {name!r}; allowed: {', '.join(kinds)}")])
        return kinds[name].model_validate(written)

    return read


Sampler = Annotated[Tpe | Random | Grid, BeforeValidator(_by_name(SAMPLERS))]
Pruner = Annotated[Median | Percentile | Halving | Hyperband | Unpruned, BeforeValidator(_by_name(PRUNERS))]


class Budget(Section):
    """When the search ends."""

    trials: int = Field(ge=1, description="trials in all, the pruned ones included")


class Resources(Section):
    """What one trial's worker occupies, and how many trials run at once."""

    cpus_per_worker: float = Field(default=1, gt=0, description="CPU cores")
    gpus_per_worker: float = Field(default=0, ge=0, description="GPUs; a fraction lets trials share one")
    concurrent_trials: int | None = Field(default=None, ge=1, description="trials at once; null is as many as fit")

    @field_validator("gpus_per_worker")
    @classmethod
    def _whole_or_shared(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"above 1 the number of GPUs must be whole, got {gpus!r}")
        return gpus


class Store(Section):
    """Where checkpoints and samples are kept."""

    path: str | None = Field(default=None, min_length=1, description="a folder; null is one below the sweep root")


class Tracking(Section):
    """Where MLflow keeps its records."""

    uri: str | None = Field(default=None, description="sqlite:///FILE; null is a file below the sweep root")

    @field_validator("uri")
    @classmethod
    def _sqlite(cls, uri: str | None) -> str | None:
        if uri is not None and not (uri.startswith("sqlite:///") and len(uri) > len("sqlite:///")):
            raise ValueError(f"expected sqlite:///FILE or null, got {uri!r}")
        return uri
