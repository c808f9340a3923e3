"""MLflow as a view of the study: one run for the sweep, and below it one for each trial.

Only the driver writes. Nothing is written twice: what a run has already is looked up, and the time of every point
follows from the study. If a server carries out a request whose answer was lost, and then its repetition, both points
are equal, and MLflow keeps one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking.multimedia import compress_image_size
from PIL import Image
from sqlalchemy.orm import Session

from orchestrator.paths import mlflow_artifacts, mlflow_lock, mlflow_uri
from orchestrator.store.spool import locked
from orchestrator.study.records import TrialRecord
from orchestrator.study.status import UNDER_WAY, SweepStatus
from orchestrator.tracking.address import is_database, tracking_uri
from orchestrator.tracking.database import add_history, one_transaction
from orchestrator.tracking.interface import SampleGrids
from orchestrator.tracking.sqlite_file import check_file
from orchestrator.tracking.values import (
    failure_text,
    final_values,
    known_picture,
    milliseconds,
    picture_name,
    rung_values,
    stamp,
)
from search_spaces.addresses import with_driver
from search_spaces.sweep import Sweep
from trainers.rungs import Rung

_SWEEP, _STUDY, _TRIAL, _STATE, _REASON, _BEST, _WINNER, _PARETO = (
    f"gansweep.{name}" for name in ("sweep", "study", "trial", "state", "reason", "best_trial", "winner", "pareto")
)
_PARENT, _NAME, _HAS_IMAGES = "mlflow.parentRunId", "mlflow.runName", "mlflow.loggedImages"
_STATUS = {"running": "RUNNING", "paused": "SCHEDULED", "complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
#: A metric of every rung that trained anything: its history shows which rungs a run has.
_IN_EVERY_RUNG = "images_per_s"
#: MLflow refuses more in one request.
_MOST_METRICS = 1000
_PAGE = 1000
ALIAS = "best"
#: The artifact that explains why a trial failed.
FAILURE = "failure.txt"

# Alembic prints each migration of a new database.
logging.getLogger("alembic").setLevel(logging.WARNING)


def check_server(uri: str) -> None:
    """Lists one experiment of the server at `uri`. Raises what MLflow and its connections raise if that fails."""
    MlflowClient(uri).search_experiments(max_results=1)


@dataclass
class _Run:
    """What is known about one run of the tracker."""

    id: str
    status: str = "RUNNING"
    state: str | None = None
    """The state of a trial that has ended and is written completely, else None."""
    on_front: bool = False
    """Whether the run is marked as one of the Pareto front."""
    has_params: bool = False
    has_final: bool = False
    written: set[int] | None = field(default_factory=set)
    """Images of the rungs that the run has; None if that was not looked up yet."""
    pictures: set[str] | None = field(default_factory=set)
    """Names of the sample grids that were there when this process found the run; None if that was not looked up yet."""
    without_grid: set[int] = field(default_factory=set)
    """Images of the rungs whose sample grid the store could not give yet."""


class Tracker:
    """Writes the runs of one study to MLflow. `study_id` distinguishes studies of the same name.

    A `thorough` tracker also looks up what the runs have that are marked as complete. Every method may raise what
    MLflow and its connections raise.
    """

    def __init__(self, root: Path, sweep: Sweep, study_id: str, thorough: bool = False) -> None:
        self._sweep, self._study, self._thorough = sweep, study_id, thorough
        self._session: Session | None = None
        uri = with_driver(tracking_uri(sweep, root))
        # Two drivers that create the same SQLite database at once break it.
        with locked(mlflow_lock(root)):
            if uri == mlflow_uri(root):
                check_file(root, sweep.name)
            self._client = MlflowClient(uri, registry_uri=uri)
            self._experiment = self._open_experiment(_artifact_location(root, sweep, uri))
        parents, self._runs = self._find()
        if parents:
            self._parent = parents[0]
            self._client.update_run(self._parent, status="RUNNING")
        else:
            tags = {_SWEEP: sweep.name, _STUDY: study_id, _NAME: sweep.name}
            self._parent = self._client.create_run(self._experiment, tags=tags).info.run_id
        self._client.log_text(self._parent, sweep.normalised(), "sweep.yaml")

    @contextmanager
    def together(self) -> Iterator[None]:
        """One transaction, if MLflow has a database without a server. `register` must not be called in it."""
        with one_transaction(self._client) as self._session:
            try:
                yield
            finally:
                self._session = None

    def sync(self, record: TrialRecord, grids: SampleGrids) -> None:
        """Writes what the run of the trial lacks of `record`; `grids` finds its sample grids."""
        run = self._runs.get(record.number) or self._begin(record)
        ended = record.state not in UNDER_WAY
        whole = run.state == record.state and run.status == _STATUS[record.state]
        if whole and (run.has_final or record.final is None) and not run.without_grid and not self._thorough:
            return
        if run.written is None:
            run.written = {point.step for point in self._client.get_metric_history(run.id, _IN_EVERY_RUNG)}
        missing = [rung for rung in record.rungs if rung.images not in run.written]
        pictures = self._log_pictures(run, record, missing, grids)
        unwritten = [each for each in rung_values(record) if each[0].images not in run.written]
        metrics = [_points(values, at, rung.images) for rung, at, values in unwritten]
        if record.final is not None and not run.has_final:
            ended_at = stamp(record) + round(1000 * record.final.seconds)
            metrics.append(_points(final_values(record.final), ended_at, record.final.images))
        if record.state == "failed" and (run.state != "failed" or self._thorough):
            self._client.log_text(run.id, failure_text(record), FAILURE)
        tags = {_HAS_IMAGES: "True"} if pictures else {}
        if ended and run.state != record.state:
            # MLflow writes the tags of a request last: a run with this tag is complete.
            tags |= {_STATE: record.state, **({_REASON: record.reason} if record.reason else {})}
        self._log(run, record, metrics, tags)
        run.written |= {rung.images for rung in missing}
        run.has_final = run.has_final or record.final is not None
        if ended:
            run.state = record.state
        self._set_status(run, record)

    def mark(self, front: Sequence[int]) -> None:
        """Marks the runs of the trials `front` as the Pareto front, and no others: a later trial may dominate one."""
        for number, run in self._runs.items():
            if run.on_front and number not in front:
                self._client.delete_tag(run.id, _PARETO)
            elif not run.on_front and number in front:
                self._client.set_tag(run.id, _PARETO, "true")
            run.on_front = number in front

    def finish(self, status: SweepStatus, report: Path) -> None:
        """Ends the sweep's run with the winner's scores and the report: FINISHED, FAILED, or KILLED if it may go on."""
        self._undo_late_requests(status.records)
        self.mark(status.pareto)
        self._client.log_artifact(self._parent, str(report))
        best = status.best
        if best is not None and best.best is not None:
            self._client.set_tag(self._parent, _BEST, str(best.number))
            done = sum(status.counts.values())
            if done not in {p.step for p in self._client.get_metric_history(self._parent, f"best_{status.metric}")}:
                scores = {f"best_{name}": score.value for name, score in best.best.scores.items()}
                latest = max(stamp(record) for record in status.records)
                self._client.log_batch(self._parent, metrics=_points(scores, latest, done))
        ends = {"complete": "FINISHED", "failed": "FAILED"}
        self._client.set_terminated(self._parent, status=ends.get(status.state, "KILLED"))

    def register(self, winner: TrialRecord, checkpoint: Path) -> None:
        """Makes `checkpoint`, the folder of the winner's best rung, the best version of the sweep's model.

        There is one version for each winner, with a copy of the checkpoint among the artifacts of its run.
        """
        name, run = self._sweep.name, self._runs[winner.number]
        mark = f"{self._study} {winner.number} {checkpoint.name}"
        try:
            self._client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self._client.create_registered_model(name)
        versions = self._client.search_model_versions(f"name = '{name}'")
        known, *others = [each for each in versions if each.tags.get(_WINNER) == mark] or [None]
        for each in others:
            self._client.delete_model_version(name, each.version)
        if known is None:
            place = f"checkpoints/{checkpoint.name}"
            self._client.log_artifacts(run.id, str(checkpoint), place)
            source = f"{self._client.get_run(run.id).info.artifact_uri}/{place}"
            tags = {_WINNER: mark, _SWEEP: name, _TRIAL: str(winner.number)}
            known = self._client.create_model_version(name, source, run.id, tags=tags)
        self._client.set_registered_model_alias(name, ALIAS, known.version)

    def _open_experiment(self, location: str | None) -> str:
        experiment = self._client.get_experiment_by_name(self._sweep.name)
        if experiment is None:
            # Without this tag the user interface opens pages for language models.
            kind = {"mlflow.experimentKind": "custom_model_development"}
            return str(self._client.create_experiment(self._sweep.name, artifact_location=location, tags=kind))
        if experiment.lifecycle_stage == "deleted":
            self._client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _find(self) -> tuple[list[str], dict[int, _Run]]:
        """The sweep's run id, in a list that is empty if there is none, and the runs of the trials by number.

        If an answer was lost, there may be several runs of one trial: one is kept, the others are deleted.
        """
        found: dict[int | None, list[Any]] = {}
        for run in self._listed():
            trial = run.data.tags.get(_TRIAL)
            found.setdefault(None if trial is None else int(trial), []).append(run)
        chosen = {number: self._keep_one(runs) for number, runs in found.items()}
        parents = [chosen.pop(None).info.run_id] if None in chosen else []
        for run in chosen.values():
            if parents and run.data.tags.get(_PARENT) != parents[0]:  # the parent was another one, which is deleted now
                self._client.set_tag(run.info.run_id, _PARENT, parents[0])
        return parents, {number: _found(run) for number, run in chosen.items() if number is not None}

    def _listed(self) -> Iterator[Any]:
        """All runs of this study, page by page."""
        mine, token = f"tags.`{_STUDY}` = '{self._study}'", None
        while True:
            page = self._client.search_runs([self._experiment], mine, max_results=_PAGE, page_token=token)
            yield from page
            if not (token := page.token):
                return

    def _keep_one(self, runs: Sequence[Any]) -> Any:
        best, *others = sorted(runs, key=lambda run: (-len(run.data.metrics) - len(run.data.params), run.info.run_id))
        for run in others:
            self._client.delete_run(run.info.run_id)
        return best

    def _begin(self, record: TrialRecord) -> _Run:
        tags = {_TRIAL: str(record.number), _STUDY: self._study, _PARENT: self._parent}
        tags[_NAME] = f"trial {record.number}"
        begun = self._client.create_run(self._experiment, start_time=milliseconds(record.started), tags=tags)
        run = self._runs[record.number] = _Run(begun.info.run_id)
        return run

    def _log(self, run: _Run, record: TrialRecord, metrics: Sequence[Sequence[Metric]], tags: dict[str, str]) -> None:
        """Logs whole rungs in as few requests as possible, the tags in the last one."""
        params: list[Param] = []
        if not run.has_params and record.params_known:
            system_id, config = self._sweep.configure(record.params)
            values = {"system": system_id, "dataset": self._sweep.dataset.name, **config.model_dump()}
            params = [Param(key, str(value)) for key, value in values.items()]
        if self._session is not None:
            metrics = [
                add_history(self._client, self._session, run.id, [point for points in metrics for point in points])
            ]
        batch: list[Metric] = []
        for points in metrics:
            if len(batch) + len(points) > _MOST_METRICS:
                self._client.log_batch(run.id, metrics=batch)
                batch = []
            batch += points
        if batch or params or tags:
            pairs = [RunTag(key, value) for key, value in tags.items()]
            self._client.log_batch(run.id, metrics=batch, params=params, tags=pairs)
        run.has_params = record.params_known

    def _log_pictures(self, run: _Run, record: TrialRecord, missing: Sequence[Rung], grids: SampleGrids) -> bool:
        """Logs sample grids as MLflow's own `log_image` does, but with the same names at each try.

        Returns whether any was logged.
        """
        wanted = {rung.images for rung in missing} | run.without_grid
        if self._thorough or (wanted and run.pictures is None):
            listed = self._client.list_artifacts(run.id, "images")
            run.pictures = {Path(file.path).stem for file in listed if file.path.endswith(".png")}
        pictures = run.pictures or set()
        if self._thorough:
            wanted = {rung.images for rung in record.rungs if not known_picture(run.id, rung, pictures)}
        had = grids(record.number) if wanted else {}
        with TemporaryDirectory() as folder:
            for rung in record.rungs:
                if rung.images in wanted and rung.images in had:
                    name = known_picture(run.id, rung, pictures) or picture_name(run.id, record, rung)
                    with Image.open(had[rung.images], formats=["PNG"]) as picture:
                        picture.save(Path(folder) / f"{name}.png")
                        compress_image_size(picture).save(Path(folder) / f"{name}+compressed.webp")
            run.without_grid = wanted - set(had)
            if found := wanted & set(had):
                self._client.log_artifacts(run.id, folder, "images")
        return bool(found)

    def _set_status(self, run: _Run, record: TrialRecord) -> None:
        wanted = _STATUS[record.state]
        if run.status != wanted:
            if record.state in UNDER_WAY:
                self._client.update_run(run.id, status=wanted)
            else:
                self._client.set_terminated(run.id, status=wanted, end_time=stamp(record))
            run.status = wanted

    def _undo_late_requests(self, records: Sequence[TrialRecord]) -> None:
        """Corrects what a server did when it carried out requests long after this client had given them up."""
        (self._parent, *_), self._runs = self._find()
        for record in records:
            if record.number in self._runs:
                self._set_status(self._runs[record.number], record)


def _artifact_location(root: Path, sweep: Sweep, uri: str) -> str | None:
    """The URI below which a new experiment keeps its artifacts; None leaves it to the server."""
    place = sweep.tracking.artifacts
    if place is None:
        return (mlflow_artifacts(root) / sweep.name).as_uri() if is_database(uri) else None
    return f"{place.rstrip('/')}/{sweep.name}" if "://" in place else (Path(place).resolve() / sweep.name).as_uri()


def _found(run: Any) -> _Run:
    return _Run(
        id=run.info.run_id,
        status=run.info.status,
        state=run.data.tags.get(_STATE),
        on_front=_PARETO in run.data.tags,
        has_params=bool(run.data.params),
        has_final="final_fid" in run.data.metrics,
        written=None,
        pictures=None,
    )


def _points(values: dict[str, float], stamp: int, step: int) -> list[Metric]:
    return [Metric(name, value, stamp, step) for name, value in values.items()]
