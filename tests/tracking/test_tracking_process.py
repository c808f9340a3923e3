"""Laws of the tracker's process: it does what a tracker does, tells its errors, and never outlives its driver."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.paths import mlflow_uri
from orchestrator.study.study import SweepStudy
from orchestrator.tracking.process import StoredGrids, TrackerError, TrackerProcess
from tests.support import made_up
from trainers.errors import InputError


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow without runs: MLflow takes seconds to make one."""
    root = tmp_path_factory.mktemp("empty")
    MlflowClient(mlflow_uri(root)).search_experiments()
    return root / "mlflow.db"


@pytest.fixture
def study(tmp_path: Path, empty: Path) -> SweepStudy:
    shutil.copy(empty, tmp_path)
    (tmp_path / "behind").mkdir()
    study = SweepStudy.create(tmp_path / "behind", made_up.sweep("name=behind", "pruner=none"))
    ticket = study.next_ticket()
    assert ticket is not None
    study.report(ticket.number, made_up.history(3.0))
    return study


@pytest.fixture
def process() -> Iterator[TrackerProcess]:
    with TrackerProcess() as process:
        yield process


def sync(process: TrackerProcess, study: SweepStudy) -> None:
    text = study.sweep.normalised()
    process.open(study.folder.parent, text, study.id).sync(study.records()[0], StoredGrids(text, study.folder))


def runs(study: SweepStudy) -> int:
    client = MlflowClient(mlflow_uri(study.folder.parent))
    return len(client.search_runs([client.get_experiment_by_name("behind").experiment_id]))


def test_it_writes_what_a_tracker_writes(study: SweepStudy, process: TrackerProcess) -> None:
    sync(process, study)
    assert runs(study) == 2


def test_an_error_is_told_and_the_next_call_is_answered(study: SweepStudy, process: TrackerProcess) -> None:
    with pytest.raises(InputError, match="not YAML as a sweep file needs it"):
        process.open(study.folder.parent, "{", study.id)
    sync(process, study)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_the_driver_s(number: signal.Signals, study: SweepStudy, process: TrackerProcess) -> None:
    sync(process, study)
    before = process._process.pid
    os.kill(before, number)
    sync(process, study)
    assert process._process.pid == before


def test_one_that_died_is_replaced_when_the_tracker_is_opened(study: SweepStudy, process: TrackerProcess) -> None:
    sync(process, study)
    os.kill(process._process.pid, signal.SIGKILL)
    with pytest.raises(TrackerError, match="has died"):
        process.mark([])
    process._process.join()
    sync(process, study)
    assert runs(study) == 2


@pytest.mark.parametrize("call", ["time.sleep(600)", "process.mark([])"], ids=["idle", "in a call"])
def test_it_ends_with_a_driver_that_is_killed(call: str) -> None:
    program = f"""
import time
from orchestrator.tracking import process as tracking

def hang(*unused):
    print("called", flush=True)
    time.sleep(600)

tracking._Served.call = hang
process = tracking.TrackerProcess()
print(process._process.pid, flush=True)
{call}
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        number = int(driver.stdout.readline())
        if "mark" in call:
            assert driver.stdout.readline() == "called\n"
        assert _lives(number)
        driver.kill()
    end = time.monotonic() + 240
    while _lives(number):
        assert time.monotonic() < end, "it outlives its driver"
        time.sleep(0.1)


@pytest.mark.parametrize(
    "end",
    [
        "process._connection.send(('mark', [[]])); process._connection.poll(None); os._exit(0)",
        "process._connection.send(('mark', [[]])); os._exit(0)",
        "os.write(process._connection.fileno(), bytes([0, 0, 1, 0, 7])); os._exit(0)",
        "os._exit(0)",
    ],
    ids=["before it reads the answer", "before the answer", "within a message", "between two calls"],
)
def test_the_death_of_the_driver_is_no_error_of_its(end: str) -> None:
    program = f"""
import os
from orchestrator.tracking.process import TrackerProcess, _Served

_Served.call = lambda *unused: None
process = TrackerProcess()
{end}
"""
    # The output ends with the last process that has it.
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=True)
    assert done.stderr == ""


def _lives(number: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_a_driver_that_is_stopped_within_a_block_locks_no_database(study: SweepStudy, process: TrackerProcess) -> None:
    root, text = study.folder.parent, study.sweep.normalised()
    process.open(root, text, study.id)
    with process.together():
        process.sync(study.records()[0], StoredGrids(text, study.folder))
        with closing(sqlite3.connect(root / "mlflow.db", timeout=0)) as database:
            database.execute("BEGIN IMMEDIATE")  # the beginning of another driver's writes
    assert runs(study) == 2


def test_a_block_with_a_call_that_fails_writes_nothing(study: SweepStudy, process: TrackerProcess) -> None:
    root, text = study.folder.parent, study.sweep.normalised()
    process.open(root, text, study.id)

    def write() -> None:
        with process.together():
            process.sync(study.records()[0], StoredGrids(text, study.folder))
            process._call("unknown")

    with pytest.raises(TrackerError, match="has no attribute"):
        write()
    assert runs(study) == 1, "the sweep's own run"
    sync(process, study)
    assert runs(study) == 2


def test_a_block_that_raises_before_its_end_writes_nothing(study: SweepStudy, process: TrackerProcess) -> None:
    text = study.sweep.normalised()
    process.open(study.folder.parent, text, study.id)
    with suppress(ZeroDivisionError), process.together():
        process.sync(study.records()[0], StoredGrids(text, study.folder))
        raise ZeroDivisionError
    process.open(study.folder.parent, text, study.id)
    assert runs(study) == 1, "the sweep's own run"
    sync(process, study)
    assert runs(study) == 2
