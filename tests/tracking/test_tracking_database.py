"""Laws of MLflow's database without a server: one transaction holds what many calls would, and all of it or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from orchestrator.paths import mlflow_uri
from orchestrator.study.records import TrialRecord
from orchestrator.study.study import SweepStudy
from orchestrator.tracking.interface import SampleGrids
from orchestrator.tracking.tracker import Tracker
from search_spaces.addresses import with_driver
from tests.support import made_up


@pytest.fixture(params=["sqlite", "postgresql"])
def uri(request: pytest.FixtureRequest) -> str | None:
    """None for the database of the folder."""
    return request.getfixturevalue("postgres").database() if request.param == "postgresql" else None


def records(folder: Path, name: str, uri: str | None) -> tuple[SweepStudy, list[list[TrialRecord]]]:
    """A study of a complete, a diverged and a running trial, and what was known of them after each rung."""
    (folder / name).mkdir()
    wanted = ["pruner=none", "budget.trials=3", f"name={name}", *([f"tracking.uri={uri}"] if uri else [])]
    study = SweepStudy.create(folder / name, made_up.sweep(*wanted))
    for _ in range(3):
        assert study.next_ticket() is not None
    known = []
    histories = (made_up.history(3.0, 1.0, 2.0), [*made_up.history(4.0), made_up.rung(2000, 0.0, diverged="nan")], [])
    for length in range(4):
        for number, history in enumerate(histories):
            if 0 < length <= len(history):
                study.report(number, history[:length])
        known.append(study.records())
    return study, known


def shown(study: SweepStudy, folder: Path, uri: str | None) -> dict[str, Any]:
    """All that the database says of the trials, without ids and times of asking."""
    client = MlflowClient(with_driver(uri) if uri else mlflow_uri(folder))
    found = {}
    for run in client.search_runs([client.get_experiment_by_name(study.sweep.name).experiment_id]):
        if (trial := run.data.tags.get("gansweep.trial")) is not None:
            points = {
                key: [(p.step, repr(p.value)) for p in client.get_metric_history(run.info.run_id, key)]
                for key in run.data.metrics
            }
            latest = {key: repr(value) for key, value in run.data.metrics.items()}
            tags = {key: value for key, value in run.data.tags.items() if "study" not in key and "parent" not in key}
            params = {k: v for k, v in run.data.params.items() if k not in ("g_lr", "smoothing_strength")}
            found[trial] = (points, latest, params, tags, run.info.status)
    return found


def write_together(tracker: Tracker, records: Sequence[TrialRecord], grids: SampleGrids = lambda number: {}) -> None:
    with tracker.together():
        for record in records:
            tracker.sync(record, grids)


def raising(number: int) -> dict[int, Path]:
    raise ConnectionError("no picture")


def test_what_is_written_together_is_what_is_written_call_by_call(tmp_path: Path, uri: str | None) -> None:
    found = []
    for together in (False, True):
        study, known = records(tmp_path, f"together-{together}".lower(), uri)
        tracker = Tracker(tmp_path, study.sweep, study.id)
        for at_one_time in (known[1], known[3]):  # two rungs of the first trial come at once
            if together:
                write_together(tracker, at_one_time)
            else:
                for record in at_one_time:
                    tracker.sync(record, lambda number: {})
        found.append(shown(study, tmp_path, uri))
    assert found[0] == found[1]
    assert [step for step, _ in found[1]["0"][0]["kid"]] == [1000, 2000, 3000]
    assert found[1]["0"][1]["kid"] == "2.0"


def test_a_block_that_fails_leaves_nothing(tmp_path: Path, uri: str | None) -> None:
    study, known = records(tmp_path, "failing", uri)
    with pytest.raises(MlflowException, match="no picture"):
        write_together(Tracker(tmp_path, study.sweep, study.id), known[3], grids=raising)
    assert shown(study, tmp_path, uri) == {}
    write_together(Tracker(tmp_path, study.sweep, study.id), known[3][:1])
    assert list(shown(study, tmp_path, uri)) == ["0"]


def test_points_that_another_has_written_meanwhile_end_the_block(tmp_path: Path, uri: str | None) -> None:
    study, known = records(tmp_path, "twice", uri)
    tracker = Tracker(tmp_path, study.sweep, study.id)
    tracker.sync(known[1][0], lambda number: {})
    tracker._runs[0].written = set()  # as if another process had written it
    with pytest.raises(MlflowException):
        write_together(tracker, [known[1][1], known[3][0]])
    assert set(shown(study, tmp_path, uri)) == {"0"}
