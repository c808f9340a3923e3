"""Laws of a sweep's status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.study.lease import hold_lease
from orchestrator.study.status import read_status, status_of
from orchestrator.study.study import SweepStudy
from tests.support import made_up
from trainers.errors import InputError


@pytest.fixture
def study(tmp_path: Path) -> SweepStudy:
    study = SweepStudy.create(tmp_path, made_up.sweep("pruner=none"))
    for kid in (3.0, 1.0, 2.0):
        ticket = study.next_ticket()
        assert ticket is not None
        for count in (1, 2, 3):
            study.report(ticket.number, made_up.history(5.0, kid, kid + 1)[:count])
    study.next_ticket()
    return study


def test_status_as_json_has_the_promised_keys(study: SweepStudy) -> None:
    found = status_of(study).to_json()
    assert list(found) == ["name", "state", "trials", "failures", "budget", "best", "scoring_share", "finals"]
    assert found["budget"]["limits"] == {"trials": 5}
    assert found["budget"]["spent"]["trials"] == 4
    assert found["budget"]["spent"]["gpu_hours"] == pytest.approx((9 * 1.1) / 3600)
    assert found["budget"]["ended"] is None
    assert found["scoring_share"] == pytest.approx(0.1)
    assert found["finals"] == []
    assert found["name"] == "made-up"
    assert found["trials"] == {"complete": 3, "pruned": 0, "running": 1, "paused": 0, "failed": 0}
    assert list(found["best"]) == ["trial", "metric", "value", "params"]
    assert (found["best"]["trial"], found["best"]["metric"], found["best"]["value"]) == (1, "kid", 1.0)
    assert found["best"]["params"]["system"] == "narman-cgan"


def test_a_status_without_scored_trials_has_no_best(tmp_path: Path) -> None:
    found = status_of(SweepStudy.create(tmp_path, made_up.sweep())).to_json()
    assert found["best"] is None
    assert sum(found["trials"].values()) == 0


def test_the_lead_is_counted_in_combined_standard_errors(study: SweepStudy) -> None:
    lead = status_of(study).lead()
    assert lead is not None
    median, errors = lead
    assert median.number == 2
    assert errors == pytest.approx((2.0 - 1.0) / (0.01**2 + 0.01**2) ** 0.5)


def test_a_sweep_is_running_while_its_driver_lives_and_interrupted_after(study: SweepStudy) -> None:
    assert read_status(study.folder).state == "interrupted"
    code = (
        "import pathlib, sys\n"
        "from orchestrator.study.lease import hold_lease\n"
        "from orchestrator.study.study import SweepStudy\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with hold_lease('made-up', folder, SweepStudy.open(folder).lease_records): print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(study.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as driver:
        assert driver.stdout is not None
        driver.stdout.readline()
        assert read_status(study.folder).state == "running"
        second = hold_lease("made-up", study.folder, study.lease_records)
        with pytest.raises(InputError, match=f"already driven by process {driver.pid}"), second:
            pytest.fail("two drivers at once")
        driver.kill()
    assert read_status(study.folder).state == "interrupted"
