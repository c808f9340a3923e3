"""Real sweeps that are steered from another shell, and two drivers of which one was stopped past its lease."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.paths import mlflow_uri
from orchestrator.study.study import SweepStudy
from tests.support import sweeps

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("mnist_mini_lenet"),
    pytest.mark.faults,
    pytest.mark.timeout(1800),
]

#: Nothing is pruned or paused, so that every trial has the same rungs.
TEXT = sweeps.TINY.replace("pruner: {name: median, startup: 2}", "pruner: none").replace("trials: 5", "trials: 3")
RUNGS = [500, 1000, 1500, 2000]


def images(folder: Path) -> list[list[int]]:
    """The rungs of every trial."""
    return [[rung.images for rung in record.rungs] for record in sweeps.records(folder)]


def rungs(folder: Path) -> int:
    return sum(map(len, images(folder)))


def points(root: Path, name: str) -> dict[str, list[tuple[int, float, int]]]:
    """Every point that MLflow has of the metric KID, by run."""
    client = MlflowClient(mlflow_uri(root))
    runs = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    return {
        run.info.run_id: [(p.step, p.value, p.timestamp) for p in client.get_metric_history(run.info.run_id, "kid")]
        for run in runs
    }


def files(folder: Path) -> dict[str, int]:
    """Every file of the store with its time of change."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_driver_that_was_stopped_past_its_lease_writes_nothing_more(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "environment", lambda: {**os.environ, "GANSWEEP_LEASE_SECONDS": "3"})
    sweeps.prepare(tmp_path, cache_dir, TEXT)
    folder = tmp_path / "runs" / "tiny"
    first = sweeps.start("launch", "tiny.yaml", cwd=tmp_path)
    try:
        sweeps.wait_for(lambda: rungs(folder) >= 2, first)
        os.kill(first.pid, signal.SIGSTOP)
        second = sweeps.gansweep("resume", "tiny", cwd=tmp_path)
        while second.returncode == 2:  # its lease has not run out yet
            assert f"already driven by process {first.pid} on" in second.stderr
            second = sweeps.gansweep("resume", "tiny", cwd=tmp_path)
        assert second.returncode == 0, second.stdout + second.stderr
        assert images(folder) == [RUNGS] * 3
        before = (folder / "study.journal").read_bytes(), points(tmp_path / "runs", "tiny"), files(folder / "store")
    finally:
        os.kill(first.pid, signal.SIGCONT)
    output, _ = first.communicate(timeout=600)
    assert first.returncode == 3, output
    assert "lost the lease to process" in output
    assert "Traceback" not in output
    after = (folder / "study.journal").read_bytes(), points(tmp_path / "runs", "tiny"), files(folder / "store")
    assert after == before
    assert sorted(len(found) for found in before[1].values()) == [0, 4, 4, 4]
    study = SweepStudy.open(folder)
    assert study is not None
    assert [(claim.epoch, claim.state) for claim in study.limits.claims] == [(1, "held"), (2, "ended")]


def test_of_two_drivers_at_once_one_runs_the_sweep_and_the_other_names_it(tmp_path: Path, cache_dir: Path) -> None:
    sweeps.prepare(tmp_path, cache_dir, TEXT)
    drivers = [sweeps.start("launch", "tiny.yaml", cwd=tmp_path) for _ in range(2)]
    outputs = [driver.communicate(timeout=600)[0] for driver in drivers]
    assert sorted(driver.returncode for driver in drivers) == [0, 2], outputs
    winner, loser = sorted(range(2), key=lambda index: drivers[index].returncode)
    assert f"already driven by process {drivers[winner].pid}" in outputs[loser]
    assert images(tmp_path / "runs" / "tiny") == [RUNGS] * 3


def test_a_sweep_is_paused_resumed_extended_and_stopped_from_another_shell(tmp_path: Path, cache_dir: Path) -> None:
    sweeps.prepare(tmp_path, cache_dir, TEXT)
    folder = tmp_path / "runs" / "tiny"

    driver = sweeps.start("launch", "tiny.yaml", cwd=tmp_path)
    sweeps.wait_for(lambda: rungs(folder) >= 1, driver)
    assert "to pause tiny" in sweeps.in_process("pause", "tiny", cwd=tmp_path).stdout
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    assert "gansweep resume tiny" in output
    paused = sweeps.status("tiny", tmp_path)
    assert paused["state"] == "paused"
    assert paused["trials"]["running"] >= 1
    before = images(folder)

    added = sweeps.in_process("add-trials", "tiny", "1", cwd=tmp_path)
    assert "4 trials, 1 of them new; `gansweep resume tiny` runs them" in added.stdout, added.stderr
    again = sweeps.gansweep("launch", "tiny.yaml", cwd=tmp_path)  # the file as it was
    assert again.returncode == 0, again.stdout + again.stderr
    assert images(folder) == [RUNGS] * 4
    assert all(RUNGS[: len(old)] == old for old in before)
    found = sweeps.status("tiny", tmp_path)
    assert (found["state"], found["budget"]["limits"], found["budget"]["added"]) == ("complete", {"trials": 4}, 1)

    driver = sweeps.start("launch", "tiny.yaml", "--trials", "40", cwd=tmp_path)
    sweeps.wait_for(lambda: rungs(folder) >= 17, driver)
    assert "to stop tiny" in sweeps.in_process("stop", "tiny", cwd=tmp_path).stdout
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    assert "from now on its budget is {trials: 40}" in output
    found = sweeps.status("tiny", tmp_path)
    assert found["state"] == "stopped"
    assert found["trials"]["running"] == 0
    assert {record.reason for record in sweeps.records(folder) if record.state == "pruned"} <= {"stopped by user"}
