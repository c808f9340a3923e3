"""One trial on several GPUs: its process is the first worker, the others are actors in the trial's placement group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.cluster.nodes import this_node
from orchestrator.cluster.runs import Origin, new_run
from orchestrator.decisions.failures import LOST_NODE, failure_of
from search_spaces.settings import Resources
from search_spaces.sweep import read_kept
from trainers.parallel import group as parallel
from trainers.parallel.group import Parallel
from trainers.run import Run, pick_device

#: Seconds after which a worker that waits for another one gives up.
PATIENCE = 600.0
#: Seconds in which Ray must report the death of a worker after another worker has lost the connection to it.
_DEATH_REPORT = 15.0


class NodeLostError(Exception):
    """The node of another worker of the trial was lost."""


class WorkerKilledError(Exception):
    """Another worker of the trial was killed."""


class Worker:
    """A worker other than the first: trains and scores its part of each batch, and keeps and reports nothing."""

    def __init__(self, rank: int, size: int, host: str, port: int, gpu_share: float) -> None:
        limit_memory(gpu_share)
        self._parallel = parallel.join(host, port, rank, size, pick_device(), PATIENCE)
        self._run: Run | None = None

    def node(self) -> str:
        """The node of this worker."""
        return this_node()

    def begin(self, sweep_text: str, cache: Path, params: dict[str, Any], origin: Origin | None) -> None:
        """Begins another trial and takes over the state of its first worker."""
        self._run = None  # frees the memory of the trial before
        try:
            self._run = new_run(read_kept(sweep_text), cache, params, self._parallel, origin)
        except Exception:
            self._parallel.leave()  # else the first worker would wait for this one
            raise
        self._run.share()

    def follow(self, images: int) -> None:
        """Trains until `images` and scores its part."""
        assert self._run is not None
        self._run.follow(images)

    def follow_measure(self, samples: int) -> None:
        """Scores its part of `samples` images."""
        assert self._run is not None
        self._run.follow_measure(samples)


class Team:
    """The workers of the trials of this process, which is the first one. The others end with `end`, or with it."""

    def __init__(self, want: Resources) -> None:
        """Starts the other workers in the placement group of this actor. Raises RayError if one dies."""
        group, host = ray.util.get_current_placement_group(), ray.util.get_node_ip_address()
        listening = parallel.listen(host)
        self._others = [
            ray.remote(Worker)
            .options(
                num_cpus=want.cpus_per_worker,
                num_gpus=want.gpu_share,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, rank),
            )
            .remote(rank, want.workers_per_trial, host, listening.port, want.gpu_share)
            for rank in range(1, want.workers_per_trial)
        ]
        self.parallel: Parallel = listening.join(want.workers_per_trial, pick_device(), PATIENCE)
        self.nodes: list[str] = [this_node(), *ray.get([other.node.remote() for other in self._others])]
        """The node of each worker, by rank."""

    @contextmanager
    def together(self, method: str, *arguments: Any) -> Iterator[None]:
        """Has all other workers call `method` while this one runs the block.

        Raises NodeLostError or WorkerKilledError if a worker died, else the error that a worker raised.
        """
        calls = [getattr(other, method).remote(*arguments) for other in self._others]
        try:
            yield
        except Exception:
            # If a worker died, the block only noticed a lost connection: Ray's error says why the worker died.
            _raise_first(calls, _DEATH_REPORT)
            raise
        _raise_first(calls, None)

    def end(self) -> None:
        """Kills the other workers."""
        for other in self._others:
            ray.kill(other)
        self.parallel.leave()


def _raise_first(calls: list[Any], timeout: float | None) -> None:
    """Raises the error of a call that failed within `timeout` seconds, if any; the death of a worker comes first.

    The errors of other workers may only be that they noticed the death.
    """
    ready, _ = ray.wait(calls, num_returns=len(calls), timeout=timeout)
    errors: list[RayError] = []
    for call in ready:
        try:
            ray.get(call)
        except RayError as error:
            errors.append(error)
    for died in errors:
        if isinstance(died, RayActorError):
            lost = failure_of(0, str(died)).kind == LOST_NODE
            raise (NodeLostError if lost else WorkerKilledError)(str(died)) from None
    if errors:
        raise errors[0]


def limit_memory(gpu_share: float) -> None:
    """Limits this process to its share of the GPU's memory, if it shares a GPU."""
    if 0 < gpu_share < 1 and pick_device() == "cuda":
        torch.cuda.set_per_process_memory_fraction(gpu_share)
