"""Finals: the best trials are scored again on as many images as published scores, by our code and by clean-fid's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from orchestrator.cluster import signals
from orchestrator.cluster.listener import Listener
from orchestrator.cluster.nodes import Capacity
from orchestrator.cluster.runs import Origin, prepared
from orchestrator.decisions.failures import MOST_FAILURES, failure_of, raised, reason_to_end_sweep
from orchestrator.store import store_of
from orchestrator.study.inputs import Inputs
from orchestrator.study.records import Final, TrialRecord
from orchestrator.study.study import SweepStudy
from search_spaces.sweep import read_kept
from trainers.errors import InputError
from trainers.evaluation.official import official_scores
from trainers.run import pick_device
from trainers.tools.score import from_checkpoint

METRICS = ("fid", "kid")


def score_final(sweep_text: str, folder: Path, cache: Path, inputs: Inputs | None, number: int, images: int) -> Final:
    """Scores the checkpoint of trial `number` after `images` images; `folder` is the sweep's, `inputs` its study's.

    The noise begins with that of the rungs' scores, and goes on, since there are more samples. Raises InputError if the
    checkpoint is missing or damaged, and as `prepared`.
    """
    start, sweep, device = time.perf_counter(), read_kept(sweep_text), pick_device()
    train, evaluator, _ = prepared(sweep_text, cache, device, Origin(inputs, folder) if inputs else None)
    with store_of(sweep, folder).at(number, images) as checkpoint:
        made = from_checkpoint(checkpoint, train, sweep.finals.samples, evaluator.seed)
    ours = evaluator(made.images, made.labels, metrics=METRICS).scores
    official = official_scores(
        made.images,
        evaluator.extractor,
        sweep.score.extractor,
        evaluator.reference,
        cache,
        evaluator.seed,
        device,
    )
    return Final(images, ours, official, time.perf_counter() - start)


@signals.uninterrupted  # the study is not interrupted while it writes
def run_finals(
    study: SweepStudy, cache: Path, capacity: Capacity, finalists: Sequence[TrialRecord], listener: Listener
) -> None:
    """Scores the best checkpoints of `finalists` on the cluster, each with the resources of a trial's worker.

    Needs a started cluster. The study keeps each final as soon as it is done, and the reason of each that fails. Ends
    early if the study is leaving, and with KeyboardInterrupt after a signal. Raises InputError if no final can be
    scored: a disk is full, or a node has other inputs than the study.
    """
    want = capacity.want
    task = ray.remote(num_cpus=want.cpus_per_worker, num_gpus=want.gpu_share, max_retries=MOST_FAILURES - 1)(
        score_final
    )
    common = study.sweep.normalised(), study.folder.resolve(), cache.resolve(), study.inputs.recorded
    waiting = [(record.number, record.best.images) for record in finalists if record.best]
    running: dict[Any, int] = {}
    while (waiting or running) and not study.limits.leaving:
        signals.check()
        while waiting and len(running) < capacity.trials(idle=not running):
            number, images = waiting.pop(0)
            running[task.remote(*common, number, images)] = number
        ready, _ = ray.wait([*running], timeout=1)
        study.refresh()
        for done in ready:
            number = running.pop(done)
            try:
                final = ray.get(done)
            except RayError as error:
                signals.check_death()
                if reason := reason_to_end_sweep(failure_of(1, str(error))):
                    raise InputError(f"sweep {study.sweep.name}: final of trial {number}: {reason}") from None
                study.fail_final(number, raised(str(error)))
            else:
                study.record_final(number, final)
            listener.scored(number)
