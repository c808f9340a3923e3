"""What holds after any fault: nothing lost, nothing twice, and the result of the undisturbed sweep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from mlflow import MlflowClient

from orchestrator.records import TrialRecord
from orchestrator.tracking import database
from tests import sweeps
from trainers import checkpoint

NAME = "tiny"
TRIALS, RUNGS = 4, 4
#: Deterministic whatever happens: parameters depend on the position alone, and no trial depends on another.
TEXT = sweeps.TINY.replace("pruner: {name: median, startup: 2}", "sampler: random\npruner: none").replace(
    "trials: 5", f"trials: {TRIALS}"
)


def scores_of(records: list[TrialRecord]) -> str:
    """Everything that was measured, as text: parameters, rungs and scores, without times."""
    return json.dumps(
        [
            [record.state, record.params, [[r.images, {k: s.value for k, s in r.scores.items()}] for r in record.rungs]]
            for record in records
        ],
        indent=0,
    )


def violations(place: Path, undisturbed: str) -> Iterator[str]:
    """What is wrong with the sweep below `place`, in words; nothing where all laws hold."""
    folder = place / "runs" / NAME
    records = sweeps.records(folder)
    if [record.number for record in records] != list(range(TRIALS)):
        yield f"trials {[record.number for record in records]}, not {TRIALS}"
    if running := [record.number for record in records if record.state in ("running", "paused")]:
        yield f"trials {running} are left running"
    if scores_of(records) != undisturbed:
        yield "the result is not that of the undisturbed sweep"
    for record in records:
        images = [rung.images for rung in record.rungs]
        if images != [500 * (index + 1) for index in range(RUNGS)]:
            yield f"trial {record.number} has rungs at {images}"
        newest = checkpoint.newest(folder / f"store/trials/{record.number:05d}/checkpoints")
        if newest is None or int(newest.name) != 500 * RUNGS:
            yield f"trial {record.number}: the newest whole checkpoint is {newest and newest.name}"
    yield from _untracked(place, records)


def _untracked(place: Path, records: list[TrialRecord]) -> Iterator[str]:
    """Points that MLflow lacks or has twice."""
    client = MlflowClient(database(place / "runs"))
    experiment = client.get_experiment_by_name(NAME)
    if experiment is None:
        yield "MLflow has no experiment"
        return
    runs = client.search_runs([experiment.experiment_id])
    children = {int(run.data.tags["gansweep.trial"]): run for run in runs if "gansweep.trial" in run.data.tags}
    if len(runs) != len(records) + 1 or sorted(children) != [record.number for record in records]:
        yield f"MLflow has {len(runs)} runs, of trials {sorted(children)}"
        return
    for record in records:
        run = children[record.number]
        if run.info.status == "RUNNING":
            yield f"MLflow: trial {record.number} is left running"
        for metric in ("kid", "images_per_s"):
            steps = [point.step for point in client.get_metric_history(run.info.run_id, metric)]
            if sorted(steps) != [rung.images for rung in record.rungs]:
                yield f"MLflow: trial {record.number} has {metric} at {steps}"
