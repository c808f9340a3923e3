"""Sweep files: read, overridden, and checked before anything starts."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from search_spaces import addresses, checks, data_checks, document, samplers, settings
from search_spaces.document import Problem
from search_spaces.pruners import PRUNERS
from search_spaces.settings import Budget, Finals, Resources, Score, Section, Store, Study, Tracking
from search_spaces.sweep import FORMAT, Sweep, migrated
from trainers.catalogue import SYSTEMS
from trainers.config import UNKNOWN, problems
from trainers.data.catalogue import load_both, sized
from trainers.data.images import Images
from trainers.data.spec import DatasetSpec
from trainers.errors import InputError
from trainers.evaluation.scores import METRICS
from trainers.evaluation.spec import ExtractorSpec


@dataclass(frozen=True)
class Deprecated:
    """What replaces a deprecated key of the sweep file."""

    successor: document.Path
    accepted: bool = True
    """Whether the key is still read, with a warning; else it is refused with the name of its successor."""


#: Deprecated keys of the sweep file. The rule is in docs/formats.md.
DEPRECATED: dict[document.Path, Deprecated] = {}

#: Bytes of a sweep file; those with ten thousand points have fewer.
LONGEST = 1 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepFile:
    """A sweep file as it was when it was read, with the overrides of a command line."""

    path: Path
    text: str
    overrides: Sequence[str] = ()
    """Each is `a.b.c=value`."""
    name: str | None = None
    """Replaces the name in the file."""

    @classmethod
    def read(cls, path: Path, overrides: Sequence[str] = (), name: str | None = None) -> SweepFile:
        """Raises InputError if the file cannot be read or is too long."""
        try:
            with open(path, "rb") as file:
                data = file.read(LONGEST + 1)
            if len(data) > LONGEST:
                raise InputError(f"{path}: cannot be read as a sweep file: has more than {LONGEST:,} bytes")
            return cls(path, data.decode("utf-8"), overrides, name)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as a sweep file: {error}") from None

    def sweep(self) -> Sweep:
        """The sweep, after all checks that need no other file.

        Raises InputError with one line per problem: file and line (or override), key, value, what is allowed.
        """
        return parse_sweep(self.text, str(self.path), self.overrides, self.name)

    @contextmanager
    def places(self) -> Iterator[None]:
        """Gives an UnsuitedError of the block the places of its keys in the file, as `sweep` names them."""
        try:
            yield
        except UnsuitedError as error:
            _document(self.text, str(self.path), self.overrides, self.name).raise_errors(error.problems)


def parse_sweep(text: str, source: str = "sweep.yaml", overrides: Sequence[str] = (), name: str | None = None) -> Sweep:
    """As `SweepFile.sweep`, from text; messages call it `source`, which also gives the default name."""
    written = _document(text, source, overrides, name)
    try:
        sweep = Sweep.model_validate(written.data)
    except ValidationError as error:
        written.raise_errors(_explained(error, written.data))
    if found := checks.find_problems(sweep):
        written.raise_errors(found)
    if sweep.score.also is None:
        routine = (name for name, metric in METRICS.items() if metric.routine and name != sweep.score.metric)
        also = tuple(name for name in routine if not checks.inapplicable(name, sweep))
        score = sweep.score.model_copy(update={"also": also})
        score.model_fields_set.discard("also")  # since it is not in the file
        sweep = sweep.model_copy(update={"score": score})
    return _sized(sweep)


def _sized(sweep: Sweep) -> Sweep:
    """`sweep` with pictures of the size of its systems' images, of the largest ones, if it names no other size."""
    largest = max(SYSTEMS[name].shape[1:] for name in sweep.systems)
    dataset = sized(sweep.dataset, *largest)
    if dataset is sweep.dataset:
        return sweep
    dataset.model_fields_set.discard("size")  # since it is not in the file: a sweep that exists keeps its own
    return sweep.model_copy(update={"dataset": dataset})


def check_trials(sweep: Sweep, source: str) -> None:
    """Checks that the sampler has enough points for the budget's trials, which may have grown since the last check.

    Raises InputError that names `source`.
    """
    if found := [text for path, text in checks.sampler_problems(sweep) if path[0] == "budget"]:
        raise InputError(f"{source}: budget.trials: {found[0]}")


class UnsuitedError(InputError):
    """Problems of a sweep with its data or its extractor."""

    def __init__(self, name: str, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(f"sweep {name}: {'.'.join(path)}: {text}" for path, text in problems))
        self.problems = problems


def check_sweep(sweep: Sweep, cache: Path) -> None:
    """Checks that the data and the extractor's weights are there and suit the systems; trains nothing.

    It reads images only if the data's `verify` is false.
    Raises UnsuitedError. Official weights are fetched into the folder `cache` on first use.
    """
    found: list[Problem] = []
    try:
        found += data_checks.data_problems(sweep)
    except InputError as error:
        found.append((("dataset",), str(error)))
    if not found:  # official weights are fetched only for a sweep that can run
        try:
            found += data_checks.extractor_problems(sweep, cache)
        except InputError as error:
            found.append((("score", "extractor"), str(error)))
    if found:
        raise UnsuitedError(sweep.name, found)


def read_images(sweep: Sweep, cache: Path) -> Images:
    """The training and test images of a sweep; decoded pictures are kept in `cache`.

    Raises UnsuitedError for files that are missing or damaged, and if too few images are left.
    """
    try:
        train, test = load_both(sweep.dataset, cache)
    except InputError as error:
        raise UnsuitedError(sweep.name, [(("dataset",), str(error))]) from error
    if train.skipped:
        counts = train.labels.bincount(minlength=train.classes).tolist()
        if found := list(data_checks.count_problems(sweep, counts)):
            raise UnsuitedError(sweep.name, found)
    return train, test


def _document(text: str, source: str, overrides: Sequence[str], name: str | None) -> document.Document:
    """The text of a sweep file with its overrides and its name."""
    written = document.read(text, source)
    for override in overrides:
        written.set(override)
    if name is not None:
        written.data["name"], written.origins[("name",)] = name, f"--name {addresses.masked(name)}"
    elif written.data.get("name") is None:
        written.data["name"] = Path(source).stem
    if secret := list(addresses.secrets_in(written.data)):
        written.raise_errors(secret)  # before any message repeats a value
    written.data = migrated(written.data, source, FORMAT.newest)
    _replace_deprecated(written)
    return written


def _replace_deprecated(written: document.Document) -> None:
    """Gives deprecated keys the names of their successors, with a warning; refuses those no longer accepted."""
    for old, key in DEPRECATED.items():
        *parents, last = old
        section: Any = written.data
        for name in parents:
            section = section.get(name) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            continue
        successor = ".".join(key.successor)
        if not key.accepted:
            written.raise_errors([(old, f"this key is gone; use {successor}")])
        if _has(written.data, key.successor):
            written.raise_errors([(old, f"give either this key, which is deprecated, or {successor}")])
        _log.warning("%s: %s is deprecated; use %s", written.origin(old), ".".join(old), successor)
        written.put(key.successor, section.pop(last), written.origin(old))


def _has(data: Any, path: document.Path) -> bool:
    for name in path:
        if not isinstance(data, dict) or name not in data:
            return False
        data = data[name]
    return True


def _explained(error: ValidationError, data: dict[str, Any]) -> Iterator[Problem]:
    """Pydantic's problems; those about unknown keys say which keys are allowed there, if they will be shown."""
    for index, (path, text) in enumerate(problems(error)):
        if index < document.MOST_PROBLEMS and text == UNKNOWN and (model := _section(path[:-1], data)):
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
