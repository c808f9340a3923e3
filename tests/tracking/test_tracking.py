"""Laws of the tracker, against a real MLflow database."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from orchestrator.paths import mlflow_artifacts, mlflow_uri
from orchestrator.study.status import status_of
from orchestrator.study.study import SweepStudy
from orchestrator.tracking.tracker import Tracker
from search_spaces.addresses import with_driver
from tests.support import made_up
from tests.support.servers import S3Server
from trainers.data.samples import save_png


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for the module: making one takes seconds."""
    return tmp_path_factory.mktemp("root")


def finished_study(root: Path, name: str, *overrides: str) -> SweepStudy:
    """A study of two trials, the second diverged."""
    folder = root / name
    folder.mkdir()
    study = SweepStudy.create(folder, made_up.sweep("budget.trials=2", f"name={name}", *overrides))
    for _ in range(2):
        assert study.next_ticket() is not None
    study.report(0, made_up.history(3.0, 1.0, 2.0))
    study.report(1, [*made_up.history(4.0), made_up.rung(2000, 0.0, diverged="loss_g is nan")])
    return study


def track(root: Path, study: SweepStudy, report: Path) -> None:
    """What a driver does at the end of a sweep."""
    tracker = Tracker(root, study.sweep, study.id)
    save_png(np.zeros((20, 20, 3), np.uint8), root / "grid.png")
    grids = {rung.images: root / "grid.png" for record in study.records() for rung in record.rungs}
    for record in study.records():
        tracker.sync(record, lambda number: grids)
    report.write_text("<html>")
    tracker.finish(status_of(study), report)


def test_a_rung_that_is_passed_again_has_its_picture_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver died between the picture and the scores, and the record of the rung was lost."""
    study = finished_study(root, "again")
    save_png(np.zeros((20, 20, 3), np.uint8), root / "grid.png")
    grids = dict.fromkeys((1000, 2000, 3000), root / "grid.png")
    before = study.records()[0]
    slower = [replace(rung, train_seconds=rung.train_seconds + 1) for rung in before.rungs]
    with monkeypatch.context() as patched:
        patched.setattr(Tracker, "_log", lambda *_: (_ for _ in ()).throw(ConnectionError))
        with pytest.raises(ConnectionError):
            Tracker(root, study.sweep, study.id).sync(before, lambda number: grids)
    for thorough in (False, True):
        tracker = Tracker(root, study.sweep, study.id, thorough)
        tracker.sync(replace(before, rungs=tuple(slower)), lambda number: grids)
        found = sorted(mlflow_artifacts(root).glob("again/*/artifacts/images/*.png"))
        assert [path.name.split("+")[2] for path in found] == ["1000", "2000", "3000"]


def test_mlflow_shows_parent_children_parameters_scores_and_images(root: Path) -> None:
    study = finished_study(root, "shown")
    track(root, study, root / "report.html")
    client = MlflowClient(mlflow_uri(root))
    experiment = client.get_experiment_by_name("shown")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {run.data.tags["gansweep.trial"]: run for run in runs if run is not parent}
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    assert [children["0"].info.status, children["1"].info.status] == ["FINISHED", "KILLED"]
    assert children["1"].data.tags["gansweep.reason"] == "diverged at 2 kimg: loss_g is nan"
    assert children["0"].data.params["g_lr"] == str(study.records()[0].params["g_lr"])
    assert children["0"].data.params["system"] == "narman-cgan"
    run_id = children["0"].info.run_id
    for metric, values in {
        "kid": [3.0, 1.0, 2.0],
        "fid": [300.0, 100.0, 200.0],
        "best_kid": [3.0, 1.0, 1.0],
        "best_fid": [300.0, 100.0, 100.0],
        "images_per_s": [500.0] * 3,
        "loss_g": [0.7] * 3,
        "kid_se": [0.01] * 3,
    }.items():
        points = client.get_metric_history(run_id, metric)
        assert [(point.step, point.value) for point in points] == list(zip((1000, 2000, 3000), values, strict=True))
    assert len([f for f in client.list_artifacts(run_id, "images") if f.path.endswith(".png")]) == 3
    assert "report.html" in {f.path for f in client.list_artifacts(parent.info.run_id)}
    assert parent.data.metrics["best_kid"] == 1.0
    assert parent.info.status == "FINISHED"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_tracking_a_sweep_again_writes_nothing_twice(root: Path, kind: str, request: pytest.FixtureRequest) -> None:
    uri = request.getfixturevalue("postgres").database() if kind == "postgresql" else None
    study = finished_study(root, kind, *([f"tracking.uri={uri}"] if uri else []))
    track(root, study, root / "report.html")
    track(root, study, root / "report.html")
    client = MlflowClient(with_driver(uri) if uri else mlflow_uri(root))
    runs = client.search_runs([client.get_experiment_by_name(kind).experiment_id])
    assert len(runs) == 3
    for run in runs:
        for metric in run.data.metrics:
            steps = [point.step for point in client.get_metric_history(run.info.run_id, metric)]
            assert len(steps) == len(set(steps)), f"{metric} has two values at a step"
    child = next(run for run in runs if run.data.tags.get("gansweep.trial") == "0")
    assert child.info.status == "FINISHED"
    assert len([f for f in client.list_artifacts(child.info.run_id, "images") if f.path.endswith(".png")]) == 3


def test_runs_do_not_depend_on_when_they_are_written(root: Path) -> None:
    study = finished_study(root, "early")
    record = study.records()[0]
    assert record.started is not None
    track(root, study, root / "report.html")
    client = MlflowClient(mlflow_uri(root))
    (run,) = client.search_runs([client.get_experiment_by_name("early").experiment_id], "tags.`gansweep.trial` = '0'")
    # Each rung took a second of training and a tenth of one for its scores.
    times = [point.timestamp for point in client.get_metric_history(run.info.run_id, "kid")]
    begun = round(1000 * record.started.timestamp())
    assert times == [begun + 1100, begun + 2200, begun + 3300]
    assert (run.info.start_time, run.info.end_time) == (begun, begun + 3300)


def test_artifacts_go_where_the_sweep_says(root: Path) -> None:
    study = finished_study(root, "elsewhere", f"tracking.artifacts={root / 'shared'}")
    track(root, study, root / "report.html")
    assert len(list((root / "shared" / "elsewhere").rglob("report.html"))) == 1


def test_artifacts_on_s3_are_what_the_user_interface_lists_and_serves(
    root: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3.endpoint)
    bucket = s3.bucket(f"b-{uuid.uuid4().hex}")
    study = finished_study(root, "in-a-bucket", f"tracking.artifacts=s3://{bucket}/mlflow")
    track(root, study, root / "report.html")
    client = MlflowClient(mlflow_uri(root))
    (run,) = client.search_runs(
        [client.get_experiment_by_name("in-a-bucket").experiment_id], "tags.`gansweep.trial` = '0'"
    )
    assert run.info.artifact_uri.startswith(f"s3://{bucket}/mlflow/in-a-bucket/")
    pictures = [file.path for file in client.list_artifacts(run.info.run_id, "images") if file.path.endswith(".png")]
    assert len(pictures) == 3
    fetched = client.download_artifacts(run.info.run_id, pictures[0], str(tmp_path))
    assert Path(fetched).read_bytes()[:4] == b"\x89PNG"
