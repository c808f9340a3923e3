"""What a real sweep needs is taken away: its disk, its root, its screen, or the memory of each of its trials."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.paths import mlflow_uri
from tests.support import failing, sweeps

pytestmark = [pytest.mark.usefixtures("mnist_mini_lenet"), pytest.mark.slow, pytest.mark.faults]
#: Bytes beside the cache: enough to begin, and too few for the checkpoints of all trials.
ROOM = 4_000_000


@pytest.fixture
def small_root(tmp_path: Path, cache_dir: Path) -> Iterator[Path]:
    """A folder in which `runs` is a disk that will soon be full."""
    root = tmp_path / "runs"
    root.mkdir()
    size = sum(path.stat().st_size for path in cache_dir.rglob("*")) + ROOM
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(root)], check=False).returncode:
        pytest.skip("only root may mount a disk")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(root)], check=True)


def test_after_space_is_made_a_sweep_goes_on_to_its_exact_number_of_trials_whoever_listens(
    small_root: Path, cache_dir: Path
) -> None:
    sweeps.prepare(small_root, cache_dir)
    done = sweeps.gansweep("launch", "tiny.yaml", cwd=small_root)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith("error: ")
    assert "runs/tiny" in last
    assert "space" in last
    before = sweeps.status("tiny", small_root)
    assert before["state"] == "interrupted"
    assert before["trials"]["failed"] == 0
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_root / "runs")], check=True)
    with open("/dev/full", "w") as nowhere:
        command = [sys.executable, "-m", sweeps.COMMAND, "resume", "tiny"]
        again = subprocess.run(
            command, cwd=small_root, env=sweeps.environment(), stdout=nowhere, stderr=nowhere, check=False
        )
    assert again.returncode == 0
    found = sweeps.status("tiny", small_root)
    assert (found["state"], found["trials"]["failed"], sum(found["trials"].values())) == ("complete", 0, 5)


def test_a_root_that_is_deleted_ends_its_sweep_with_one_line(tmp_path: Path, cache_dir: Path) -> None:
    sweeps.prepare(tmp_path, cache_dir)
    folder = tmp_path / "runs" / "tiny"
    driver = sweeps.start("launch", "tiny.yaml", cwd=tmp_path)
    sweeps.wait_for(lambda: any(record.rungs for record in sweeps.records(folder)), driver)
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    said, _ = driver.communicate(timeout=300)
    assert driver.returncode == 2, said
    assert "Traceback" not in said
    *_, last = said.strip().splitlines()
    assert last.startswith("error: ")
    assert "runs/tiny" in last
    sweeps.wait_for_the_last_process(driver)


def test_a_sweep_whose_trials_all_fail_ends_with_code_1_and_the_reason(tmp_path: Path, cache_dir: Path) -> None:
    sweeps.prepare(tmp_path, cache_dir, sweeps.TINY.replace("trials: 5", "trials: 2"))
    here = {"PYTHONPATH": str(sweeps.REPOSITORY), failing.EACH: "1"}
    launched = sweeps.gansweep("launch", "tiny.yaml", cwd=tmp_path, module="tests.support.failing", settings=here)
    for done in (launched, sweeps.gansweep("resume", "tiny", cwd=tmp_path)):
        assert done.returncode == 1, done.stdout + done.stderr
        assert "tiny: failed; 0 complete, 0 pruned, 0 running, 0 paused, 2 failed\n" in done.stdout
        assert "\nall trials failed with: CUDA out of memory: choose a smaller batch" in done.stdout
        assert "report: runs/tiny/report.html" in done.stdout
    assert sweeps.status("tiny", tmp_path)["state"] == "failed"
    assert "The sweep failed: all trials failed with: CUDA" in (tmp_path / "runs/tiny/report.html").read_text()
    client = MlflowClient(mlflow_uri(tmp_path / "runs"))
    experiment = client.get_experiment_by_name("tiny").experiment_id
    assert {run.info.status for run in client.search_runs([experiment])} == {"FAILED"}
