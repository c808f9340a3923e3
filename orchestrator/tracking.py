"""MLflow as a view of the study: a parent run for the sweep, a child for each trial. The only home of mlflow.

The driver alone writes. What is already there is never written twice, so a continued sweep adds only what is new.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from PIL import Image

from orchestrator.finals import Final
from orchestrator.status import SweepStatus
from orchestrator.study import TrialRecord
from search_spaces.sweep import Sweep
from trainers.evaluation.scores import METRICS
from trainers.run import Rung

_SWEEP, _TRIAL, _STATE, _REASON, _PARENT = (
    "gansweep.sweep",
    "gansweep.trial",
    "gansweep.state",
    "gansweep.reason",
    "mlflow.parentRunId",
)
_STATUS = {"running": "RUNNING", "complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
GRIDS = "samples"

# The migrations of a new database are nobody's business.
logging.getLogger("alembic").setLevel(logging.WARNING)


def database(root: Path) -> str:
    """URI of the tracking database of all sweeps below `root`."""
    return f"sqlite:///{(root / 'mlflow.db').resolve()}"


def artifacts(root: Path) -> Path:
    """Folder of the tracker's artifacts of all sweeps below `root`."""
    return (root / "mlartifacts").resolve()


class Tracker:
    """Writes one sweep's runs."""

    def __init__(self, root: Path, sweep: Sweep) -> None:
        self._sweep = sweep
        self._client = MlflowClient(sweep.tracking.uri or database(root))
        self._experiment = self._open_experiment(sweep.name, artifacts(root) / sweep.name)
        self._trials: dict[int, str] = {}
        self._written: dict[int, set[int]] = {}
        self._states: dict[int, str] = {}
        self._finals: set[int] = set()
        """Trials whose run has the final's scores."""
        found = self._client.search_runs([self._experiment], max_results=50_000)
        parents = [run for run in found if _SWEEP in run.data.tags]
        if parents:
            self._parent = parents[0].info.run_id
            self._client.update_run(self._parent, status="RUNNING")
        else:
            tags = {_SWEEP: sweep.name, "mlflow.runName": sweep.name}
            self._parent = self._client.create_run(self._experiment, tags=tags).info.run_id
            self._client.log_text(self._parent, sweep.normalised(), "sweep.yaml")
        self._known = {int(run.data.tags[_TRIAL]): run for run in found if _TRIAL in run.data.tags}

    def sync(self, record: TrialRecord, grids: dict[int, Path]) -> None:
        """Brings the trial's run up to `record`; `grids` are its sample pictures by images trained."""
        run_id = self._run(record)
        written = self._written[record.number]
        for rung in record.rungs:
            if rung.images in written:
                continue
            best = _best_until(record.rungs, rung)
            stamp = int(time.time() * 1000)
            values = {**{name: score.value for name, score in rung.scores.items()}, **best, **rung.losses}
            values |= {f"{name}_se": score.stderr for name, score in rung.scores.items() if score.stderr is not None}
            if rung.images in grids:
                picture = np.asarray(Image.open(grids[rung.images]))
                self._client.log_image(run_id, picture, key=GRIDS, step=rung.images, synchronous=True)
            # Metrics last: a step that has them is known to be whole.
            self._client.log_batch(run_id, metrics=[Metric(k, v, stamp, rung.images) for k, v in values.items()])
            written.add(rung.images)
        if record.final is not None and record.number not in self._finals:
            self._client.log_batch(run_id, metrics=_final_metrics(record.final))
            self._finals.add(record.number)
        if record.state != self._states[record.number]:
            self._states[record.number] = record.state
            if record.reason:
                self._client.set_tag(run_id, _REASON, record.reason)
            self._client.set_terminated(run_id, status=_STATUS[record.state])
            self._client.set_tag(run_id, _STATE, record.state)  # last: a run that has it is known to be ended

    def finish(self, status: SweepStatus, report: Path) -> None:
        """Ends the parent run with the winner's scores and the report; an interrupted sweep's run stays KILLED."""
        self._client.log_artifact(self._parent, str(report))
        best = status.best
        if best is not None and best.best is not None:
            self._client.set_tag(self._parent, "gansweep.best_trial", str(best.number))
            done = sum(status.counts.values())
            scores = {f"best_{name}": score.value for name, score in best.best.scores.items()}
            if done not in {p.step for p in self._client.get_metric_history(self._parent, f"best_{status.metric}")}:
                stamp = int(time.time() * 1000)
                self._client.log_batch(self._parent, metrics=[Metric(k, v, stamp, done) for k, v in scores.items()])
        self._client.set_terminated(self._parent, status="FINISHED" if status.state == "complete" else "KILLED")

    def _open_experiment(self, name: str, folder: Path) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        # Without its kind the user interface opens on pages for language models.
        kind = {"mlflow.experimentKind": "custom_model_development"}
        return str(self._client.create_experiment(name, artifact_location=folder.as_uri(), tags=kind))

    def _run(self, record: TrialRecord) -> str:
        if record.number in self._trials:
            return self._trials[record.number]
        if (run := self._known.get(record.number)) is not None:
            run_id = run.info.run_id
            history = self._client.get_metric_history(run_id, "images_per_s")
            self._written[record.number] = {point.step for point in history}
            self._states[record.number] = run.data.tags.get(_STATE, "running")
            if "final_fid" in run.data.metrics:
                self._finals.add(record.number)
            if record.state == "running":
                self._client.update_run(run_id, status="RUNNING")
        else:
            tags = {_TRIAL: str(record.number), _PARENT: self._parent, "mlflow.runName": f"trial {record.number}"}
            run_id = self._client.create_run(self._experiment, tags=tags).info.run_id
            self._written[record.number] = set()
            self._states[record.number] = "running"
        system_id, config = self._sweep.configure(record.params)
        values = {"system": system_id, "dataset": self._sweep.dataset.name, **config.model_dump()}
        params = [Param(key, str(value)) for key, value in values.items()]
        self._client.log_batch(run_id, params=params)
        self._trials[record.number] = run_id
        return str(run_id)


def _final_metrics(final: Final) -> list[Metric]:
    values = {f"final_{name}": score.value for name, score in final.ours.items()}
    values |= {f"final_{name}_se": score.stderr for name, score in final.ours.items() if score.stderr is not None}
    values |= {f"final_cleanfid_{name}": score.value for name, score in final.official.items()}
    stamp = int(time.time() * 1000)
    return [Metric(name, value, stamp, final.images) for name, value in values.items()]


def _best_until(rungs: tuple[Rung, ...], last: Rung) -> dict[str, float]:
    best = {}
    for name, metric in METRICS.items():
        values = [rung.scores[name].value for rung in rungs if rung.images <= last.images and name in rung.scores]
        if values:
            best[f"best_{name}"] = min(values) if metric.minimise else max(values)
    return best
