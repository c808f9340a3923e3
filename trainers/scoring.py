"""Scores of images that lie in a folder, or that a checkpoint's generator makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from trainers import SYSTEMS, checkpoint
from trainers.config import Config
from trainers.data import DatasetSpec, ImageData, check, load
from trainers.data.fit import fitted
from trainers.data.folder import pictures
from trainers.errors import InputError
from trainers.evaluation.extractors import ExtractorSpec, build_extractor, check_extractor
from trainers.evaluation.reference import reference_of
from trainers.evaluation.scores import METRICS, Evaluator, Score
from trainers.run import pick_device
from trainers.trainer import Trainer

#: Pillow's modes of pictures with as many channels and 8 bits each.
MODES = {1: ("L",), 3: ("RGB",)}


@dataclass(frozen=True)
class Generated:
    """Images to be scored."""

    images: Tensor
    """uint8 [N, C, H, W]."""
    labels: Tensor
    """int64 [N]; zeros where `labelled` is False."""
    labelled: bool


def score(
    source: Path, dataset: DatasetSpec, extractor: ExtractorSpec, metrics: tuple[str, ...], samples: int, cache: Path
) -> dict[str, Score]:
    """Scores by metric of the images in `source`: a folder of pictures, a checkpoint, or a folder of checkpoints.

    A checkpoint's generator makes `samples` images. Empty `metrics` are the routine ones that can be measured. Raises
    InputError for what cannot be scored, before anything is trained.
    """
    check(dataset)
    check_extractor(extractor, cache)
    if unknown := [name for name in metrics if name not in METRICS]:
        raise InputError(f"--metrics {','.join(unknown)}: unknown; allowed are {', '.join(METRICS)}")
    train, test = load(dataset, "train"), load(dataset, "test")
    found = _checkpoint_of(source)
    made = from_folder(source, train) if found is None else from_checkpoint(found, train, samples)
    fewest = max([2, *(METRICS[name].fewest for name in metrics)])
    if len(made.images) < fewest:
        raise InputError(f"{source}: {len(made.images)} images; allowed are {fewest} or more with these metrics")
    network = build_extractor(extractor, train, test, cache, pick_device())
    if tuple(made.images.shape[1:]) != train.shape and network.size is not None:
        raise InputError(
            f"{source}: images are {tuple(made.images.shape[1:])}, but those of {train.name} {train.shape}"
        )
    chosen = metrics or tuple(
        metric.name
        for metric in METRICS.values()
        if metric.routine
        and (made.labelled or not metric.needs_labels)
        and (network.classes is not None or not metric.needs_logits)
        and len(made.images) >= metric.fewest
    )
    if useless := [name for name in chosen if METRICS[name].needs_labels and not made.labelled]:
        raise InputError(f"--metrics {','.join(useless)}: needs the classes that the images of {source} were made for")
    evaluator = Evaluator(network, reference_of(network, train, cache), chosen, seed=0)
    return evaluator(made.images, made.labels, made.labelled).scores


def from_folder(folder: Path, data: ImageData) -> Generated:
    """All pictures below `folder`; where its class folders are as many as the classes of `data`, they are labels.

    Raises InputError for pictures that cannot be read, differ in size or channels, or have more than 8 bits.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name a folder of pictures or a checkpoint")
    paths, names = pictures(folder)
    pixels = [_read(path, data) for path in paths]
    for path, picture in zip(paths, pixels, strict=True):
        if picture.shape != pixels[0].shape:
            sizes = " and ".join(f"{p.shape[1]}x{p.shape[0]}" for p in (picture, pixels[0]))
            raise InputError(f"{path}: its size differs from that of {paths[0]}: {sizes}; scale them alike")
    images = torch.from_numpy(np.stack(pixels))
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    labelled = len(names) == data.classes > 1
    labels = [names.index(path.relative_to(folder).parts[0]) if labelled else 0 for path in paths]
    return Generated(images, torch.tensor(labels), labelled)


def from_checkpoint(folder: Path, data: ImageData, samples: int) -> Generated:
    """`samples` images of the generator in a checkpoint, fitted to the shape of `data`; InputError where it is no good.

    The noise is that of a rung's scores.
    """
    if samples < 2:
        raise InputError(f"--samples {samples}: allowed are 2 or more")
    try:
        tensors, header, manifest = checkpoint.read(folder)
        system = SYSTEMS[manifest["system"]]
        config: Config = type(system.defaults).model_validate(header["config"])
        # The trainer asks for data to learn from; a generator needs none but their classes.
        count = max(config.batch, data.classes)
        images = torch.zeros((count, *system.shape), dtype=torch.uint8)
        blank = ImageData(images, torch.arange(count) % data.classes, data.classes, "blank", "train")
        trainer = Trainer(system, config, blank, pick_device())
        trainer.load_state(tensors, header)
    except (checkpoint.CheckpointError, ValidationError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder}: no checkpoint of this version and these classes ({error})") from error
    made, labels = trainer.sample(samples, seed=0)
    return Generated(fitted(made.cpu(), data.shape), labels.cpu(), system.conditional)


def _checkpoint_of(source: Path) -> Path | None:
    """`source` where it is a checkpoint, the newest whole one where it is a run's folder, None elsewhere."""
    if (source / checkpoint.MANIFEST).is_file():
        return source
    for parent in (source, source / "checkpoints"):
        if any(path.is_dir() and (path / checkpoint.MANIFEST).exists() for path in parent.glob("[0-9]*")):
            found = checkpoint.newest(parent)
            if found is None:
                raise InputError(f"{parent}: every checkpoint is damaged")
            return found
    return None


def _read(path: Path, data: ImageData) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    channels = data.shape[0]
    try:
        with Image.open(path) as picture:
            mode = picture.mode
            pixels = np.asarray(picture)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a readable image ({error}); remove or replace it") from error
    if mode not in MODES[channels]:
        wanted = f"{' or '.join(MODES[channels])}, {'gray' if channels == 1 else 'colour'} with 8 bits per channel"
        raise InputError(f"{path}: mode {mode}; {data.name} is {wanted}: convert it")
    return pixels
