"""The sections of a sweep file other than the search itself, as frozen, strictly typed data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from search_spaces import addresses
from search_spaces.document import pydantic_error
from search_spaces.space import Value
from trainers.config import KIMG
from trainers.evaluation.spec import ExtractorSpec

#: A trial is scored and saved at each rung, so more of them can only be a mistake.
MOST_RUNGS = 10_000
#: More trials than any sweep can run; arithmetic with floats is still exact.
MOST_TRIALS = 10**15


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
        problems, rungs = [], []
        for index, entry in enumerate(raw):
            try:
                rungs.append(images(entry))
            except ValueError as error:
                problems.append(((str(index),), str(error)))
                continue
            if rungs[-1] <= max([0, *rungs[:-1]]):
                problems.append(((str(index),), f"rungs must be positive and increase, got {entry!r} in {raw!r}"))
        if problems:
            raise pydantic_error(problems)
        return tuple(rungs)
    if not isinstance(raw, dict):
        raise ValueError(f"expected {{every: KIMG, until: KIMG}} or a list of kimg, got {raw!r}")
    every = Every.model_validate(raw)
    if every.until % every.every:
        text = f"{raw['until']!r} is not a multiple of every {raw['every']!r}"
        raise pydantic_error([(("until",), text)])
    if (count := every.until // every.every) > MOST_RUNGS:
        raise pydantic_error([(("every",), f"{raw['every']!r} makes {count} rungs; allowed are at most {MOST_RUNGS}")])
    return every.rungs


def _write_rungs(rungs: tuple[int, ...]) -> Any:
    """The one canonical notation of these rungs: `every` if it can express them."""
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


#: Trials to run first, each as values of dimensions; the sampler draws the others.
Points = Annotated[tuple[dict[str, Value], ...], BeforeValidator(_as_tuple), PlainSerializer(list)]


class Score(Section):
    """What is measured at each rung."""

    metric: str = Field(default="kid", description="the metric that prunes and decides")
    samples: int = Field(default=2000, ge=2, le=1_000_000, description="generated images per measurement")
    doublings: int = Field(
        default=2, ge=0, le=10, description="how often the images are doubled while the pruner is undecided"
    )
    extractor: ExtractorSpec = Field(
        default=ExtractorSpec.model_validate("lenet"), description="network of the features"
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of the scored noise, the same for every trial")
    also: Names | None = Field(default=None, description="further metrics to record; by default all that apply")


SCORE, GPU_HOURS = "score", "gpu_hours"
#: What a sweep may search for, the score first.
OBJECTIVES = (SCORE, GPU_HOURS)


class Finals(Section):
    """The best trials, scored again by clean-fid's own procedure when all trials are done."""

    trials: int = Field(default=3, ge=0, description="how many of the best; 0 for none")
    samples: int = Field(default=10_000, ge=2, le=1_000_000, description="generated images; 10,000 or 50,000 are usual")


#: A class of another package, as the key `class` names it.
_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def _class_path(written: str) -> str:
    if not _CLASS_PATH.fullmatch(written):
        raise ValueError(f"expected package.module:Name, got {written!r}")
    return written


#: "package.module:Name". Only the driver imports it, when a sweep is launched.
ClassPath = Annotated[str, AfterValidator(_class_path)]


def by_name(kinds: Mapping[str, type[Section]], foreign: type[Section]) -> Callable[[Any], Section]:
    """Reads plain NAME, `{name: NAME, ...}` with a name of `kinds`, or `{class: PATH, ...}` as `foreign`.

    The first kind is the default name.
    """
    names = ", ".join(kinds)

    def read(raw: Any) -> Section:
        if isinstance(raw, Section):
            return raw
        written = {"name": raw} if isinstance(raw, str) else raw
        if not isinstance(written, dict):
            text = f"expected {{name: NAME, ...}} with one of {names}, or {{class: package.module:Name, ...}}"
            raise ValueError(f"{text}, got {raw!r}")
        if "class" in written:
            if "name" in written:
                raise pydantic_error([(("name",), "give either name or class")])
            return foreign.model_validate(written)
        name = written.get("name", next(iter(kinds)))
        if not isinstance(name, str) or name not in kinds:
            text = f"unknown name {name!r}; allowed: {names}, or class: package.module:Name"
            raise pydantic_error([(("name",), text)])
        return kinds[name].model_validate(written)

    return read


