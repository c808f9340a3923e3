"""Laws of a sweep's status."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.cli.text import outcome_lines, status_lines, stopped
from orchestrator.decisions.failures import MOST_FAILURES, Failure
from orchestrator.report import write_report
from orchestrator.study.lease import hold_lease
from orchestrator.study.requests import Request
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


def failed_sweep(folder: Path, messages: Sequence[str], *overrides: str) -> SweepStudy:
    """A sweep whose trials fail for good, each with one of `messages`, if there are so many trials."""
    study = SweepStudy.create(folder, made_up.sweep("pruner=none", f"budget.trials={len(messages)}", *overrides))
    for message in messages:
        for attempt in range(1, MOST_FAILURES + 1):
            ticket = study.next_ticket()
            assert ticket is not None
            goes_on = study.record_crash(ticket.number, Failure(attempt, "error", message), "log")
            assert goes_on == (attempt < MOST_FAILURES)
    return study


def test_a_sweep_whose_trials_all_failed_has_failed_with_the_commonest_message(tmp_path: Path) -> None:
    study = failed_sweep(tmp_path, ["no such file: a.png", "out of luck", "out of luck"])
    assert study.next_ticket() is None
    found = read_status(tmp_path)
    assert (found.state, found.ended, found.finalists) == ("failed", True, [])
    assert found.fault == "2 of 3 trials failed with: out of luck"
    assert found.to_json()["fault"] == found.fault
    lines = list(status_lines(found, trials=False))
    assert lines[0].startswith("made-up: failed; 3 of 3 trials: 0 complete, 0 pruned, 0 running, 0 paused, 3 failed")
    assert f"  {found.fault}" in lines
    assert found.fault in list(outcome_lines(found, tmp_path.parent))
    assert not stopped(found)
    page = tmp_path / "page.html"
    write_report(found, study, page)
    assert "failed: 3 of 3 trials; 3 failed" in " ".join(page.read_text().split())
    assert f"The sweep failed: {found.fault}" in page.read_text()
    study.limits.request(Request("add-trials", trials=1))
    assert read_status(tmp_path).state == "interrupted"


def test_one_trial_that_did_not_fail_makes_a_sweep_complete(tmp_path: Path) -> None:
    study = failed_sweep(tmp_path, ["a", "b"], "budget.trials=3")
    ticket = study.next_ticket()
    assert ticket is not None
    study.report(ticket.number, [made_up.rung(1000, 0.0, diverged="loss_g is nan")])
    found = status_of(study)
    assert (found.state, found.fault, "fault" in found.to_json()) == ("complete", None, False)


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        (["one"], "no trial succeeded; one failed with: one"),
        (["a", "b", "c"], "no trial succeeded; one failed with: a"),
        (["a", "a"], "all trials failed with: a"),
    ],
)
def test_the_fault_says_how_many_trials_share_it(tmp_path: Path, messages: list[str], fault: str) -> None:
    assert status_of(failed_sweep(tmp_path, messages)).fault == fault
