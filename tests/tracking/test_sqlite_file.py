"""A database that MLflow cannot use is named with its remedy, ends no sweep, and is moved aside by that remedy."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from orchestrator.cli.__main__ import app
from orchestrator.driver.follower import finish_tracking
from orchestrator.paths import mlflow_uri
from orchestrator.study.study import SweepStudy
from orchestrator.tracking.process import TrackerProcess
from orchestrator.tracking.retry_queue import RetryQueue
from orchestrator.tracking.sqlite_file import check_file, fault_of, move_aside
from tests.support import made_up
from trainers.errors import InputError


def garbage(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)


def truncated(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE experiments (name TEXT)")
        connection.executemany("INSERT INTO experiments VALUES (?)", [("x" * 500,)] * 100)
        connection.commit()
    os.truncate(path, path.stat().st_size // 2 + 17)


def overwritten(path: Path) -> None:
    truncated(path)
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE experiments (name TEXT)")
        connection.executemany("INSERT INTO experiments VALUES (?)", [("x" * 500,)] * 100)
        connection.commit()
    data = bytearray(path.read_bytes())
    data[8192:12288] = b"\xa5" * 4096
    path.write_bytes(data)


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
        connection.commit()


def folder(path: Path) -> None:
    path.mkdir()


KINDS = {
    garbage: "is damaged (file is not a database)",
    truncated: "is damaged (database disk image is malformed)",
    overwritten: "is damaged (",
    foreign: "is another program's",
    folder: "is no file",
}


@pytest.fixture
def study(tmp_path: Path) -> SweepStudy:
    """A complete sweep of one trial, with another sweep beside it."""
    for name in ("other", "one"):
        (tmp_path / name).mkdir()
        study = SweepStudy.create(tmp_path / name, made_up.sweep(f"name={name}", "budget.trials=1", "finals.trials=0"))
        assert study.next_ticket() is not None
        study.report(0, made_up.history(3.0, 1.0, 2.0))
    return study


@pytest.mark.parametrize("make", KINDS)
def test_it_is_named_with_the_remedy_and_moved_aside(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    make(path)
    with pytest.raises(InputError) as caught:
        check_file(tmp_path, "one")
    assert f"MLflow's database {KINDS[make]}" in str(caught.value)
    assert f"`gansweep rebuild-tracking one --root {tmp_path}` moves it aside" in str(caught.value)
    assert move_aside(tmp_path) == tmp_path / "mlflow.db.damaged-1"
    assert fault_of(tmp_path, "one") is None
    garbage(path)
    assert move_aside(tmp_path) == tmp_path / "mlflow.db.damaged-2"


def test_what_sqlite_keeps_beside_it_is_moved_too(tmp_path: Path) -> None:
    folder(tmp_path / "mlflow.db")
    (tmp_path / "mlflow.db-journal").write_bytes(b"of the one before")
    move_aside(tmp_path)
    found = sorted(each.name for each in tmp_path.glob("mlflow*"))
    assert found == ["mlflow.db.damaged-1", "mlflow.db.damaged-1-journal"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write whatever the rights say")
def test_a_database_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    foreign(tmp_path / "mlflow.db")
    (tmp_path / "mlflow.db").chmod(0o444)
    with pytest.raises(InputError, match="MLflow's database cannot be written; `gansweep rebuild-tracking"):
        check_file(tmp_path, "one")


def test_a_database_in_use_or_empty_or_absent_is_left_alone(tmp_path: Path) -> None:
    assert move_aside(tmp_path) is None
    path = tmp_path / "mlflow.db"
    path.touch()
    assert move_aside(tmp_path) is None
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE experiments (name TEXT)")
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        assert move_aside(tmp_path) is None
    assert path.exists()


def test_the_sweep_goes_on_and_is_told_the_remedy(study: SweepStudy, tmp_path: Path) -> None:
    garbage(tmp_path / "mlflow.db")
    said: list[str] = []
    with TrackerProcess() as process:
        opening = partial(process.open, tmp_path, study.sweep.normalised(), study.id)
        with RetryQueue(opening, said.append) as queue:
            queue.put("open", lambda tracker: None)
            assert not queue.drain(wait=20.0)
    assert "`gansweep rebuild-tracking one" in said[0]
    assert "the sweep goes on" in said[0]


def test_rebuilding_writes_all_into_a_new_database(study: SweepStudy, tmp_path: Path) -> None:
    garbage(tmp_path / "mlflow.db")
    done = CliRunner().invoke(app, ["rebuild-tracking", "one", "--root", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "mlflow.db.damaged-1" in done.output
    assert "`gansweep rebuild-tracking NAME` writes: other" in done.output
    client = MlflowClient(mlflow_uri(tmp_path))
    runs = client.search_runs([client.get_experiment_by_name("one").experiment_id])
    assert sorted(run.data.tags.get("gansweep.state", "") for run in runs) == ["", "complete"]


def test_the_user_interface_is_not_started_on_it(study: SweepStudy, tmp_path: Path) -> None:
    garbage(tmp_path / "mlflow.db")
    done = CliRunner().invoke(app, ["ui", "--root", str(tmp_path)])
    assert isinstance(done.exception, InputError)
    assert "rebuild-tracking" in str(done.exception)


def test_a_failed_trial_without_parameters_is_tracked(study: SweepStudy, tmp_path: Path) -> None:
    """As a repair of the journal leaves one."""
    from orchestrator.study.repair import repair

    path = tmp_path / "one" / "study.journal"
    lines = path.read_bytes().split(b"\n")
    place = next(index for index, line in enumerate(lines) if b'"param_name":"g_lr"' in line)
    path.write_bytes(b"\n".join([*lines[:place], b"lost", *lines[place + 1 :]]))
    repair(path.parent)
    repaired = SweepStudy.open(path.parent)
    assert repaired is not None
    said: list[str] = []
    from orchestrator.tracking.tracker import Tracker

    with RetryQueue(lambda: Tracker(tmp_path, repaired.sweep, repaired.id), said.append) as queue:
        assert finish_tracking(repaired, queue, said.append)
    client = MlflowClient(mlflow_uri(tmp_path))
    (run,) = client.search_runs([client.get_experiment_by_name("one").experiment_id], "tags.`gansweep.trial` = '0'")
    assert run.info.status == "FAILED"
