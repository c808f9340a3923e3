"""Builds what a process trains and scores with, from a sweep and the parameters of a trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.cluster.nodes import this_node
from orchestrator.store import UnavailableError, store_of
from orchestrator.store.extractors import fetch_weights, keep_weights
from orchestrator.study.inputs import Inputs, OtherInputsError, inputs_of
from orchestrator.study.study import SweepStudy
from search_spaces.sweep import Sweep, read_kept
from trainers.catalogue import SYSTEMS
from trainers.data.catalogue import load_both
from trainers.data.images import ImageData, Images
from trainers.errors import InputError
from trainers.evaluation.classifier import Known
from trainers.evaluation.evaluator import Evaluator
from trainers.evaluation.extractors import build_extractor
from trainers.evaluation.reference import reference_of
from trainers.evaluation.spec import CLASSIFIERS
from trainers.parallel.group import ALONE, Parallel
from trainers.run import Run, pick_device


@dataclass(frozen=True)
class Origin:
    """The inputs of a study, and the sweep's folder, which leads to the store that has the trained extractor."""

    inputs: Inputs
    folder: Path


class Prepared(NamedTuple):
    """What a process trains and scores with."""

    train: ImageData
    evaluator: Evaluator
    inputs: Inputs


def new_run(
    sweep: Sweep, cache: Path, params: dict[str, Any], parallel: Parallel = ALONE, origin: Origin | None = None
) -> Run:
    """A new run of a trial, without its checkpoint, for one of the trial's workers. Raises as `prepared`."""
    system_id, config = sweep.configure(params)
    device = pick_device()
    train, evaluator, _ = prepared(sweep.normalised(), cache, device, origin)
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
def prepared(sweep_text: str, cache: Path, device: str, origin: Origin | None) -> Prepared:
    """What a process of a trial or of a final needs; `origin` is that of its study, None if there is no study.

    Raises OtherInputsError, which names the node of this process, if it finds other inputs than the study has.
    """
    # Cached for the next trial of this process: data, extractor and reference are the same for all trials of a sweep.
    sweep = read_kept(sweep_text)
    if origin is None:
        return _prepared(sweep, cache, device)
    try:
        weights = _weights(sweep, origin.folder, origin.inputs, required=True)
        return _prepared(sweep, cache, device, [origin.inputs], weights)
    except OtherInputsError as error:
        raise OtherInputsError(f"node {this_node()}: {error}") from None


def preparation(
    study: SweepStudy, cache: Path, earlier: Sequence[SweepStudy] = (), images: Images | None = None
) -> Callable[[], Prepared]:
    """The function that prepares what the driver of `study` needs; it may be called in another thread.

    `images` are those of its data; they are read if they are not given.

    A new study takes the trained extractor of the first of the `earlier` ones, if that was trained on the same images,
    so that their scores compare. The extractor is put into the store, from which other machines take it. The function
    raises InputError if there are other inputs than the study has, if the extractor is lost, or if the store does not
    answer.
    """
    sweep, known = study.sweep, study.inputs.known
    sources = [(each, inputs) for each in (study, *earlier) for inputs in each.inputs.known]
    weights = None
    if sources:
        first, inputs = sources[0]
        weights = _weights(first.sweep, first.folder, inputs, required=first is study)

    def prepare() -> Prepared:
        try:
            with _refused(sweep):
                found = _prepared(sweep, cache, pick_device(), known, weights, images)
            extractor = found.evaluator.extractor
            if sweep.score.extractor.name in CLASSIFIERS and extractor.weights is not None:
                keep_weights(store_of(sweep, study.folder).objects, extractor.sha256, extractor.weights)
        except UnavailableError as error:
            raise InputError(f"sweep {sweep.name}: the store does not answer: {error}") from None
        return found

    return prepare


def check_same_images(sweep: Sweep, images: Images, known: Sequence[Inputs]) -> None:
    """Raises InputError if `images`, the data of `sweep`, are not those that its study knows."""
    with _refused(sweep):
        for inputs in known:
            inputs.check_data(*images)


@contextmanager
def _refused(sweep: Sweep) -> Iterator[None]:
    """Says which sweep has other inputs, and what helps."""
    try:
        yield
    except OtherInputsError as error:
        text = "put back what the study has, or give this sweep another --name"
        raise InputError(f"sweep {sweep.name}: {error}; {text}") from None


def _prepared(
    sweep: Sweep,
    cache: Path,
    device: str,
    known: Sequence[Inputs] = (),
    weights: Known | None = None,
    images: Images | None = None,
) -> Prepared:
    """The training images and the evaluator of a sweep; trains or downloads the extractor if `cache` lacks it.

    A trained extractor has the `weights`, if they are given. Raises OtherInputsError if data, extractor or reference
    differ from any of `known`, and what `build_extractor` raises.
    """
    train, test = images or load_both(sweep.dataset, cache)
    for inputs in known:
        inputs.check_data(train, test)
    extractor = build_extractor(sweep.score.extractor, train, test, cache, device, weights)
    evaluator = Evaluator(extractor, reference_of(extractor, train, cache), sweep.metrics, sweep.score.seed)
    for inputs in known:
        inputs.check_scoring(evaluator)
    return Prepared(train, evaluator, inputs_of(train, test, evaluator))


def _weights(sweep: Sweep, folder: Path, inputs: Inputs, required: bool) -> Known:
    """The weights with which a study is scored; if they are required, one that has recorded them takes no others."""

    def fetch(sha256: str) -> bytes | None:
        try:
            return fetch_weights(store_of(sweep, folder).objects, sha256)
        except UnavailableError:
            if required:
                raise
            return None

    name, data = sweep.score.extractor.name, inputs.train.sha256
    return Known(name, data, inputs.weights, fetch, required and inputs.recorded)
