"""The study of `mixing`: one training for each strategy, number of real images and seed, saved as each one ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from trainers import checkpoint
from trainers.data.catalogue import check, load_both, shape_of, sized
from trainers.data.files import locked, replaced
from trainers.data.images import ImageData
from trainers.data.spec import DatasetSpec
from trainers.errors import InputError
from trainers.gan import System
from trainers.rungs import history_of
from trainers.tools.mixing import STRATEGIES, Point, material, reported_at, split, train_point
from trainers.tools.score import checkpoint_of, from_checkpoint, system_of

POINTS = "points.jsonl"


@dataclass(frozen=True)
class Settings:
    """The settings that all points of one study share."""

    system: str
    shown: int
    """Images that the generator had been shown at its checkpoint."""
    checkpoint: str
    """sha256 of the checkpoint's state."""
    dataset: str
    train: str
    """sha256 of the real training split."""
    test: str
    """sha256 of the test split."""
    tested: int
    """Images of the test split."""
    classes: int
    images: int
    """Images of each training set."""
    epochs: int
    device: str


@dataclass(frozen=True)
class Study:
    """The trainings of a study."""

    settings: Settings
    checkpoint: Path
    train: ImageData
    test: ImageData
    wanted: tuple[tuple[int, int, str], ...]
    """Seed, R and strategy of each training, in the order of execution."""

    def missing(self, points: Sequence[Point]) -> list[tuple[int, int, str]]:
        """The trainings that are not among `points`."""
        done = {(point.seed, point.real, point.strategy) for point in points}
        return [place for place in self.wanted if place not in done]

    def run(self, folder: Path) -> Iterator[Point]:
        """Does the trainings whose points are not yet saved in `folder`; each point is saved before it is yielded.

        Raises InputError, before the first training, for a folder with points of other settings, and for a checkpoint
        that cannot be used.
        """
        with locked(folder / POINTS):
            points = read_points(folder, self.settings)
            left = self.missing(points)
            if not left:
                return
            settings = self.settings
            made = from_checkpoint(self.checkpoint, self.train, settings.images)
            given = material(self.train, self.test, made.images, made.labels, settings.device)
            for seed, real, strategy in left:
                point = train_point(given, settings.images, strategy, real, seed, settings.epochs)
                points.append(point)
                _write_points(folder, settings, points)
                yield point


def plan(
    source: Path,
    dataset: DatasetSpec,
    *,
    strategies: Sequence[str],
    real: Sequence[int],
    seeds: Sequence[int],
    epochs: int,
    images: int | None,
    device: str,
    cache: Path | None = None,
) -> Study:
    """The study of a conditional system's checkpoint, or of the newest one in a run's folder.

    If `dataset` is a folder without a size, its pictures are scaled to the size of the system's images. Without
    `images`, a training set is as large as the real one without its validation part. If `real` is empty, the
    report's proportions are used. Pictures that take long to decode are kept in the folder `cache`, if given. Raises
    InputError for invalid options, unsuitable data and unsuitable checkpoints.
    """
    _check_options(strategies, seeds, epochs)
    found, system, manifest, shown = _conditional(source)
    dataset = sized(dataset, *system.shape[1:])
    check(dataset)
    if (shape := shape_of(dataset)[0]) != system.shape:
        size = f"; --size {system.shape[1]} scales them" if dataset.size and shape[0] == system.shape[0] else ""
        text = f"images are {shape}, but {manifest['system']} makes {system.shape}{size}"
        raise InputError(f"--dataset {dataset.name}: {text}")
    train, test = load_both(dataset, cache)
    available = len(split(train)[0].labels)
    count = available if images is None else images
    if count < train.classes:
        raise InputError(f"--images {count}: allowed are {train.classes} or more, one per class of {train.name}")
    sizes = real or tuple(reported_at(count, train.classes))
    most = min(count, available)
    if bad := [size for size in sizes if size and not train.classes <= size <= most]:
        raise InputError(
            f"--real {','.join(map(str, bad))}: allowed are 0, and {train.classes} (one per class) to {most}: a "
            f"training set has {count} images, and {available} of {train.name} are real without its validation part"
        )
    settings = Settings(
        system=manifest["system"],
        shown=shown,
        checkpoint=manifest["files"][checkpoint.STATE]["sha256"],
        dataset=train.name,
        train=train.sha256,
        test=test.sha256,
        tested=len(test.labels),
        classes=train.classes,
        images=count,
        epochs=epochs,
        device=device,
    )
    wanted = dict.fromkeys(product(seeds, sizes, strategies))
    return Study(settings, found, train, test, tuple(wanted))


def _check_options(strategies: Sequence[str], seeds: Sequence[int], epochs: int) -> None:
    if unknown := [name for name in strategies if name not in STRATEGIES]:
        raise InputError(f"--strategies {','.join(unknown)}: unknown; allowed are {', '.join(STRATEGIES)}")
    if not strategies:
        raise InputError(f"--strategies: none given; allowed are {', '.join(STRATEGIES)}")
    if not seeds or min(seeds) < 0:
        raise InputError(f"--seeds {','.join(map(str, seeds))}: at least one is needed, each 0 or more")
    if epochs < 2 or epochs % 2:
        raise InputError(f"--epochs {epochs}: allowed are even numbers of 2 or more, since strategies halve them")


def read_points(folder: Path, settings: Settings) -> list[Point]:
    """The points saved in `folder`. Raises InputError if they are damaged or have other settings."""
    path = folder / POINTS
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder}: is not a folder")
    if not path.exists():
        return []
    header, *lines = path.read_text().splitlines() or [""]
    try:
        kept = TypeAdapter(Settings).validate_json(header)
        points = [TypeAdapter(Point).validate_json(line) for line in lines]
    except ValidationError as error:
        raise InputError(f"{path}: not the points of a study ({error.errors()[0]['msg']}); remove it") from None
    own = asdict(settings)
    if changed := [f"{key} {value}, not {own[key]}" for key, value in asdict(kept).items() if value != own[key]]:
        raise InputError(f"{path}: its points have {'; '.join(changed)}; name another --output, or remove it")
    return points


def _write_points(folder: Path, settings: Settings, points: Sequence[Point]) -> None:
    # The whole file is written each time, so that an interruption leaves no incomplete line.
    lines = [TypeAdapter(Settings).dump_json(settings), *map(TypeAdapter(Point).dump_json, points)]
    with replaced(folder / POINTS) as temporary:
        temporary.write_bytes(b"".join(line + b"\n" for line in lines))


def _conditional(source: Path) -> tuple[Path, System, dict[str, Any], int]:
    """The checkpoint at `source`, its system, its manifest, and the images that its generator was shown.

    Raises InputError if the system is not conditional.
    """
    found = checkpoint_of(source)
    if found is None:
        raise InputError(f"{source}: no checkpoint; name one, or the folder of a run")
    try:
        manifest = checkpoint.read_manifest(found)
        system, shown = system_of(manifest), history_of(manifest)[-1].images
    except (checkpoint.CheckpointError, ValueError) as error:
        raise InputError(f"{found}: no checkpoint of this version ({error})") from error
    if not system.conditional:
        raise InputError(f"{found}: {manifest['system']} is unconditional; its images have no classes to learn from")
    return found, system, manifest, shown
