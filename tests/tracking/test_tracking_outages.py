"""Laws of the tracker and its retry queue before a real MLflow server that goes away: every point arrives, and once."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from orchestrator.study.status import status_of
from orchestrator.study.study import SweepStudy
from orchestrator.tracking import retry_queue
from orchestrator.tracking.retry_queue import RetryQueue
from orchestrator.tracking.tracker import ALIAS, Tracker
from tests.support import made_up, sweeps
from tests.support.mlflow_server import MlflowServer, Wire
from trainers.data.samples import save_png

SWEEP = ("search={g_lr: {log_uniform: [2e-5, 5e-3]}, batch: 100}", "pruner=none", "rungs={every: 1, until: 3}")
CURVE = (3.0, 1.0, 2.0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def wire(server: MlflowServer) -> Iterator[Wire]:
    wire = Wire(server.port)
    yield wire
    wire.close()


@pytest.fixture(autouse=True)
def _soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_queue, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(retry_queue, "LONGEST_PAUSE", 0.1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")


class Sweep:
    """A study of made-up trials whose events go to a retry queue, as a driver sends them."""

    def __init__(self, folder: Path, name: str, uri: str, trials: int) -> None:
        settings = made_up.sweep(*SWEEP, f"name={name}", f"budget.trials={trials}", f"tracking.uri={uri}")
        (folder / name).mkdir()
        self.root, self.grid = folder, folder / "grid.png"
        save_png(np.zeros((20, 20, 3), np.uint8), self.grid)
        self.study = SweepStudy.create(folder / name, settings)
        self.said: list[str] = []

    def queue(self, thorough: bool = False) -> RetryQueue:
        study = self.study
        return RetryQueue(lambda: Tracker(self.root, study.sweep, study.id, thorough), self.said.append)

    def run(self, queue: RetryQueue) -> None:
        self.begin(queue)
        self.report(queue)

    def begin(self, queue: RetryQueue) -> None:
        """Every trial, side by side."""
        while (ticket := self.study.next_ticket()) is not None:
            self.send(queue, ticket.number)

    def report(self, queue: RetryQueue, rungs: Sequence[int] = range(len(CURVE))) -> None:
        """Rung after rung of every trial."""
        for rung in rungs:
            for record in self.study.records():
                self.study.report(record.number, made_up.history(*CURVE[: rung + 1]))
                self.send(queue, record.number)

    def send(self, queue: RetryQueue, number: int) -> None:
        queue.put(number, partial(self._sync, self.study.records()[number]))

    def finish(self, queue: RetryQueue) -> None:
        report = self.root / "report.html"
        report.write_text("<html>")
        status = status_of(self.study)
        queue.put("end", lambda tracker: tracker.finish(status, report))

    def _sync(self, record: Any, tracker: Tracker) -> None:
        tracker.sync(record, lambda number: {rung.images: self.grid for rung in record.rungs})


def runs_of(uri: str, name: str) -> tuple[list[Any], list[Any]]:
    """Parents and children of a sweep."""
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    return [run for run in runs if run not in children], children


def assert_all_there_once(server: MlflowServer, name: str, trials: int) -> None:
    client = MlflowClient(server.uri)
    (parent,), children = runs_of(server.uri, name)
    assert parent.info.status == "FINISHED"
    assert Counter(run.data.tags["gansweep.trial"] for run in children) == {str(n): 1 for n in range(trials)}
    for run in children:
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        for metric in run.data.metrics:
            points = client.get_metric_history(run.info.run_id, metric)
            assert [point.step for point in points] == [1000, 2000, 3000], metric
            assert [point.timestamp for point in points] == sorted(point.timestamp for point in points)
        assert [point.value for point in client.get_metric_history(run.info.run_id, "kid")] == list(CURVE)
        pictures = [f for f in client.list_artifacts(run.info.run_id, "images") if f.path.endswith(".png")]
        assert len(pictures) == len(CURVE)


def test_answers_that_are_lost_double_nothing(tmp_path: Path, server: MlflowServer, wire: Wire) -> None:
    sweep = Sweep(tmp_path, "answers", wire.uri, trials=3)
    wire.lost = 0.1
    with sweep.queue() as queue:
        sweep.run(queue)
        assert queue.drain()
        sweep.finish(queue)
        assert queue.drain()
    assert wire.losses > 2
    assert_all_there_once(server, "answers", 3)


def test_a_server_that_is_away_stops_no_sweep_and_gets_all_when_it_is_back(
    tmp_path: Path, server: MlflowServer, wire: Wire
) -> None:
    sweep = Sweep(tmp_path, "away", wire.uri, trials=3)
    with sweep.queue() as queue:
        sweep.begin(queue)
        sweep.report(queue, [0])
        assert queue.drain()
        wire.cut = True
        sweep.report(queue, [1, 2])
        while not sweep.said:
            assert not queue.drain(wait=0.1)
        wire.cut = False
        assert queue.drain()
        sweep.finish(queue)
        assert queue.drain()
    assert len(sweep.said) == 2
    assert "the sweep goes on" in sweep.said[0]
    assert sweep.said[1] == "tracking: all is written"
    assert_all_there_once(server, "away", 3)


def test_a_server_that_answers_only_long_after_doubles_nothing(
    tmp_path: Path, server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = Sweep(tmp_path, "stopped", server.uri, trials=3)
    with sweep.queue() as queue:
        queue.put("open", lambda tracker: None)
        assert queue.drain()
        for events in (sweep.begin, sweep.report):
            server.signal(signal.SIGSTOP)
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
            try:
                events(queue)
                # What is sent now is carried out when it has long been given up.
                assert not queue.drain(wait=2)
            finally:
                monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
                server.signal(signal.SIGCONT)
            assert queue.drain()
        sweep.finish(queue)
        assert queue.drain()
    assert_all_there_once(server, "stopped", 3)


def test_what_was_never_written_is_rebuilt_and_rebuilding_again_changes_nothing(
    tmp_path: Path, server: MlflowServer, wire: Wire
) -> None:
    sweep = Sweep(tmp_path, "rebuilt", wire.uri, trials=2)
    wire.cut = True
    with sweep.queue() as queue:
        sweep.run(queue)
        assert not queue.drain(wait=0.2)
    wire.cut = False
    found = []
    for _ in range(2):
        with sweep.queue(thorough=True) as queue:
            for number in range(2):
                sweep.send(queue, number)
            assert queue.drain()
            sweep.finish(queue)
            assert queue.drain()
        assert_all_there_once(server, "rebuilt", 2)
        found.append({run.info.run_id for part in runs_of(server.uri, "rebuilt") for run in part})
    assert found[0] == found[1]


def test_the_winner_s_checkpoint_can_be_had_from_the_registry_by_its_alias(
    tmp_path: Path, server: MlflowServer
) -> None:
    sweep = Sweep(tmp_path, "registered", server.uri, trials=2)
    checkpoint = tmp_path / "0000002000"
    checkpoint.mkdir()
    (checkpoint / "weights").write_text("numbers")
    with sweep.queue() as queue:
        sweep.run(queue)
        winner = status_of(sweep.study).best
        assert winner is not None
        for _ in range(2):
            queue.put("winner", lambda tracker: tracker.register(winner, checkpoint))
            assert queue.drain()
    client = MlflowClient(server.uri)
    (version,) = client.search_model_versions("name = 'registered'")
    assert client.get_model_version_by_alias("registered", ALIAS).version == version.version
    assert version.tags["gansweep.trial"] == str(winner.number)
    _, children = runs_of(server.uri, "registered")
    assert version.run_id in {run.info.run_id for run in children}
    (file,) = [f.path for f in client.list_artifacts(version.run_id, f"checkpoints/{checkpoint.name}")]
    assert Path(client.download_artifacts(version.run_id, file, str(tmp_path))).read_text() == "numbers"
    assert version.source.endswith(f"/checkpoints/{checkpoint.name}")


def test_two_sweeps_of_one_name_at_one_server_do_not_mix(tmp_path: Path, server: MlflowServer) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        sweep = Sweep(folder, "twins", server.uri, trials=1)
        with sweep.queue() as queue:
            sweep.run(queue)
            sweep.finish(queue)
            assert queue.drain()
    parents, children = runs_of(server.uri, "twins")
    assert len(parents) == len(children) == 2
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {run.info.run_id for run in parents}


def test_a_driver_that_lost_its_lease_writes_nothing_more(tmp_path: Path) -> None:
    done, lost = threading.Event(), threading.Event()

    def check() -> None:
        if done.is_set():
            lost.set()
            raise RuntimeError("another driver has taken over")

    written: list[int] = []
    tracker: Any = SimpleNamespace(together=nullcontext)
    with RetryQueue(lambda: tracker, lambda text: None, check) as queue:
        queue.put(1, lambda tracker: written.append(1))
        assert queue.drain(120)
        done.set()
        queue.put(2, lambda tracker: written.append(2))
        assert lost.wait(120)
        assert not queue.drain(wait=0.1)
    assert written == [1]


@pytest.mark.faults
@pytest.mark.slow
def test_a_sweep_whose_server_is_killed_ends_in_time_and_is_tracked_once(
    tmp_path: Path, cache_dir: Path, mnist_mini_lenet: object
) -> None:
    server = MlflowServer(tmp_path)
    server.start()
    try:
        sweeps.prepare(tmp_path, cache_dir, sweeps.TINY + f"tracking: {{uri: '{server.uri}'}}\n")
        folder = tmp_path / "runs" / "tiny"
        driver = sweeps.start("launch", "tiny.yaml", cwd=tmp_path)
        sweeps.wait_for(lambda: sum(len(record.rungs) for record in sweeps.records(folder)) >= 4, driver)
        server.kill()
        sweeps.wait_for(lambda: sum(len(record.rungs) for record in sweeps.records(folder)) >= 10, driver)
        server.start()
        output, _ = driver.communicate(timeout=600)
        assert driver.returncode == 0, output
        assert "Traceback" not in output
        client, records = MlflowClient(server.uri), sweeps.records(folder)
        (parent,), children = runs_of(server.uri, "tiny")
        assert parent.info.status == "FINISHED"
        assert len(children) == len(records) == 5
        for run in children:
            record = records[int(run.data.tags["gansweep.trial"])]
            assert run.data.tags["gansweep.state"] == record.state
            for metric in run.data.metrics:
                steps = [point.step for point in client.get_metric_history(run.info.run_id, metric)]
                assert steps == [rung.images for rung in record.rungs], metric
    finally:
        server.kill()
