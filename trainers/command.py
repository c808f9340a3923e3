"""What `python -m trainers` does with its options."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from trainers import checkpoint
from trainers.advice import warnings_of
from trainers.catalogue import SYSTEMS
from trainers.command_line import prints_progress
from trainers.config import KIMG, configure
from trainers.data.catalogue import check, counts_of, load_both, shape_of, sized
from trainers.data.spec import DatasetSpec, colour_option, read_spec
from trainers.errors import InputError
from trainers.evaluation.evaluator import Evaluator
from trainers.evaluation.extractors import build_extractor, check_extractor
from trainers.evaluation.reference import reference_of, unmeasurable
from trainers.evaluation.scores import METRICS, TOO_SLOW
from trainers.evaluation.spec import INCEPTIONS, ExtractorSpec
from trainers.gan import System
from trainers.names import NETWORKS
from trainers.run import Run, pick_device
from trainers.rungs import Rung

#: What the inception score needs, and enough for a row of samples.
FEWEST_SAMPLES = 20
DEFAULT_DATASETS = {1: "mnist-mini", 3: "cifar10"}
"""By the number of channels; images are fitted to the system's size."""


def train(options: argparse.Namespace) -> int:
    """Trains, scores and saves rung by rung; returns the exit code: 2 for bad input, 130 after Ctrl-C."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    prints_progress()
    try:
        run = _prepare(options)
        print(
            f"{options.system} on {run.device}, {run.trainer.images / KIMG:g} of {run.config.kimg:g} kimg done",
            flush=True,
        )
        while not run.finished:
            rung = run.next_rung()
            run.save(options.out)  # before it is told: what was printed is not lost
            print(_line(rung), flush=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    print(f"checkpoints and samples are in {options.out}")
    return 0


def _prepare(options: argparse.Namespace) -> Run:
    system = _system(options.system)
    options.out = options.out or Path("runs/train") / options.system
    dataset = _dataset(options, system)
    settings = _settings(options.set)
    if "kimg" in settings:
        raise InputError(f"--set kimg={settings['kimg']}: the length of the run is --kimg")
    config = configure(system.defaults, {**settings, "kimg": options.kimg}, "--set")
    if options.samples < FEWEST_SAMPLES:
        raise InputError(f"--samples {options.samples}: allowed are {FEWEST_SAMPLES} or more")
    counts = counts_of(dataset)
    if config.sampling != "random" and config.batch > max(sum(counts), config.oversampling):
        raise InputError(
            f"--set: batch {config.batch} is larger than the {sum(counts)} training images of {dataset.name}"
        )
    metrics = _metrics(options, system, counts)
    if options.out.exists() and not options.out.is_dir():
        raise InputError(f"--out {options.out}: is not a folder")
    rungs = _rungs(options.every, config.kimg, config.batch)
    if options.extractor not in NETWORKS:
        raise InputError(f"--extractor {options.extractor}: unknown; allowed are {', '.join(NETWORKS)}")
    extractor_spec = ExtractorSpec(name=options.extractor)
    check_extractor(extractor_spec, options.cache)
    for warning in warnings_of(system, config):
        print(f"warning: {warning}", file=sys.stderr)
    train, test = load_both(dataset, options.cache)
    for notice in train.notices:
        print(f"warning: {notice}", file=sys.stderr)
    device = pick_device()
    extractor = build_extractor(extractor_spec, train, test, options.cache, device)
    evaluator = Evaluator(extractor, reference_of(extractor, train, options.cache), metrics, seed=0)
    run = Run(options.system, system, config, train, evaluator, rungs, options.samples, device)
    try:
        run.restore(options.out)
    except (ValueError, RuntimeError, checkpoint.CheckpointError) as error:
        raise InputError(f"--out {options.out}: {error}; name another folder or remove this one") from error
    options.out.mkdir(parents=True, exist_ok=True)  # before the first rung, which may take hours
    return run


def _system(name: str) -> System:
    if name not in SYSTEMS:
        raise InputError(f"unknown system {name!r}; allowed are {', '.join(SYSTEMS)}")
    return SYSTEMS[name]


def _dataset(options: argparse.Namespace, system: System) -> DatasetSpec:
    """The data set that the options name. Raises InputError if it does not suit the system."""
    name = options.dataset or DEFAULT_DATASETS[system.shape[0]]
    fit = options.fit or options.dataset is None
    dataset = read_spec(
        name,
        path=options.data,
        fit=fit,
        size=options.size,
        verify=not options.no_verify,
        background=colour_option(options.background),
        skip_damaged=options.skip_damaged,
    )
    dataset = sized(dataset, *system.shape[1:])
    check(dataset)
    shape, classes = shape_of(dataset)
    if shape != system.shape and not fit:
        same = f" or --size {system.shape[1]}" if dataset.size and shape[0] == system.shape[0] else ""
        text = f"images are {shape}, but {options.system} makes {system.shape}"
        raise InputError(f"--dataset {name}: {text}; add --fit{same}")
    if system.conditional and classes < 2:
        raise InputError(f"--dataset {name}: has one class, but {options.system} is conditional and needs two or more")
    return dataset


def _metrics(options: argparse.Namespace, system: System, counts: Sequence[int]) -> tuple[str, ...]:
    """The metrics that the options name. Raises InputError for one that has no value in this run."""
    names = tuple(options.metrics.split(","))
    if unknown := [name for name in names if name not in METRICS]:
        raise InputError(f"--metrics {','.join(unknown)}: unknown; allowed are {', '.join(METRICS)}")
    for metric in (METRICS[name] for name in names):
        reason = unmeasurable(metric.name, counts)
        if metric.needs_test:
            reason = f"{metric.name} {TOO_SLOW}"
        elif metric.needs_labels and not system.conditional:
            reason = f"{metric.name} needs a conditional system, which {options.system} is not"
        elif metric.needs_logits and options.extractor in INCEPTIONS:
            reason = f"{metric.name} needs a classifier's logits; {options.extractor} gives none, lenet does"
        elif metric.within_classes and options.samples < (fewest := metric.fewest * len(counts)):
            reason = f"{metric.name} needs at least --samples {fewest} for {len(counts)} classes"
        if reason:
            raise InputError(f"--metrics {options.metrics}: {reason}")
    return names


def _settings(pairs: Sequence[str]) -> dict[str, object]:
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set {pair}: expected KEY=VALUE")
        try:
            settings[key] = json.loads(value)
        except ValueError:
            settings[key] = value  # a word; the configuration judges it
    return settings


def _rungs(every: float, until: float, batch: int) -> list[int]:
    step, last = (round(length * KIMG) if math.isfinite(length) else 0 for length in (every, until))
    if step <= 0 or step % batch or last % step:
        raise InputError(
            f"--every {every:g}: must be a positive number of kimg that divides --kimg {until:g} "
            f"and is a whole number of batches of {batch}"
        )
    return list(range(step, last + 1, step))


def _line(rung: Rung) -> str:
    parts = [f"{rung.images / KIMG:>8g} kimg"]
    parts += [f"{name} {score}" for name, score in rung.scores.items()]
    parts += [f"{name} {value:.4g}" for name, value in rung.losses.items()]
    return "  ".join([*parts, f"diverged: {rung.diverged}"] if rung.diverged else parts)
