"""A real sweep over real images: what a person sees, and what is left after a kill or an interruption."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from orchestrator.paths import REPORT, mlflow_uri
from orchestrator.study.study import SweepStudy
from orchestrator.tracking.tracker import ALIAS
from tests.support import sweeps
from trainers import checkpoint

pytestmark = pytest.mark.usefixtures("mnist_mini_lenet")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path, mnist_mini_lenet: object) -> Path:
    """A folder in which the tiny sweep has run to its end; its output is in `output.txt`."""
    folder = tmp_path_factory.mktemp("finished")
    sweeps.prepare(folder, cache_dir)
    done = sweeps.gansweep("launch", "tiny.yaml", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "output.txt").write_text(done.stdout)
    assert done.stderr == ""
    return folder


def runs_of(folder: Path, name: str) -> list[Any]:
    """All MLflow runs of a sweep."""
    client = MlflowClient(mlflow_uri(folder / "runs"))
    return list(client.search_runs([client.get_experiment_by_name(name).experiment_id]))


def points_of(folder: Path, name: str) -> dict[tuple[str, str], list[tuple[int, float, int]]]:
    """Steps, values and times of every metric of every trial."""
    client = MlflowClient(mlflow_uri(folder / "runs"))
    return {
        (run.data.tags.get("gansweep.trial", "sweep"), metric): [
            (point.step, point.value, point.timestamp) for point in client.get_metric_history(run.info.run_id, metric)
        ]
        for run in runs_of(folder, name)
        for metric in run.data.metrics
    }


def assert_tracked_once(folder: Path, name: str, trials: int) -> None:
    """One parent, one child per trial, and at most one value per metric and step."""
    runs = runs_of(folder, name)
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(runs) - len(children) == 1
    assert sorted(int(run.data.tags["gansweep.trial"]) for run in children) == list(range(trials))
    client = MlflowClient(mlflow_uri(folder / "runs"))
    for run in children:
        record = sweeps.records(folder / "runs" / name)[int(run.data.tags["gansweep.trial"])]
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "kid")]
        assert steps == [rung.images for rung in record.rungs]


def test_a_sweep_runs_exactly_its_trials_and_prints_its_progress(finished: Path) -> None:
    output = (finished / "output.txt").read_text()
    assert "[  5/5]" in output
    assert "report: runs/tiny/report.html" in output
    found = sweeps.status("tiny", finished)
    assert found["state"] == "complete"
    assert found["trials"]["complete"] + found["trials"]["pruned"] == 5
    assert found["trials"]["complete"] >= 2
    assert found["best"]["metric"] == "kid"


def test_every_trial_leaves_a_checkpoint_and_samples(finished: Path) -> None:
    for record in sweeps.records(finished / "runs" / "tiny"):
        folder = finished / "runs/tiny/store/trials" / f"{record.number:05d}"
        newest = checkpoint.newest(folder / "checkpoints")
        assert newest is not None
        assert newest.name == checkpoint.folder_name(record.rungs[-1].images)
        assert len(list((folder / "samples").glob("*.png"))) == len(record.rungs)


def test_mlflow_has_parent_children_scores_and_images(finished: Path) -> None:
    assert_tracked_once(finished, "tiny", 5)
    client = MlflowClient(mlflow_uri(finished / "runs"))
    for run in runs_of(finished, "tiny"):
        if "mlflow.parentRunId" in run.data.tags:
            assert {"kid", "fid", "best_kid", "best_fid", "images_per_s", "loss_g", "loss_d"} <= set(run.data.metrics)
            assert {"g_lr", "smoothing", "batch", "system"} <= set(run.data.params)
            assert any(item.path.endswith(".png") for item in client.list_artifacts(run.info.run_id, "images"))
        else:
            assert run.info.status == "FINISHED"
            names = {item.path for item in client.list_artifacts(run.info.run_id)}
            assert {"report.html", "sweep.yaml"} <= names


def test_the_winner_is_in_the_model_registry_with_its_checkpoint(finished: Path) -> None:
    best = sweeps.status("tiny", finished)["best"]["trial"]
    client = MlflowClient(mlflow_uri(finished / "runs"))
    version = client.get_model_version_by_alias("tiny", ALIAS)
    run = client.get_run(version.run_id)
    assert run.data.tags["gansweep.trial"] == version.tags["gansweep.trial"] == str(best)
    place = version.source.removeprefix(f"{run.info.artifact_uri}/")
    (record,) = [r for r in sweeps.records(finished / "runs" / "tiny") if r.number == best]
    assert record.best is not None
    assert place == f"checkpoints/{checkpoint.folder_name(record.best.images)}"
    assert "manifest.json" in {Path(file.path).name for file in client.list_artifacts(version.run_id, place)}


@pytest.mark.slow
def test_mlflow_is_rebuilt_from_study_and_store_once(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "runs", tmp_path / "runs")
    (tmp_path / "runs" / "mlflow.db").unlink()
    shutil.rmtree(tmp_path / "runs" / "mlartifacts")
    before = points_of(finished, "tiny")
    ids = []
    for _ in range(2):
        done = sweeps.gansweep("rebuild-tracking", "tiny", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert_tracked_once(tmp_path, "tiny", 5)
        assert points_of(tmp_path, "tiny") == before
        ids.append({run.info.run_id for run in runs_of(tmp_path, "tiny")})
    assert ids[0] == ids[1]
    client = MlflowClient(mlflow_uri(tmp_path / "runs"))
    assert int(client.get_model_version_by_alias("tiny", ALIAS).version) == 1


def test_launching_a_finished_sweep_again_changes_nothing(finished: Path) -> None:
    before = sweeps.status("tiny", finished)
    again = sweeps.in_process("launch", "tiny.yaml", cwd=finished)
    assert again.returncode == 0, again.stderr
    assert "complete" in again.stdout
    assert sweeps.status("tiny", finished) == before
    assert_tracked_once(finished, "tiny", 5)


def test_what_a_driver_that_was_killed_at_the_very_end_did_not_write_is_written(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "runs" / "tiny"
    study = SweepStudy.open(folder)
    assert study is not None
    last = study.limits.claims[-1]
    study.lease_records.renew(replace(last, state="held"))
    (tmp_path / "runs" / "mlflow.db").unlink()
    (folder / REPORT).unlink()
    done = sweeps.gansweep("launch", "tiny.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / REPORT).exists()
    client = MlflowClient(mlflow_uri(tmp_path / "runs"))
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert len(runs) == 1 + len(study.records())
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}


def test_another_file_under_the_same_name_is_refused_with_a_diff(finished: Path) -> None:
    refused = sweeps.in_process("launch", "tiny.yaml", "--set", "search.width=0.2", cwd=finished)
    assert refused.returncode == 2
    assert "exists with other settings" in refused.stderr
    assert "-  width: 0.1" in refused.stderr
    assert "+  width: 0.2" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_report_command_writes_the_report_where_it_is_told(finished: Path, tmp_path: Path) -> None:
    done = sweeps.in_process("report", "tiny", "-o", str(tmp_path / "new" / "tiny.html"), cwd=finished)
    assert done.returncode == 0, done.stderr
    assert "<html" in (tmp_path / "new" / "tiny.html").read_text()[:200]


def test_the_user_interface_serves_the_runs_on_localhost(finished: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = sweeps.start("ui", "--port", str(port), cwd=finished)
    try:

        def up() -> bool:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        sweeps.wait_for(up, server)
        client = MlflowClient(f"http://127.0.0.1:{port}")
        experiment = client.get_experiment_by_name("tiny")
        runs = client.search_runs([experiment.experiment_id])
        assert len(runs) == 6
        child = next(run for run in runs if "mlflow.parentRunId" in run.data.tags)
        assert client.list_artifacts(child.info.run_id, "images")
        assert sweeps.in_process("ui", "--port", str(port), cwd=finished).returncode == 2, "it is taken"
    finally:
        server.terminate()
        assert server.wait(300) == 143
        sweeps.wait_for_the_last_process(server)


def trials_of(driver: int) -> list[int]:
    """The processes in which trials of a driver are trained."""
    listing = ["pgrep", "-s", str(driver), "-f", "ray::.*Trainable"]
    found = subprocess.run(listing, capture_output=True, text=True, check=False).stdout
    return [int(line) for line in found.split()]


def stopped_trials(driver: int) -> set[int]:
    """Stops the trials of a driver, so that however long a test takes, they do not come to their ends."""
    stopped: set[int] = set()
    while more := set(trials_of(driver)) - stopped:
        for trial in more:
            os.kill(trial, signal.SIGSTOP)
        stopped |= more
    return stopped


@pytest.mark.slow
@pytest.mark.faults
def test_a_sweep_whose_driver_is_killed_goes_on_from_its_checkpoints(tmp_path: Path, cache_dir: Path) -> None:
    sweeps.prepare(tmp_path, cache_dir)
    folder = tmp_path / "runs" / "tiny"
    driver = sweeps.start("launch", "tiny.yaml", cwd=tmp_path)
    sweeps.wait_for(lambda: any(record.state == "complete" for record in sweeps.records(folder)), driver)
    trials = stopped_trials(driver.pid)
    second = sweeps.gansweep("launch", "tiny.yaml", cwd=tmp_path)
    assert second.returncode == 2
    assert f"already driven by process {driver.pid}" in second.stderr
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    for trial in trials:
        os.kill(trial, signal.SIGCONT)  # it ends by itself without its driver
    before = sweeps.records(folder)
    interrupted = [record for record in before if record.state == "running"]
    assert interrupted
    assert sweeps.status("tiny", tmp_path)["state"] == "interrupted"

    resumed = sweeps.gansweep("resume", "tiny", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    after = sweeps.records(folder)
    assert [record.number for record in after] == list(range(5))
    assert {record.state for record in after} <= {"complete", "pruned"}
    for old, new in zip(before, after, strict=False):
        # Times are measured: equal ones prove that what was trained before the kill was not trained again. So no
        # more than the part of a rung under way was lost, and each trial passed its rungs once.
        assert new.rungs[: len(old.rungs)] == old.rungs
        assert new.params == old.params
        images = [rung.images for rung in new.rungs]
        assert images == [500 * (index + 1) for index in range(len(images))]
    assert_tracked_once(tmp_path, "tiny", 5)


@pytest.mark.slow
@pytest.mark.faults
def test_one_interrupt_stops_cleanly_and_says_how_to_go_on(tmp_path: Path, cache_dir: Path) -> None:
    sweeps.prepare(tmp_path, cache_dir, sweeps.TINY.replace("until: 2", "until: 50"))
    folder = tmp_path / "runs" / "tiny"
    driver = sweeps.start("launch", "tiny.yaml", cwd=tmp_path)
    sweeps.wait_for(lambda: any(record.rungs for record in sweeps.records(folder)), driver)
    os.kill(driver.pid, signal.SIGINT)
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 130, output
    assert "gansweep resume tiny" in output
    assert "Traceback" not in output
    assert sweeps.status("tiny", tmp_path)["state"] == "interrupted"
    sweeps.wait_for_the_last_process(driver)


@pytest.mark.slow
@pytest.mark.faults
def test_a_trial_whose_process_is_killed_goes_on_in_another_one(tmp_path: Path, cache_dir: Path) -> None:
    sweeps.prepare(tmp_path, cache_dir, sweeps.TINY.replace("until: 2", "until: 4"))
    folder = tmp_path / "runs" / "tiny"
    driver = sweeps.start("launch", "tiny.yaml", cwd=tmp_path)
    sweeps.wait_for(lambda: sum(len(record.rungs) for record in sweeps.records(folder)) >= 3, driver)
    sweeps.wait_for(lambda: bool(trials_of(driver.pid)), driver)
    victim = trials_of(driver.pid)[0]
    before = sweeps.records(folder)
    os.kill(victim, signal.SIGKILL)
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    assert "Traceback" not in output
    after = sweeps.records(folder)
    assert [record.number for record in after] == list(range(5))
    assert {record.state for record in after} <= {"complete", "pruned"}
    for old, new in zip(before, after, strict=False):
        assert new.rungs[: len(old.rungs)] == old.rungs
        images = [rung.images for rung in new.rungs]
        assert images == [500 * (index + 1) for index in range(len(images))]
    assert_tracked_once(tmp_path, "tiny", 5)


@pytest.mark.slow
@pytest.mark.faults
def test_a_trial_that_cannot_run_fails_with_its_reason_and_the_sweep_ends(tmp_path: Path, cache_dir: Path) -> None:
    sweeps.prepare(tmp_path, cache_dir)
    store = tmp_path / "runs" / "tiny" / "store" / "trials"
    store.mkdir(parents=True)
    (store / "00001").write_text("a file where a folder belongs")
    done = sweeps.gansweep("launch", "tiny.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    found = sweeps.records(tmp_path / "runs" / "tiny")
    assert [record.state for record in found].count("failed") == 1
    assert found[1].state == "failed"
    assert "00001" in str(found[1].reason)
    assert "failed" in done.stdout
