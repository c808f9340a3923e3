"""Builds what a process trains and scores with, from a sweep and the parameters of a trial."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from search_spaces.sweep import Sweep, read_kept
from trainers.catalogue import SYSTEMS
from trainers.data.catalogue import load
from trainers.data.images import ImageData
from trainers.evaluation.evaluator import Evaluator
from trainers.evaluation.extractors import build_extractor
from trainers.evaluation.reference import reference_of
from trainers.parallel.group import ALONE, Parallel
from trainers.run import Run, pick_device


def new_run(sweep: Sweep, cache: Path, params: dict[str, Any], parallel: Parallel = ALONE) -> Run:
    """A new run of a trial, without its checkpoint, for one of the trial's workers."""
    system_id, config = sweep.configure(params)
    device = pick_device()
    train, evaluator = _prepared(sweep.normalised(), cache, device)
    rungs, samples = sweep.rungs, sweep.score.samples
    return Run(
        system_id,
        SYSTEMS[system_id],
        config,
        train,
        evaluator,
        rungs,
        samples,
        device,
        parallel=parallel,
        batch_norm=sweep.resources.batch_norm,
    )


@lru_cache(maxsize=1)
def _prepared(sweep_text: str, cache: Path, device: str) -> tuple[ImageData, Evaluator]:
    # Cached for the next trial of this process: data, extractor and reference are the same for all trials of a sweep.
    sweep = read_kept(sweep_text)
    return prepare_scoring(sweep, cache, device)


def prepare_scoring(sweep: Sweep, cache: Path, device: str) -> tuple[ImageData, Evaluator]:
    """The training images and the evaluator of a sweep; trains or downloads the extractor if `cache` lacks it."""
    train, test = (load(sweep.dataset, split, cache) for split in ("train", "test"))
    extractor = build_extractor(sweep.score.extractor, train, test, cache, device)
    reference = reference_of(extractor, train, cache)
    return train, Evaluator(extractor, reference, sweep.metrics, sweep.score.seed)
