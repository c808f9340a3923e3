"""Estimates what a sweep costs, from training steps measured on this machine."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import torch

from orchestrator.decisions.budget import HOUR, devices
from search_spaces.plan import TRIALS_WITHOUT_LIMIT, planned
from search_spaces.sweep import Sweep
from trainers.catalogue import SYSTEMS
from trainers.config import Config, overlay
from trainers.data.catalogue import shape_of
from trainers.data.images import blank
from trainers.run import pick_device
from trainers.trainer import SAMPLE_BATCH, Trainer

#: At most so many trials are measured, at equal distances in the plan; the others are assumed to cost their mean.
MEASURED_TRIALS = TRIALS_WITHOUT_LIMIT
#: Steps are repeated for so many seconds, after a first step that counts only if it takes longer by itself.
SECONDS_PER_TRIAL = 1.0


@dataclass(frozen=True)
class Estimate:
    """The cost of a sweep if nothing is pruned, without the extractor's time and without the finals."""

    seconds: float
    """Seconds of all trials, one after the other."""
    concurrent: int
    """Trials at a time on this machine."""
    measured: int
    """Trials whose steps were measured."""
    trials: float
    """How many trials of mean length the budget allows, by its tightest limit."""
    devices: float
    """GPUs of a trial, or CPU cores if it has no GPU."""
    device: str
    """GPU or CPU."""
    price: float | None
    """The price of an hour of such a device; None if the sweep names none."""

    @property
    def hours(self) -> float:
        """Hours that the sweep takes on this machine."""
        return self.seconds / self.concurrent / HOUR

    @property
    def gpu_hours(self) -> float:
        """Hours of GPUs, or of CPU cores if trials have no GPU."""
        return self.seconds * self.devices / HOUR

    @property
    def money(self) -> float | None:
        """What the devices cost; None if the sweep names no price."""
        return None if self.price is None else self.gpu_hours * self.price

    def __str__(self) -> str:
        whole = _duration(self.seconds / self.concurrent)
        money = "" if self.money is None else f", {self.money:.2f} money"
        return (
            f"about {whole} on this machine ({self.concurrent} at a time, {_duration(self.seconds)} one after the "
            f"other) for {self.trials:.3g} trials, {self.gpu_hours:.3g} {self.device}-hours{money}, if nothing is "
            f"pruned; steps of {self.measured} trials measured, the extractor's time and the finals left out"
        )


def estimate(sweep: Sweep) -> Estimate:
    """Measures training steps of the planned trials of `sweep`; takes one second per trial or more."""
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
    each, concurrent = total / len(chosen), _concurrent(sweep)
    count = _affordable(sweep, each, concurrent)
    gpus = sweep.resources.gpus_per_worker
    return Estimate(
        seconds=each * count,
        concurrent=concurrent,
        measured=len(chosen),
        trials=count,
        devices=devices(sweep.resources),
        device="GPU" if gpus else "CPU",
        price=sweep.budget.price_per_gpu_hour,
    )


def _affordable(sweep: Sweep, seconds: float, concurrent: int) -> float:
    """How many trials of `seconds` each the budget allows."""
    budget, device_hours = sweep.budget, seconds * devices(sweep.resources) / HOUR
    each = {
        "trials": 1.0,
        "hours": seconds / concurrent / HOUR,
        "gpu_hours": device_hours,
        "money": device_hours * (budget.price_per_gpu_hour or 0.0),
    }
    given: dict[str, float] = {name: limit for name, limit in budget.model_dump().items() if name in each}
    return min(limit / each[name] for name, limit in given.items())


def _trial_seconds(sweep: Sweep, system_id: str, config: Config) -> float:
    system, device = SYSTEMS[system_id], pick_device()
    _, classes = shape_of(sweep.dataset)
    data = blank(system.shape, classes, config.batch)
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
    """How many trials run on this machine at once, at least 1; counted as `cluster.nodes` does, but without Ray."""
    want = sweep.resources
    fits = (os.cpu_count() or 1) / want.cpus_per_worker
    if want.gpu_share:
        fits = min(fits, torch.cuda.device_count() / want.gpu_share)
    fits /= want.workers_per_trial
    fewest = min(int(fits), want.concurrent_trials or int(fits), sweep.budget.trials or int(fits))
    return max(1, fewest)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
