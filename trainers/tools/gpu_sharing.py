"""Measures how many trainings to run on one device at a time: their total images/s, and the memory of each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import multiprocessing

from trainers.catalogue import SYSTEMS
from trainers.config import Config
from trainers.data.images import blank
from trainers.run import pick_device
from trainers.trainer import Trainer

COUNTS = (1, 2, 4, 8)
#: Share of the best throughput that is good enough: beyond it, more trainings at a time only slow each other down.
ENOUGH = 0.95
#: Share of the device's memory that may be used.
FULL = 0.9
#: Seconds of measured training, and the number of steps before it.
SECONDS, WARM_UP = 3.0, 3
#: Seconds within which a process must answer.
PATIENCE = 300.0


@dataclass(frozen=True)
class Shared:
    """The result of `trainings` at a time."""

    trainings: int
    images_per_s: float
    """Total of all trainings."""
    memory: int
    """Bytes of device memory that one process uses, CUDA's own included; 0 on a CPU."""


def measured(
    system_id: str, config: Config, classes: int, counts: Sequence[int] = COUNTS, seconds: float = SECONDS
) -> Iterator[Shared]:
    """Trains the system on blank images with each number of processes in `counts`; stops before memory runs out.

    The first of `counts` must be 1, which measures the memory of one process. Each measurement takes `seconds`.

    Raises RuntimeError if a process dies or does not answer in time.
    """
    total = torch.cuda.get_device_properties(0).total_memory if pick_device() == "cuda" else 0
    memory = 0  # measured by the first count, a single process
    for count in counts:
        if count * memory > FULL * total:
            return
        with _Processes(count, (system_id, config, classes, seconds)) as processes:
            found = processes.run()
        memory = memory or found[0][1]
        yield Shared(count, sum(speed for speed, _ in found), memory)


def best(found: Sequence[Shared]) -> int:
    """The smallest number of trainings with at least the share ENOUGH of the best throughput."""
    top = max(each.images_per_s for each in found)
    return min(each.trainings for each in found if each.images_per_s >= ENOUGH * top)


class _Processes:
    """Processes that prepare, start training together, and report images/s and memory."""

    def __init__(self, count: int, work: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA does not work after a fork
        pipes = [context.Pipe() for _ in range(count)]
        self._connections: list[Connection] = [mine for mine, _ in pipes]
        self._processes = [context.Process(target=_train, args=(theirs, *work), daemon=True) for _, theirs in pipes]
        for process, (_, theirs) in zip(self._processes, pipes, strict=True):
            process.start()
            theirs.close()

    def __enter__(self) -> _Processes:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()

    def run(self) -> list[tuple[float, int]]:
        """Images/s and bytes of memory of each process."""
        for connection in self._connections:
            self._hear(connection)
        for connection in self._connections:
            connection.send("go")
        return [self._hear(connection) for connection in self._connections]

    def _hear(self, connection: Connection) -> Any:
        if not connection.poll(PATIENCE):
            raise RuntimeError(f"a training that shares the device has not answered for {PATIENCE:g} s")
        try:
            return connection.recv()
        except EOFError:
            raise RuntimeError("a training that shares the device has died; the device's memory may be full") from None


def _train(connection: Connection, system_id: str, config: Config, classes: int, seconds: float) -> None:
    system, device = SYSTEMS[system_id], pick_device()
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else 0
    trainer = Trainer(system, config, blank(system.shape, classes, config.batch), device)
    trainer.advance(WARM_UP * config.batch)
    connection.send("ready")
    connection.recv()
    start, before = time.perf_counter(), trainer.images
    while time.perf_counter() - start < seconds:
        trainer.advance(trainer.images + config.batch)
    speed = (trainer.images - before) / (time.perf_counter() - start)
    # Includes what other processes took meanwhile.
    memory = free - torch.cuda.mem_get_info()[0] if device == "cuda" else 0
    connection.send((speed, memory))
