"""Training and cache of the classifiers `lenet` and `cnn`, which learn the real images."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trainers.data.files import locked, replaced
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


class Trained(NamedTuple):
    """A classifier on the CPU, in evaluation mode, and its weights in the cache."""

    net: nn.Module
    weights: Path
    """A safetensors file."""
    sha256: str
    """Of that file."""


#: Gives the content of the weights whose sha256 begins with these digits, verified; None if they are not to be had.
Fetch = Callable[[str], bytes | None]


@dataclass(frozen=True)
class Known:
    """The weights that scores were measured with before, which new scores are to compare with."""

    extractor: str
    """Name of the recipe."""
    data: str
    """The sha256 of the training images, or its first digits."""
    sha256: str
    """Of the file of the weights, or its first digits."""
    fetch: Fetch = lambda digits: None
    """Where to get them if the cache lacks them."""
    required: bool = False
    """Whether no others may be taken in their place."""


def trained(recipe: Recipe, train: ImageData, test: ImageData, cache: Path, known: Known | None = None) -> Trained:
    """The classifier of a training split; trained at the first use, by one process at a time.

    The cache may hold several for the same recipe and data, since training again on another machine or by another torch
    gives other weights: the `known` ones are taken if they are of this recipe and data, else those that came first.
    Damaged files are deleted.

    Raises InputError for images that are too small or have fewer than two classes, and if required weights are lost.
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
    first = cache / f"{recipe.name}-{train.sha256[:16]}-{recipe.version}.safetensors"
    net = recipe.build(channels, train.classes)
    suits = known is not None and known.extractor == recipe.name and train.sha256.startswith(known.data)
    wanted = known if suits else None
    with locked(first):
        intact = _intact(net, [first, *sorted(cache.glob(f"{first.stem}-*.safetensors"))])
        path = next((path for path, sha256 in intact.items() if wanted and sha256.startswith(wanted.sha256)), None)
        if path is None and wanted and (content := _fetched(wanted, cache)) is not None:
            path = _kept(content, first)
        path = path or next(iter(intact), None) or _kept(_new(recipe, train, test), first)
        content = path.read_bytes()
    net.load_state_dict(safetensors.torch.load(content))
    return Trained(net.eval().requires_grad_(False), path, _sha256(content))


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


def _intact(net: nn.Module, paths: Iterable[Path]) -> dict[Path, str]:
    """The sha256 of each file that has the one recorded beside it and fits `net`, whose own weights are lost.

    Other files are deleted with a warning.
    """
    found = {}
    for path in paths:
        if not path.exists():
            continue
        try:
            content = path.read_bytes()
            if json.loads(path.with_suffix(".json").read_text())["sha256"] != _sha256(content):
                raise ValueError("its sha256 is not the recorded one")
            net.load_state_dict(safetensors.torch.load(content))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            _log.warning("%s: damaged (%s); it is deleted", path, error)
            path.unlink(missing_ok=True)
        else:
            found[path] = _sha256(content)
    return found


def _fetched(wanted: Known, cache: Path) -> bytes | None:
    """The content of weights that the cache lacks. If they are lost, raises InputError or says so and returns None."""
    if (content := wanted.fetch(wanted.sha256)) is not None:
        return content
    lost = (
        f"extractor {wanted.extractor}: the weights with sha256 {wanted.sha256} are lost: neither {cache} nor the "
        "store has them whole, and scores by others do not compare"
    )
    if wanted.required:
        raise InputError(f"{lost}; put their file back into one of them")
    _log.warning(lost)
    return None


def _new(recipe: Recipe, train: ImageData, test: ImageData) -> bytes:
    """The weights of a newly trained classifier as the content of a file, with a summary in the header."""
    net = fit(recipe, train)
    summary = {
        "data": train.name,
        "train_sha256": train.sha256,
        "test_sha256": test.sha256,
        "test_accuracy": accuracy(recipe, net, test),
        "recipe": recipe.version,
    }
    _log.info("%s: test accuracy %.4f on %s", recipe.name, summary["test_accuracy"], test.name)
    # One entry only: the order of several is not fixed, and equal weights must give equal files.
    return safetensors.torch.save(net.state_dict(), metadata={"summary": json.dumps(summary)})


def _kept(content: bytes, first: Path) -> Path:
    """Writes weights to the file `first`, or beside it if others are there, and their summary with the sha256."""
    sha256 = _sha256(content)
    path = first.with_name(f"{first.stem}-{sha256[:16]}{first.suffix}") if first.exists() else first
    with replaced(path) as temporary:
        temporary.write_bytes(content)
    with safe_open(path, "pt") as file:
        summary = json.loads(file.metadata()["summary"])
    with replaced(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(summary | {"sha256": sha256}, indent=1) + "\n")
    return path


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
