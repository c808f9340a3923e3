"""What holds after any fault: nothing lost, nothing twice, and the result of the undisturbed sweep."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient

from orchestrator.paths import mlflow_uri
from orchestrator.store import TrialStore, store_of
from orchestrator.study.records import TrialRecord
from orchestrator.study.study import SweepStudy
from tests.support import sweeps
from trainers.checkpoint import images_of

TRIALS, RUNGS = 4, 4
IMAGES = [500 * (index + 1) for index in range(RUNGS)]
#: Deterministic whatever happens: parameters depend on the position alone, and no trial depends on another.
TEXT = sweeps.TINY.replace("pruner: {name: median, startup: 2}", "sampler: random\npruner: none").replace(
    "trials: 5", f"trials: {TRIALS}"
)


def scores_of(records: Sequence[TrialRecord]) -> str:
    """Everything that was measured, as text: parameters, rungs and scores, without times."""
    return json.dumps(
        [
            [record.state, record.params, [[r.images, {k: s.value for k, s in r.scores.items()}] for r in record.rungs]]
            for record in records
        ],
        indent=0,
    )


def violations(folder: Path, undisturbed: str) -> Iterator[str]:
    """What is wrong with the sweep in `folder`, in words; nothing where all laws hold."""
    study = SweepStudy.open(folder)
    if study is None:
        yield "there is no study"
        return
    records = study.records()
    if [record.number for record in records] != list(range(TRIALS)):
        yield f"trials {[record.number for record in records]}, not {TRIALS}"
    if running := [record.number for record in records if record.state in ("running", "paused")]:
        yield f"trials {running} are left running"
    if scores_of(records) != undisturbed:
        yield "the result is not that of the undisturbed sweep"
    for record in records:
        images = [rung.images for rung in record.rungs]
        if images != IMAGES:
            yield f"trial {record.number} has rungs at {images}"
    yield from _unstored(study, records)
    yield from _untracked(study, records)


def _unstored(study: SweepStudy, records: Sequence[TrialRecord]) -> Iterator[str]:
    """Checkpoints and samples that the store lacks, and what never came there."""
    store = store_of(study.sweep, study.folder)
    if waiting := store.spool.waiting():
        yield f"the spool still has {waiting}"
    with TemporaryDirectory() as scratch:  # what the driver has fetched before proves nothing
        store = TrialStore(store.objects, Path(scratch), study.sweep.store)
        store.patience = 60
        for record in records:
            with store.newest(record.number) as newest:
                if newest is None or images_of(newest.name) != IMAGES[-1]:
                    yield f"trial {record.number}: the newest whole checkpoint is {newest and newest.name}"
            if (grids := list(store.grids(record.number))) != IMAGES:
                yield f"trial {record.number} has samples at {grids}"


def _untracked(study: SweepStudy, records: Sequence[TrialRecord]) -> Iterator[str]:
    """Points that MLflow lacks or has twice."""
    client = MlflowClient(study.sweep.tracking.uri or mlflow_uri(study.folder.parent))
    experiment = client.get_experiment_by_name(study.sweep.name)
    if experiment is None:
        yield "MLflow has no experiment"
        return
    runs = client.search_runs([experiment.experiment_id])
    children = {int(run.data.tags["gansweep.trial"]): run for run in runs if "gansweep.trial" in run.data.tags}
    if len(runs) != len(records) + 1 or sorted(children) != [record.number for record in records]:
        yield f"MLflow has {len(runs)} runs, of trials {sorted(children)}"
        return
    if running := [run.info.run_name for run in runs if run.info.status == "RUNNING"]:
        yield f"MLflow: {', '.join(running)} left running"
    for record in records:
        run = children[record.number].info.run_id
        for metric in ("kid", "images_per_s"):
            steps = [point.step for point in client.get_metric_history(run, metric)]
            if sorted(steps) != IMAGES:
                yield f"MLflow: trial {record.number} has {metric} at {steps}"
        pictures = [file.path.split("+")[2] for file in client.list_artifacts(run, "images") if _is_whole(file.path)]
        if sorted(map(int, pictures)) != IMAGES:
            yield f"MLflow: trial {record.number} has pictures at {pictures}"


def _is_whole(path: str) -> bool:
    return path.endswith(".png")