class Budget(Section):
    """When the search ends: at the first of these limits. One of trials, gpu_hours, hours and money is required.

    A GPU-hour is an hour of training and scoring on one GPU, or on one CPU core if trials have no GPU.
    """

    trials: int | None = Field(
        default=None, ge=1, le=MOST_TRIALS, description="trials in all, the pruned ones included"
    )
    gpu_hours: float | None = Field(default=None, gt=0, description="GPU-hours of all trials together")
    hours: float | None = Field(default=None, gt=0, description="hours in which a driver is at work")
    money: float | None = Field(default=None, gt=0, description="what the GPU-hours may cost")
    price_per_gpu_hour: float | None = Field(default=None, gt=0, description="in the currency of money")
    patience: int | None = Field(default=None, ge=1, description="ended trials that may follow the best one")
    target: float | None = Field(default=None, description="a score that is good enough")

    @model_validator(mode="after")
    def _ends(self) -> Budget:
        if self.trials is self.gpu_hours is self.hours is self.money is None:
            raise ValueError("the search would never end; give at least one of trials, gpu_hours, hours, money")
        if self.money is not None and self.price_per_gpu_hour is None:
            raise ValueError("money needs price_per_gpu_hour")
        return self

    def __str__(self) -> str:
        """As in a sweep file."""
        return "{" + ", ".join(f"{name}: {value:g}" for name, value in self.model_dump().items()) + "}"

    @model_serializer(mode="wrap")
    def _given(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out the limits that were not given."""
        return {name: value for name, value in dump(self).items() if value is not None}


class Resources(Section):
    """What one trial occupies, and how many trials run at once."""

    workers_per_trial: int = Field(default=1, ge=1, le=1024, description="processes that train one trial together")
    cpus_per_worker: float = Field(default=1, gt=0, description="CPU cores of each")
    gpus_per_worker: float = Field(default=0, ge=0, description="GPUs of each; a fraction lets trials share one")
    trials_per_gpu: int | Literal["auto"] | None = Field(
        default=None, description="trials that share a GPU; auto measures the best number; null: by gpus_per_worker"
    )
    batch: Literal["kept", "scaled"] = Field(
        default="kept", description="kept: `batch` is that of all workers together; scaled: of each worker"
    )
    batch_norm: Literal["synchronised", "local"] = Field(
        default="synchronised", description="statistics of the whole batch, as with one worker, or of a worker's part"
    )
    concurrent_trials: int | None = Field(default=None, ge=1, description="trials at once; null is as many as fit")
    wait: float = Field(default=0, ge=0, le=86_400, description="seconds for an autoscaler to make room for a trial")

    @field_validator("gpus_per_worker")
    @classmethod
    def _whole_or_shared(cls, gpus: float, given: ValidationInfo) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"above 1 the number of GPUs must be whole, got {gpus!r}")
        if gpus % 1 and (workers := given.data.get("workers_per_trial", 1)) > 1:
            raise ValueError(f"{workers} workers of a trial need whole GPUs, since NCCL takes one of them on each")
        return gpus

    @field_validator("trials_per_gpu")
    @classmethod
    def _one_gpu_is_shared(cls, trials: int | str | None, given: ValidationInfo) -> int | str | None:
        if isinstance(trials, int) and not 1 <= trials <= 100:
            raise ValueError(f"allowed are 1 to 100, auto, or null, got {trials!r}")
        if trials is not None and given.data.get("gpus_per_worker", 1) != 1:
            raise ValueError(f"{trials!r} trials share one GPU of each worker: needs gpus_per_worker: 1")
        if trials not in (None, 1) and (workers := given.data.get("workers_per_trial", 1)) > 1:
            raise ValueError(f"{workers} workers of a trial need whole GPUs, since NCCL takes one of them on each")
        return trials

    @property
    def gpu_share(self) -> float:
        """GPUs that one worker occupies; for `auto` before it is measured, as if trials shared none."""
        shared = self.trials_per_gpu if isinstance(self.trials_per_gpu, int) else 1
        return self.gpus_per_worker / shared

    @property
    def scale(self) -> int:
        """The batch of all workers together, as a multiple of the configuration's."""
        return self.workers_per_trial if self.batch == "scaled" else 1


class Keep(Section):
    """Which checkpoints of a trial stay in the store."""

    last: int = Field(default=2, ge=1, description="how many of the newest; with 1 there is none to fall back to")
    best: int = Field(default=1, ge=1, description="how many of the best, and of the best before the last rung")


class Spool(Section):
    """How much may wait on a machine while the store cannot be reached."""

    max_gb: float = Field(default=10, gt=0, description="GB (10^9 bytes) of all trials on a machine together")


class Store(Section):
    """Where checkpoints and samples are kept."""

    path: str | None = Field(
        default=None, min_length=1, description="a folder, or s3://BUCKET/PREFIX; null is one below the sweep root"
    )
    endpoint: str | None = Field(default=None, description="http(s)://HOST:PORT of an S3 server; null is Amazon's")
    keep: Keep = Keep()
    spool: Spool = Spool()
    shared: bool = Field(default=False, description="whether all machines of a cluster see a store in a folder")
    unfenced: bool = Field(
        default=False,
        description="whether an S3 server may ignore conditions of writes: two attempts at a trial may write at once",
    )

    @field_validator("path")
    @classmethod
    def _place(cls, path: str | None) -> str | None:
        return path if path is None else addresses.store_path(path)

    @field_validator("endpoint", "unfenced")
    @classmethod
    def _of_a_server(cls, value: Any, given: ValidationInfo) -> Any:
        path = given.data.get("path", addresses.S3)  # a path that was refused has its own problem
        if value and (path is None or not path.startswith(addresses.S3)):
            raise ValueError("applies only to s3://BUCKET/PREFIX; leave it out for a folder")
        return value

    @field_validator("endpoint")
    @classmethod
    def _server(cls, endpoint: str | None) -> str | None:
        return endpoint if endpoint is None else addresses.endpoint(endpoint)


class Study(Section):
    """Where the study is kept."""

    storage: str | None = Field(default=None, description="URL of a database; null is a file below the sweep root")
    shared: bool = Field(default=False, description="whether all machines of a cluster see a study in a file")

    @field_validator("storage")
    @classmethod
    def _database(cls, storage: str | None) -> str | None:
        return storage if storage is None else addresses.database(storage)


class Tracking(Section):
    """Where MLflow keeps its records."""

    uri: str | None = Field(
        default=None, description="a database or the http(s) address of a server; null is a file below the sweep root"
    )
    artifacts: str | None = Field(
        default=None,
        min_length=1,
        description="s3://BUCKET/PREFIX or a folder of samples and reports; null is a server's own choice, or a folder "
        "below the sweep root",
    )

    @field_validator("uri")
    @classmethod
    def _known(cls, uri: str | None) -> str | None:
        return uri if uri is None else addresses.tracking(uri)

    @field_validator("artifacts")
    @classmethod
    def _place(cls, artifacts: str | None) -> str | None:
        return artifacts if artifacts is None else addresses.artifacts(artifacts)
