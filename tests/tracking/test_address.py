"""The environment names the tracker of sweeps that name none; what it says of somebody else's run is not obeyed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.driver.launch import check
from orchestrator.paths import mlflow_uri
from orchestrator.study.study import SweepStudy
from orchestrator.tracking.address import VARIABLE, is_database, tracker_of_environment, tracking_uri
from orchestrator.tracking.tracker import Tracker
from tests.support import made_up
from tests.support.sweeps import REPOSITORY


def test_the_sweep_s_own_tracker_comes_first_then_the_environment_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, named = made_up.sweep(), made_up.sweep("tracking.uri=http://mine:5000")
    monkeypatch.delenv(VARIABLE, raising=False)
    assert tracking_uri(plain, tmp_path) == mlflow_uri(tmp_path)
    assert tracker_of_environment(plain) is None
    monkeypatch.setenv(VARIABLE, "")
    assert tracking_uri(plain, tmp_path) == mlflow_uri(tmp_path)
    monkeypatch.setenv(VARIABLE, "http://me:secret-1234@team:5000")
    assert tracking_uri(plain, tmp_path) == "http://me:secret-1234@team:5000"
    assert tracking_uri(named, tmp_path) == "http://mine:5000"
    assert tracker_of_environment(named) is None
    said = tracker_of_environment(plain)
    assert said is not None
    assert "team:5000" in said
    assert "secret-1234" not in said


@pytest.mark.parametrize(
    ("uri", "database"),
    [
        ("sqlite:////data/a.db", True),
        ("postgresql+psycopg2://me@db/x", True),
        ("https://team", False),
        ("databricks", False),
        ("./mlruns", False),
        ("file:///data/mlruns", False),
    ],
)
def test_databases_are_told_from_servers_and_folders(uri: str, database: bool) -> None:
    assert is_database(uri) is database


def test_a_launch_says_it_and_keeps_it_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mnist_mini_lenet: object
) -> None:
    monkeypatch.setenv(VARIABLE, f"sqlite:///{tmp_path}/team.db")
    (said,) = check(made_up.sweep(), tmp_path, lambda: None)
    assert f"{tmp_path}/team.db" in said
    assert VARIABLE in said
    study = SweepStudy.create(tmp_path, made_up.sweep())
    assert "team.db" not in study.sweep.normalised()


def test_runs_go_there_with_artifacts_below_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "team.db"
    monkeypatch.setenv(VARIABLE, f"sqlite:///{other}")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{tmp_path / 'registry.db'}")
    study = SweepStudy.create(tmp_path, made_up.sweep())
    tracker = Tracker(tmp_path, study.sweep, study.id)
    assert study.next_ticket() is not None
    tracker.sync(study.records()[0], lambda number: {})
    experiment = MlflowClient(f"sqlite:///{other}").get_experiment_by_name("made-up")
    assert experiment.artifact_location == (tmp_path / "mlartifacts" / "made-up").as_uri()
    assert not (tmp_path / "mlflow.db").exists()
    assert tracker._client._registry_uri == f"sqlite:///{other}"


def test_variables_of_somebody_else_s_run_are_dropped_and_credentials_stay() -> None:
    program = "import orchestrator, os; print(*sorted(k for k in os.environ if k.startswith('MLFLOW_')))"
    others = {"RUN_ID": "abc", "EXPERIMENT_ID": "7", "EXPERIMENT_NAME": "x", "ENABLE_ASYNC_LOGGING": "true"}
    mine = {
        "TRACKING_URI": "http://team",
        "TRACKING_TOKEN": "t",
        "TRACKING_USERNAME": "u",
        "S3_ENDPOINT_URL": "http://s",
    }
    environment = {f"MLFLOW_{name}": value for name, value in {**others, **mine}.items()}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    found = {name.removeprefix("MLFLOW_") for name in done.stdout.split()}
    assert mine.keys() <= found
    assert not others.keys() & found
