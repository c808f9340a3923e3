"""The LeNet that classifies generated images (`narman-2019`, section 3), trained on the real ones and cached."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, pad

from trainers.data import ImageData
from trainers.data.files import digest, locked, replaced
from trainers.errors import InputError

#: Part of the cache's file name: raise it with every change of network or training.
RECIPE = 1
DIM = 84
SIZE = 32
BATCH = 128
#: Peak of a cosine that falls to 0.
LEARNING_RATE = 5e-3
#: Steps for small and for large data; between them _EPOCHS epochs.
STEPS = (500, 2000)
_EPOCHS = 6
_SHIFT = 1

_log = logging.getLogger(__name__)


class LeNet(nn.Module):
    """Two convolutions and three linear layers (LeCun et al., 1998), 61,706 parameters for gray images of 10 classes.

    Input: float [N, channels, 32, 32] in [0, 1]. Output: features after ReLU [N, 84] and logits [N, classes].
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        # ReLU after pooling gives what ReLU before it gives, with a quarter of the work.
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(6, 16, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(),
            nn.Linear(120, DIM),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(DIM, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        return features, self.classifier(features)


def resize_name(height: int, width: int) -> str:
    """How images of this size reach 32x32: part of the extractor's id."""
    return {(28, 28): "zeropad", (SIZE, SIZE): "asis"}.get((height, width), "bilinear")


def prepare(images: Tensor) -> Tensor:
    """uint8 [N, C, H, W] to float [N, C, 32, 32] in [0, 1]."""
    x = images.float() / 255
    resize = resize_name(*images.shape[2:])
    if resize == "zeropad":
        return pad(x, (2, 2, 2, 2))
    if resize == "bilinear":
        return interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)
    return x


def trained(train: ImageData, test: ImageData, cache: Path) -> tuple[LeNet, str]:
    """The LeNet of a training split, in evaluation mode on the CPU, and the sha256 of its file in `cache`.

    It is trained on first use, by one process at a time, and a damaged file is replaced. Raises InputError for data
    without classes to tell apart.
    """
    if train.classes < 2:
        raise InputError(
            f"extractor lenet: data set {train.name} has {train.classes} class, allowed are at least 2; use `inception`"
        )
    path = cache / f"lenet-{train.sha256[:16]}-{RECIPE}.safetensors"
    net = LeNet(train.images.shape[1], train.classes)
    with locked(path):
        checksum = _read(net, path)
        if checksum is None:
            net = fit(train)
            _write(net, path, train, test)
            checksum = digest(path)
    return net.eval().requires_grad_(False), checksum


def fit(train: ImageData) -> LeNet:
    """Trains a LeNet on the CPU; one thread and one seed, so that equal machines get equal weights."""
    steps = min(max(STEPS[0], _EPOCHS * len(train.labels) // BATCH), STEPS[1])
    images, labels = prepare(train.images.cpu()), train.labels.cpu()
    with _one_thread(), torch.random.fork_rng(devices=[]):
        generator = torch.default_generator.manual_seed(0)
        net = LeNet(images.shape[1], train.classes).train()
        optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        order = _endless_order(len(labels), generator)
        for _ in range(steps):
            chosen = next(order)
            shift = torch.randint(-_SHIFT, _SHIFT + 1, (2,), generator=generator).tolist()
            _, logits = net(images[chosen].roll(shift, dims=(2, 3)))
            optimizer.zero_grad(set_to_none=True)
            cross_entropy(logits, labels[chosen]).backward()
            optimizer.step()
            decay.step()
    return net.eval()


def accuracy(net: LeNet, data: ImageData) -> float:
    """Share of the images that the classifier gets right."""
    with torch.no_grad():
        predicted = torch.cat([net(prepare(part.cpu()))[1].argmax(dim=1) for part in torch.split(data.images, 500)])
    return float((predicted == data.labels.cpu()).double().mean())


def _endless_order(count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Index batches out of shuffled epochs that run into each other."""
    rest = torch.empty(0, dtype=torch.int64)
    while True:
        while len(rest) < BATCH:
            rest = torch.cat([rest, torch.randperm(count, generator=generator)])
        yield rest[:BATCH]
        rest = rest[BATCH:]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Gradients depend on the thread count, so it is 1 here whatever the process uses elsewhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _read(net: LeNet, path: Path) -> str | None:
    """Loads the cached weights into `net`; gives their file's sha256, or None where there is no whole file."""
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


def _write(net: LeNet, path: Path, train: ImageData, test: ImageData) -> None:
    """Caches the weights with their test accuracy in the header, and a summary with the file's sha256 beside them."""
    summary = {
        "data": train.name,
        "train_sha256": train.sha256,
        "test_sha256": test.sha256,
        "test_accuracy": accuracy(net, test),
        "recipe": RECIPE,
    }
    _log.info("%s: test accuracy %.4f on %s", path, summary["test_accuracy"], test.name)
    with replaced(path) as temporary:
        # One entry only: the order of several is not fixed, and equal weights shall give equal files.
        safetensors.torch.save_file(net.state_dict(), temporary, metadata={"summary": json.dumps(summary)})
    with replaced(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(summary | {"sha256": digest(path)}, indent=1) + "\n")
