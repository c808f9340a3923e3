"""How many trainings pay on one device at a time, measured: images/s of all together, and the memory of each."""

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
#: Share of the best throughput that is good enough: more trainings at a time only make each of them slower.
ENOUGH = 0.95
#: Share of the device's memory that may be used.
FULL = 0.9
#: Seconds of training that are measured, after as many steps to warm up.
SECONDS, WARM_UP = 3.0, 3
#: Seconds in which a process must be ready.
PATIENCE = 300.0


@dataclass(frozen=True)
class Shared:
    """What `trainings` at a time came to."""

    trainings: int
    images_per_s: float
    """Of all together."""
    memory: int
    """Bytes of the device that one process takes alone, CUDA's own included; 0 on a CPU."""


def measured(
    system_id: str, config: Config, classes: int, counts: Sequence[int] = COUNTS, seconds: float = SECONDS
) -> Iterator[Shared]:
    """Trains the system, on zeros, in each of `counts` processes at a time; ends before they would not fit.

    The first count is 1: then what is missing of the device's memory is that of one process.

    Raises RuntimeError where a process dies or is not ready in time.
    """
    total = torch.cuda.get_device_properties(0).total_memory if pick_device() == "cuda" else 0
    memory = 0  # known by the first one, which is alone
    for count in counts:
        if count * memory > FULL * total:
            return
        with _Processes(count, (system_id, config, classes, seconds)) as processes:
            found = processes.run()
        memory = memory or found[0][1]
        yield Shared(count, sum(speed for speed, _ in found), memory)


def best(found: Sequence[Shared]) -> int:
    """The least number of trainings whose throughput is as good as the best one but for a twentieth."""
    top = max(each.images_per_s for each in found)
    return min(each.trainings for each in found if each.images_per_s >= ENOUGH * top)


class _Processes:
    """Processes that get ready, start together, and tell images/s and memory."""

    def __init__(self, count: int, work: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA stands no fork
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
        """Images/s and bytes of each."""
        for connection in self._connections:
            self._hear(connection)
        for connection in self._connections:
            connection.send("go")
        return [self._hear(connection) for connection in self._connections]

    def _hear(self, connection: Connection) -> Any:
        if not connection.poll(PATIENCE):
            raise RuntimeError(f"a training that shares the device has said nothing for {PATIENCE:g} s")
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
    memory = free - torch.cuda.mem_get_info()[0] if device == "cuda" else 0  # what others take meanwhile included
    connection.send((speed, memory))
