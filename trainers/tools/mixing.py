"""A classifier's accuracy after training on different shares of real and generated images (`narman-2019`, section 4).

All training sets have the same number of images: R real ones, and generated ones for the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trainers.data.batches import seeded
from trainers.data.images import ImageData
from trainers.evaluation import lenet
from trainers.evaluation.classifier import one_thread
from trainers.seeds import seed_of

LEARNING_RATE = 1e-3
#: Our choice; the report gives none.
BATCH = 128
#: Share of the real images: 5,000 of MNIST's 60,000.
VALIDATION_SHARE = 1 / 12
REPORTED_DATASET, REPORTED_IMAGES, REPORTED_EPOCHS = "mnist", 55_000, 30
#: Test accuracy by R and strategy, as reported.
REPORTED: dict[int, dict[str, float]] = {
    real: dict(zip(("none", "1", "2"), accuracies, strict=True))
    for real, *accuracies in (
        (0, 0.932, 0.824, 0.824),
        (10, 0.952, 0.825, 0.953),
        (60, 0.962, 0.915, 0.953),
        (550, 0.967, 0.962, 0.960),
        (5_500, 0.980, 0.981, 0.980),
        (11_000, 0.987, 0.986, 0.984),
        (16_500, 0.987, 0.988, 0.989),
        (22_000, 0.988, 0.990, 0.988),
        (27_500, 0.990, 0.986, 0.988),
        (33_000, 0.990, 0.988, 0.990),
        (38_500, 0.990, 0.992, 0.991),
        (44_000, 0.991, 0.987, 0.990),
        (49_500, 0.990, 0.990, 0.990),
        (55_000, 0.991, 0.987, 0.987),
    )
}


@dataclass(frozen=True)
class Material:
    """The images that all trainings choose from, on one device."""

    pool: ImageData
    """The real training images, then the generated ones."""
    real: int
    """How many of the pool are real."""
    validation: ImageData
    """Real images that no training sees."""
    test: ImageData


@dataclass(frozen=True)
class Point:
    """One training and its result."""

    strategy: str
    real: int
    """R, the real images in the training set."""
    seed: int
    accuracy: float
    """Share of the test images that are classified correctly."""
    seconds: float
    """Duration of the training with its validations."""
    curve: tuple[float, ...]
    """Accuracy on the validation images after each epoch."""


def reported_at(images: int, classes: int) -> dict[int, dict[str, float]]:
    """`REPORTED` with R scaled to training sets of `images`; if R is not 0, it is at least the number of classes.

    If several rows get the same R, the last one is kept, which has the largest reported R.
    """
    return {max(round(real * images / REPORTED_IMAGES), classes) if real else 0: row for real, row in REPORTED.items()}


def split(train: ImageData) -> tuple[ImageData, ImageData]:
    """The training and validation part of the real images, independent of the seed of a training."""
    order = torch.randperm(len(train.labels), generator=seeded(0, 5))
    rest = len(order) - max(1, round(len(order) * VALIDATION_SHARE))
    first, second = (
        replace(train, images=train.images[part], labels=train.labels[part]) for part in (order[:rest], order[rest:])
    )
    return first, second


def material(train: ImageData, test: ImageData, images: Tensor, labels: Tensor, device: str) -> Material:
    """The material of real images of both splits and generated `images`, uint8 [N, C, H, W] with classes int64 [N]."""
    part, validation = split(train)
    pool = replace(part, images=torch.cat([part.images, images]), labels=torch.cat([part.labels, labels]))
    return Material(pool.to(device), len(part.labels), validation.to(device), test.to(device))


def by_turns(labels: Tensor, seed: int) -> Tensor:
    """A shuffled order of images with the classes `labels`, int64 [N], in which the classes take turns.

    The first n images of this order are stratified for each n: as long as no class is used up, the numbers of images
    per class differ by at most one.
    """
    shuffled = torch.randperm(len(labels), generator=seeded(seed, 6))
    own = labels[shuffled]
    turn = torch.empty_like(own)
    for label in own.unique():
        turn[own == label] = torch.arange(int((own == label).sum()))
    return shuffled[torch.argsort(turn * (int(own.max()) + 1) + own)] if len(own) else shuffled


def mix(given: Material, images: int, real: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of a training set in the pool: int64 [real] of real images, int64 [images - real] of generated ones.

    Both are stratified. With one seed, the real images of a smaller set are among those of a larger one. Raises
    ValueError if the pool has too few images.
    """
    real_labels, other_labels = given.pool.labels.cpu().tensor_split([given.real])
    generated = images - real
    if not (0 <= real <= len(real_labels) and 0 <= generated <= len(other_labels)):
        raise ValueError(
            f"no {real} real and {generated} generated images among {len(real_labels)} and {len(other_labels)}"
        )
    return by_turns(real_labels, seed)[:real], given.real + by_turns(other_labels, seed)[:generated]


