"""Sweeps of trials with two workers on three real Ray nodes: pruned, hit, and with everything elsewhere at once."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.decisions.failures import LOST_NODE
from orchestrator.paths import mlflow_uri
from orchestrator.store import store_of
from orchestrator.study.records import TrialRecord
from orchestrator.study.study import SweepStudy
from tests.support import sweeps
from tests.support.mlflow_server import MlflowServer
from tests.support.nodes import Nodes, nodes
from tests.support.postgres import Postgres
from tests.support.servers import S3Server
from trainers.checkpoint import folder_name

pytestmark = [
    pytest.mark.slow,
    pytest.mark.faults,
    pytest.mark.timeout(1800),
    pytest.mark.usefixtures("mnist_mini_lenet"),
]

TRIALS = 6
#: The default pruner, which pauses: a trial goes on on other workers, and what is never promoted is pruned.
TEXT = sweeps.TINY.replace("pruner: {name: median, startup: 2}\n", "resources: {workers_per_trial: 2}\n").replace(
    "trials: 5", f"trials: {TRIALS}"
)
#: No trial pauses, so that a running one is where its record says, and each rung takes seconds: a trial is met at work.
SLOW = TEXT.replace("batch: 50", "batch: 4") + "pruner: {name: median, startup: 2}\n"
SHARED = "study: {shared: true}\nstore: {shared: true}\n"


@pytest.fixture
def three() -> Iterator[Nodes]:
    """Three nodes, each with room for one trial of two workers."""
    with nodes(3, cpus=2) as found:
        yield found


def running(records: list[TrialRecord]) -> list[TrialRecord]:
    return [record for record in records if record.state == "running" and record.nodes]


def wait_for_two_apart(
    read: Callable[[], list[TrialRecord]], driver: subprocess.Popen[str]
) -> tuple[TrialRecord, TrialRecord]:
    """Two trials that run at the same time on different nodes."""
    end = time.monotonic() + 500
    while driver.poll() is None and time.monotonic() < end:
        for one in (now := running(read())):
            for other in now:
                if not set(one.nodes) & set(other.nodes):
                    return one, other
        time.sleep(0.1)
    raise AssertionError(f"no two trials ran apart: {[(r.number, r.state, r.nodes) for r in read()]}")


def check_whole(records: list[TrialRecord], before: list[TrialRecord]) -> None:
    """The exact number of trials, all ended, some of them pruned, and no reported point lost or changed."""
    assert [record.number for record in records] == list(range(TRIALS))
    states = [record.state for record in records]
    assert set(states) == {"complete", "pruned"}, states
    for old, new in zip(before, records, strict=False):
        assert new.rungs[: len(old.rungs)] == old.rungs, "what was reported was trained again"
    for record in records:
        images = [rung.images for rung in record.rungs]
        assert images == list(range(500, 500 * len(images) + 1, 500))


def check_tracked(uri: str, name: str, records: list[TrialRecord]) -> None:
    """Each reported point is in MLflow, and once."""
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    children = {int(run.data.tags["gansweep.trial"]): run for run in runs if "gansweep.trial" in run.data.tags}
    assert len(runs) == len(records) + 1
    for record in records:
        run = children[record.number]
        assert run.info.status in ("FINISHED", "KILLED")
        points = [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, "kid")]
        assert sorted(points) == [(rung.images, rung.scores["kid"].value) for rung in record.rungs]


def test_a_node_that_is_lost_costs_no_trial_and_no_point(tmp_path: Path, cache_dir: Path, three: Nodes) -> None:
    sweeps.prepare(tmp_path, cache_dir, SLOW + SHARED)
    folder = tmp_path / "runs" / "tiny"
    driver = sweeps.start("launch", "tiny.yaml", "--address", three.address, cwd=tmp_path)
    try:
        one, _ = wait_for_two_apart(lambda: sweeps.records(folder), driver)
        before = sweeps.records(folder)
        three.remove(one.nodes[0].rpartition("/")[2])
        said, _ = driver.communicate(timeout=800)
    finally:
        driver.kill()
    assert driver.returncode == 0, said
    assert "Traceback" not in said
    records = sweeps.records(folder)
    check_whole(records, before)
    failures = [failure.kind for record in records for failure in record.failures]
    assert set(failures) == {LOST_NODE}, said
    check_tracked(mlflow_uri(tmp_path / "runs"), "tiny", records)


def test_what_no_node_can_ever_hold_is_refused_and_leaves_nothing(tmp_path: Path, three: Nodes) -> None:
    (tmp_path / "tiny.yaml").write_text(TEXT + SHARED)
    command = ["launch", "tiny.yaml", "--address", three.address]
    done = sweeps.gansweep(*command, "--set", "resources={workers_per_trial: 10}", cwd=tmp_path)
    assert done.returncode == 2
    assert "a trial needs 10 workers of 1 CPU each, but 4 nodes have " in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "runs" / "tiny").exists()


def test_a_node_that_is_drained_is_left_without_a_failure_that_counts(
    tmp_path: Path, cache_dir: Path, three: Nodes
) -> None:
    sweeps.prepare(tmp_path, cache_dir, SLOW.replace(f"trials: {TRIALS}", "trials: 3") + SHARED)
    folder = tmp_path / "runs" / "tiny"
    driver = sweeps.start("launch", "tiny.yaml", "--set", "pruner=none", "--address", three.address, cwd=tmp_path)
    try:
        one, _ = wait_for_two_apart(lambda: sweeps.records(folder), driver)
        leaving = one.nodes[0].rpartition("/")[2]
        three.drain(leaving, seconds=300)
        said, _ = driver.communicate(timeout=800)
    finally:
        driver.kill()
    assert driver.returncode == 0, said
    (record, *_) = [record for record in sweeps.records(folder) if record.failures]
    assert {failure.kind for failure in record.failures} == {"drained-node"}
    assert record.state == "complete"
    assert all(not node.endswith(leaving) for node in record.nodes)


def test_a_node_that_joins_is_used(tmp_path: Path, cache_dir: Path) -> None:
    # Long trials: a worker that ended would take the place of one that is about to begin.
    longer = TEXT.replace("until: 2", "until: 8").replace(f"trials: {TRIALS}", "trials: 3")
    sweeps.prepare(tmp_path, cache_dir, longer + SHARED)
    folder = tmp_path / "runs" / "tiny"
    with nodes(1, cpus=2) as growing:
        driver = sweeps.start("launch", "tiny.yaml", "--set", "pruner=none", "--address", growing.address, cwd=tmp_path)
        try:
            sweeps.wait_for(lambda: bool(running(sweeps.records(folder))), driver)
            assert len(running(sweeps.records(folder))) == 1, "there is room for one alone"
            joined = growing.add()
            said, _ = driver.communicate(timeout=800)
        finally:
            driver.kill()
    assert driver.returncode == 0, said
    records = sweeps.records(folder)
    assert [record.state for record in records] == ["complete"] * 3
    assert any(node.endswith(joined) for record in records for node in record.nodes)


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[MlflowServer]:
    (tmp_path / "mlflow").mkdir()
    server = MlflowServer(tmp_path / "mlflow")
    server.start()
    yield server
    server.kill()


def test_everything_elsewhere_and_a_driver_that_is_killed(
    tmp_path: Path, cache_dir: Path, postgres: Postgres, s3: S3Server, three: Nodes, tracker: MlflowServer
) -> None:
    url, bucket = postgres.database(), s3.bucket(f"b-{uuid.uuid4().hex}")
    elsewhere = f"study: {{storage: '{url}'}}\nstore: {{path: s3://{bucket}/sweeps, endpoint: '{s3.endpoint}'}}\n"
    sweeps.prepare(tmp_path, cache_dir, TEXT + elsewhere + f"tracking: {{uri: '{tracker.uri}'}}\n")
    folder = tmp_path / "runs" / "tiny"
    driver = sweeps.start("launch", "tiny.yaml", "--address", three.address, cwd=tmp_path)
    sweeps.wait_for(lambda: sum(len(record.rungs) for record in sweeps.records(folder)) >= 4, driver, timeout=600)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    before = sweeps.records(folder)

    sweeps.prepare(empty := tmp_path / "empty", cache_dir)  # the extractor alone, which would be trained again else
    resumed = sweeps.gansweep("resume", "tiny", "--storage", url, "--address", three.address, cwd=empty, timeout=800)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    study = SweepStudy.open(empty / "runs" / "tiny", url)
    assert study is not None
    records = study.records()
    check_whole(records, before)
    assert not any(record.failures for record in records), "a driver's death is no trial's failure"
    check_tracked(tracker.uri, "tiny", records)
    store = store_of(study.sweep, study.folder)
    for record in records:
        assert list(store.grids(record.number)) == [rung.images for rung in record.rungs]
        with store.newest(record.number) as found:
            assert found is not None
            assert found.name.startswith(folder_name(record.rungs[-1].images))
