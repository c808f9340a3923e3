"""What a sweep will cost, from steps measured on this machine."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from search_spaces.space import Dimension, Value, grid, suggest
from search_spaces.sweep import Sweep
from trainers import SYSTEMS
from trainers.config import Config, overlay
from trainers.data import ImageData, shape_of
from trainers.run import pick_device
from trainers.trainer import SAMPLE_BATCH, Trainer

#: Trials whose steps are measured, evenly over the sweep; the others are taken to cost their mean.
MEASURED_TRIALS = 16
#: Steps are repeated for as long, after one that is thrown away unless it takes longer.
SECONDS_PER_TRIAL = 1.0


@dataclass(frozen=True)
class Estimate:
    """The cost of a sweep of which nothing is pruned; scoring by the extractor and the finals are not in it."""

    seconds: float
    """Of all trials, one after the other."""
    concurrent: int
    """Trials at a time on this machine."""
    measured: int
    """Trials whose steps were measured."""

    def __str__(self) -> str:
        whole = _duration(self.seconds / self.concurrent)
        return (
            f"about {whole} on this machine ({self.concurrent} at a time, {_duration(self.seconds)} one after the "
            f"other) if nothing is pruned; steps of {self.measured} trials measured, the extractor's time and the "
            "finals left out"
        )


def estimate(sweep: Sweep) -> Estimate:
    """Measures steps of the trials that `sweep` would begin with; takes some seconds per trial."""
    trials = planned(sweep)
    chosen = trials[:: -(-len(trials) // MEASURED_TRIALS)]
    known: dict[tuple[str, Config], float] = {}
    total = 0.0
    for values in chosen:
        system_id, config = sweep.configure(values)
        key = system_id, overlay(config, {"seed": 0})
        if key not in known:
            known[key] = _trial_seconds(sweep, *key)
        total += known[key]
    return Estimate(total * len(trials) / len(chosen), _concurrent(sweep), len(chosen))


def planned(sweep: Sweep) -> list[dict[str, Value]]:
    """The parameters of every trial of the budget, as far as they are known; others drawn from their distributions."""
    if sweep.sampler.name == "grid":
        return list(islice(grid(sweep.space), sweep.budget.trials))
    rng = random.Random(sweep.sampler.seed)

    def drawn(point: dict[str, Any]) -> dict[str, Value]:
        def pick(dimension: Dimension) -> Value:
            return point[dimension.name] if dimension.name in point else dimension.draw(rng)

        return suggest(sweep.space, pick)

    free = sweep.budget.trials - len(sweep.points)
    return [drawn(point) for point in (*sweep.points, *({} for _ in range(free)))]


def _trial_seconds(sweep: Sweep, system_id: str, config: Config) -> float:
    system, device = SYSTEMS[system_id], pick_device()
    _, classes = shape_of(sweep.dataset)
    count = max(config.batch, classes)
    images = torch.zeros((count, *system.shape), dtype=torch.uint8)
    data = ImageData(images, torch.arange(count) % classes, classes, "zeros", "train")
    trainer = Trainer(system, overlay(config, {"oversampling": 0}), data, device)
    start = time.perf_counter()
    trainer.advance(config.batch)
    seconds, steps = time.perf_counter() - start, 1
    if seconds < SECONDS_PER_TRIAL:
        steps = max(1, round(SECONDS_PER_TRIAL / seconds))
        start = time.perf_counter()
        trainer.advance(config.batch * (1 + steps))
        seconds = time.perf_counter() - start
    training = seconds / (steps * config.batch) * sweep.rungs[-1]
    shown = min(SAMPLE_BATCH, sweep.score.samples)
    start = time.perf_counter()
    trainer.sample(shown, seed=0)
    sampling = (time.perf_counter() - start) / shown * sweep.score.samples * len(sweep.rungs)
    return training + sampling


def _concurrent(sweep: Sweep) -> int:
    """As `tune.capacity` has it on this machine, at least 1; without starting Ray."""
    want = sweep.resources
    fits = (os.cpu_count() or 1) / want.cpus_per_worker
    if want.gpus_per_worker:
        fits = min(fits, torch.cuda.device_count() / want.gpus_per_worker)
    return max(1, min(int(fits), want.concurrent_trials or int(fits), sweep.budget.trials))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
