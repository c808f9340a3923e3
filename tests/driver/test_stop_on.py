"""A real sweep that its monitor stops: where a person finds the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.paths import mlflow_uri
from tests.support import sweeps

#: Of its two trials one never asks G for a 9, which the first rung tells.
TEXT = """\
system: narman-cgan
dataset: mnist-mini
search: {drawn_classes: {choice: [9, 10]}, batch: 50, width: 0.1}
rungs: {every: 0.5, until: 1}
score: {samples: 100}
sampler: grid
pruner: none
stop_on: [missing-class]
budget: {trials: 2}
"""


@pytest.mark.slow
def test_the_reason_of_a_stopped_trial_is_in_progress_status_report_and_mlflow(
    tmp_path: Path, cache_dir: Path, mnist_mini_lenet: object
) -> None:
    sweeps.prepare(tmp_path, cache_dir, TEXT)
    done = sweeps.gansweep("launch", "tiny.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    stopped, whole = sweeps.records(tmp_path / "runs" / "tiny")
    assert [rung.images for rung in stopped.rungs] == [500]
    assert stopped.reason is not None
    assert stopped.reason.startswith("missing-class at 0.5 kimg: 500 draws left out [9], chance")
    assert (stopped.state, whole.state, whole.reason) == ("pruned", "complete", None)

    assert f"({stopped.reason})" in done.stdout
    assert f"({stopped.reason})" in sweeps.in_process("status", "tiny", cwd=tmp_path).stdout
    assert "missing-class at 0.5 kimg" in (tmp_path / "runs" / "tiny" / "report.html").read_text()
    client = MlflowClient(mlflow_uri(tmp_path / "runs"))
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert [tag for run in runs if (tag := run.data.tags.get("gansweep.reason"))] == [stopped.reason]