def all_at_once(real: Tensor, generated: Tensor, epochs: int) -> list[Tensor]:
    """Each epoch has all images."""
    return [torch.cat([real, generated])] * epochs


def fine_tuned(real: Tensor, generated: Tensor, epochs: int) -> list[Tensor]:
    """The first half of the epochs has only the generated images, the second half only the real ones."""
    return [generated] * (epochs // 2) + [real] * (epochs // 2)


def alternating(real: Tensor, generated: Tensor, epochs: int) -> list[Tensor]:
    """The first, third, ... epochs have only the generated images, the others only the real ones."""
    return [generated, real] * (epochs // 2)


#: By the names of the report: functions from real indices, generated indices and an even number of epochs to the
#: indices of each epoch.
STRATEGIES: dict[str, Callable[[Tensor, Tensor, int], list[Tensor]]] = {
    "none": all_at_once,
    "1": fine_tuned,
    "2": alternating,
}


def train_point(given: Material, images: int, strategy: str, real: int, seed: int, epochs: int) -> Point:
    """Trains a new LeNet with Adam, whose state is kept between generated and real images, and tests it.

    An epoch without images changes nothing. The seed determines initial weights, subsets and order; on a CPU, equal
    arguments give equal bits. Random state and thread count of the caller stay the same. Raises ValueError like `mix`.
    """
    epoch_sets = STRATEGIES[strategy](*mix(given, images, real, seed), epochs)
    start = time.perf_counter()
    with one_thread():
        net = _fresh(given.pool, seed)
        curve = tuple(_curve(net, given, epoch_sets, seed))
        seconds = time.perf_counter() - start
        return Point(strategy, real, seed, lenet.accuracy(net, given.test), seconds, curve)


def _curve(net: nn.Module, given: Material, epoch_sets: list[Tensor], seed: int) -> Iterator[float]:
    """Trains `net` epoch by epoch; yields the accuracy on the validation images after each."""
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE, fused=True)
    generator, reached = seeded(seed, 8), None
    for chosen in epoch_sets:
        if len(chosen):
            _epoch(net, optimizer, given.pool, chosen[torch.randperm(len(chosen), generator=generator)])
        if len(chosen) or reached is None:
            reached = lenet.accuracy(net, given.validation)
        yield reached


def _epoch(net: nn.Module, optimizer: torch.optim.Optimizer, pool: ImageData, order: Tensor) -> None:
    for batch in order.to(pool.images.device).split(BATCH):
        _, logits = net(lenet.prepare(pool.images[batch]))
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(logits, pool.labels[batch]).backward()
        optimizer.step()


def _fresh(data: ImageData, seed: int) -> nn.Module:
    """A LeNet with initial weights drawn on the CPU, so that they are the same for every device."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(seed, 7))
        net = lenet.LeNet(data.shape[0], data.classes).to(data.images.device)
    # Training is a quarter faster on a CPU.
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]  # torch's types lack it
