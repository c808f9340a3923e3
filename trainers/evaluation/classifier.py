"""Training and cache of the classifiers `lenet` and `cnn`, which learn the real images."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trainers.data.files import digest, locked, replaced
from trainers.data.images import ImageData
from trainers.errors import InputError

BATCH = 128

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """A network and its training: Adam, a learning rate that falls to 0 along a cosine, randomly shifted images."""

    name: str
    version: int
    """Part of the file name in the cache. Raise it with every change of the network or the training."""
    build: Callable[[int, int], nn.Module]
    """Makes a network for (channels, classes): from the result of `prepare` to features [N, dim] and logits."""
    dim: int
    prepare: Callable[[Tensor, torch.dtype], Tensor]
    """Converts uint8 [N, C, H, W] to the network's input of a type."""
    resize: Callable[[int, int], str]
    """A word for what `prepare` does to images of a height and width: part of the extractor's id."""
    smallest: int
    """Smallest height and width of an image, in pixels."""
    learning_rate: float
    """At the start, the highest."""
    steps: tuple[int, int]
    """Lowest and highest number of training steps; `epochs` decides between them."""
    epochs: int
    shift: int
    """Largest random shift of a batch in each direction, in pixels."""


def trained(recipe: Recipe, train: ImageData, test: ImageData, cache: Path) -> tuple[nn.Module, str]:
    """The classifier of a training split, in evaluation mode on the CPU, and the sha256 of its file in `cache`.

    It is trained at the first use, by one process at a time; a damaged file is replaced. Raises InputError for images
    that are too small or have fewer than two classes.
    """
    if train.classes < 2:
        raise InputError(
            f"extractor {recipe.name}: data set {train.name} has {train.classes} class, allowed are at least 2; "
            "use `inception`"
        )
    channels, height, width = train.shape
    if min(height, width) < recipe.smallest:
        raise InputError(
            f"extractor {recipe.name}: data set {train.name} has images of {height}x{width} pixels, allowed are at "
            f"least {recipe.smallest}x{recipe.smallest}; use `lenet` or `inception`"
        )
    path = cache / f"{recipe.name}-{train.sha256[:16]}-{recipe.version}.safetensors"
    net = recipe.build(channels, train.classes)
    with locked(path):
        checksum = _read(net, path)
        if checksum is None:
            net = fit(recipe, train)
            _write(recipe, net, path, train, test)
            checksum = digest(path)
    return net.eval().requires_grad_(False), checksum


def fit(recipe: Recipe, train: ImageData) -> nn.Module:
    """Trains a network on the CPU, with one thread and a fixed seed, so that equal machines get equal weights."""
    steps = min(max(recipe.steps[0], recipe.epochs * len(train.labels) // BATCH), recipe.steps[1])
    images, labels = train.images.cpu(), train.labels.cpu()
    with one_thread(), torch.random.fork_rng(devices=[]):
        generator = torch.default_generator.manual_seed(0)
        net = recipe.build(images.shape[1], train.classes).train()
        optimizer = torch.optim.Adam(net.parameters(), lr=recipe.learning_rate)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        order = _endless_order(len(labels), generator)
        for _ in range(steps):
            chosen = next(order)
            shift = torch.randint(-recipe.shift, recipe.shift + 1, (2,), generator=generator).tolist()
            _, logits = net(recipe.prepare(images[chosen], torch.float32).roll(shift, dims=(2, 3)))
            optimizer.zero_grad(set_to_none=True)
            cross_entropy(logits, labels[chosen]).backward()
            optimizer.step()
            decay.step()
    return net.eval()


@torch.no_grad()
def accuracy(recipe: Recipe, net: nn.Module, data: ImageData) -> float:
    """Share in [0, 1] of the images that the classifier gets right; computed on the classifier's device."""
    device = next(net.parameters()).device
    right = [
        net(recipe.prepare(images.to(device), torch.float32))[1].argmax(dim=1) == labels.to(device)
        for images, labels in zip(data.images.split(500), data.labels.split(500), strict=True)
    ]
    return float(torch.cat(right).double().mean())


def _endless_order(count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of indices, int64 [BATCH], from shuffled epochs; a batch may span two epochs."""
    rest = torch.empty(0, dtype=torch.int64)
    while True:
        while len(rest) < BATCH:
            rest = torch.cat([rest, torch.randperm(count, generator=generator)])
        yield rest[:BATCH]
        rest = rest[BATCH:]


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch uses one thread in the block, since gradients depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _read(net: nn.Module, path: Path) -> str | None:
    """Loads the cached weights into `net` and returns the sha256 of their file; None if there is no intact file."""
    if not path.exists():
        return None
    try:
        content = path.read_bytes()
        checksum = hashlib.sha256(content).hexdigest()
        if json.loads(path.with_suffix(".json").read_text())["sha256"] != checksum:
            raise ValueError("its sha256 is not the recorded one")
        net.load_state_dict(safetensors.torch.load(content))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        _log.warning("%s: damaged (%s); the classifier is trained again", path, error)
        path.unlink(missing_ok=True)
        return None
    return checksum


def _write(recipe: Recipe, net: nn.Module, path: Path, train: ImageData, test: ImageData) -> None:
    """Writes the weights, with their test accuracy in the header, and beside them a summary with the file's sha256."""
    summary = {
        "data": train.name,
        "train_sha256": train.sha256,
        "test_sha256": test.sha256,
        "test_accuracy": accuracy(recipe, net, test),
        "recipe": recipe.version,
    }
    _log.info("%s: test accuracy %.4f on %s", path, summary["test_accuracy"], test.name)
    with replaced(path) as temporary:
        # One entry only: the order of several is not fixed, and equal weights must give equal files.
        safetensors.torch.save_file(net.state_dict(), temporary, metadata={"summary": json.dumps(summary)})
    with replaced(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(summary | {"sha256": digest(path)}, indent=1) + "\n")
