"""Laws of budgets, requests and leases as a study obeys them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cli import requests as asking
from orchestrator.study.lease import LeaseLostError, hold_lease
from orchestrator.study.requests import Request
from orchestrator.study.status import read_status, status_of
from orchestrator.study.study import Decision, SweepStudy
from search_spaces.settings import MOST_TRIALS
from tests.support import made_up
from trainers.errors import InputError


def begin(folder: Path, *overrides: str) -> SweepStudy:
    folder.mkdir(exist_ok=True)
    return SweepStudy.create(folder, made_up.sweep("pruner=none", *overrides))


def reopened(study: SweepStudy) -> SweepStudy:
    found = SweepStudy.open(study.folder)
    assert found is not None
    return found


def ask(study: SweepStudy) -> int:
    ticket = study.next_ticket()
    assert ticket is not None
    return ticket.number


def finish(study: SweepStudy, number: int, kid: float = 1.0) -> None:
    assert study.report(number, made_up.history(3.0, 2.0, kid)) is Decision.COMPLETE


def test_gpu_hours_end_running_trials_at_their_next_rung_and_begin_no_more(tmp_path: Path) -> None:
    study = begin(tmp_path, f"budget={{gpu_hours: {4.3 * 1.1 / 3600}}}")
    first, second = ask(study), ask(study)
    assert study.report(first, made_up.history(3.0)) is Decision.CONTINUE
    assert study.report(first, made_up.history(3.0, 2.0)) is Decision.CONTINUE
    assert study.report(second, made_up.history(3.0, 2.0)) is Decision.CONTINUE
    assert study.report(first, made_up.history(3.0, 2.0, 1.0)) is Decision.COMPLETE
    assert study.next_ticket() is None
    study = reopened(study)  # its driver died; the trial that it left running is not trained any more
    assert study.next_ticket() is None
    record = study.records()[second]
    assert record.state == "pruned"
    assert str(record.reason).startswith("budget: 0.001528 of 0.0013")
    found = status_of(study)
    assert found.state == "complete"
    assert found.limit is not None
    assert found.limit.name == "gpu_hours"


def test_under_a_soft_limit_running_trials_run_to_their_ends(tmp_path: Path) -> None:
    study = begin(tmp_path, "budget={trials: 9, target: 2}")
    first, second = ask(study), ask(study)
    assert study.report(first, made_up.history(2.0)) is Decision.CONTINUE
    assert study.next_ticket() is None
    assert status_of(study).state == "interrupted"
    finish(study, second)
    finish(study, first)
    assert study.next_ticket() is None
    assert status_of(study).state == "complete"


def test_patience_counts_trials_after_the_best(tmp_path: Path) -> None:
    study = begin(tmp_path, "budget={trials: 9, patience: 2}")
    for kid in (1.0, 0.5, 0.7, 0.6):
        finish(study, ask(study), kid)
    assert study.next_ticket() is None
    assert len(study.records()) == 4


def test_hours_are_those_of_all_drivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = begin(tmp_path, "budget={hours: 2}")
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    for _ in range(2):
        with hold_lease("made-up", tmp_path, study.lease_records):
            assert study.next_ticket() is not None
            now[0] += 3600.0
        study = reopened(study)
    assert study.limits.spent().hours == pytest.approx(2)
    assert study.next_ticket() is None
    assert {record.state for record in study.records()} == {"pruned"}


def test_added_trials_run_in_a_running_and_in_a_finished_sweep(tmp_path: Path) -> None:
    study = begin(tmp_path, "budget.trials=1")
    finish(study, ask(study))
    assert study.next_ticket() is None
    asking.add_trials(tmp_path, None, 2)
    finish(study, ask(study))
    study = reopened(study)
    finish(study, ask(study))
    assert study.next_ticket() is None
    found = read_status(tmp_path)
    assert (found.state, found.budget, found.added) == ("complete", 3, 2)
    assert found.progress == "3 of 3 trials (2 added)"


def test_a_file_with_another_budget_takes_in_what_was_added_and_the_same_file_changes_nothing(tmp_path: Path) -> None:
    study = begin(tmp_path, "budget.trials=5")
    asking.add_trials(tmp_path, None, 2)
    study.refresh()
    assert (study.limits.budget_in_file.trials, study.sweep.budget.trials) == (5, 7)
    study.limits.change_budget(made_up.sweep("budget={trials: 10, hours: 3}").budget)
    asking.add_trials(tmp_path, None, 1)
    assert str(reopened(study).sweep.budget) == "{trials: 11, hours: 3}"
    assert str(reopened(study).limits.budget_in_file) == "{trials: 10, hours: 3}"


@pytest.mark.parametrize(
    ("overrides", "trials", "fragment"),
    [
        (("budget={hours: 1}",), 3, "does not limit the number of trials"),
        (("budget.trials=3",), 0, "allowed are 1 to"),
        (
            ("sampler=grid", "search={seed: {choice: [0, 1]}}", "budget.trials=1"),
            2,
            "more than the 2 points of the gr",
        ),
    ],
)
def test_trials_that_cannot_be_added_are_refused(
    tmp_path: Path, overrides: tuple[str, ...], trials: int, fragment: str
) -> None:
    study = begin(tmp_path, *overrides)
    with pytest.raises(InputError, match=fragment):
        asking.add_trials(tmp_path, None, trials)
    assert reopened(study).sweep == study.sweep


def test_a_stop_ends_running_trials_at_their_next_rung_and_the_sweep_can_go_on(tmp_path: Path) -> None:
    study = begin(tmp_path)
    with hold_lease("made-up", tmp_path, study.lease_records) as lease:
        study.drive(lease)
        first, second = ask(study), ask(study)
        assert study.report(first, made_up.history(3.0)) is Decision.CONTINUE
        asking.stop(tmp_path, None)
        assert study.next_ticket() is None
        assert study.report(first, made_up.history(3.0, 2.0)) is Decision.PRUNE
        assert study.report(second, made_up.history(3.0, 2.0, 1.0)) is Decision.COMPLETE
        assert read_status(tmp_path).state == "running"
    found = read_status(tmp_path)
    assert (found.state, found.asked, found.records[first].reason) == ("stopped", "stop", "stopped by user")
    heir = reopened(study)
    with hold_lease("made-up", tmp_path, heir.lease_records) as lease:
        heir.drive(lease)
        assert ask(heir) == 2
    assert read_status(tmp_path).state == "interrupted"


def test_a_pause_leaves_every_trial_as_it_is(tmp_path: Path) -> None:
    study = begin(tmp_path)
    with hold_lease("made-up", tmp_path, study.lease_records) as lease:
        study.drive(lease)
        first = ask(study)
        asking.pause(tmp_path, None)
        assert study.next_ticket() is None
        assert study.report(first, made_up.history(3.0)) is Decision.PAUSE
    found = read_status(tmp_path)
    assert found.state == "paused"
    assert [(record.state, len(record.rungs)) for record in found.records] == [("running", 1)]
    heir = reopened(study)
    again = heir.next_ticket()
    assert again is not None
    assert (again.number, again.attempt) == (first, 2)


def test_one_trial_can_be_stopped_and_the_others_go_on(tmp_path: Path) -> None:
    study = begin(tmp_path)
    first, second = ask(study), ask(study)
    asking.stop(tmp_path, None, trial=second)
    assert study.report(first, made_up.history(3.0)) is Decision.CONTINUE
    assert study.report(second, made_up.history(3.0)) is Decision.PRUNE
    assert study.records()[second].reason == "stopped by user"
    assert study.next_ticket() is not None
    for number, fragment in ((second, "is pruned already"), (99, "has no trial 99"), (-1, "has no trial -1")):
        with pytest.raises(InputError, match=fragment):
            asking.stop(tmp_path, None, trial=number)


def test_a_trial_that_reached_its_end_is_complete_whoever_stops_it(tmp_path: Path) -> None:
    study = begin(tmp_path)
    number = ask(study)
    asking.stop(tmp_path, None, trial=number)
    finish(study, number)


def test_nobody_is_asked_where_nobody_drives(tmp_path: Path) -> None:
    begin(tmp_path)
    for question in (asking.stop, asking.pause):
        with pytest.raises(InputError, match="made-up is interrupted: no driver is at work"):
            question(tmp_path, None)
    with pytest.raises(InputError, match="no sweep called 'nothing'"):
        asking.pause(tmp_path / "nothing", None)


def test_requests_to_a_driver_do_not_bind_the_next_one(tmp_path: Path) -> None:
    study = begin(tmp_path)
    study.limits.request(Request("stop", epoch=1))
    for epoch, leaving in ((1, "stop"), (2, None)):
        heir = reopened(study)
        with hold_lease("made-up", tmp_path, heir.lease_records) as lease:
            assert lease.epoch == epoch
            heir.drive(lease)
            assert heir.limits.leaving == leaving


@pytest.mark.parametrize("database", [False, True])
def test_a_driver_that_lost_its_lease_changes_nothing_in_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: bool
) -> None:
    monkeypatch.setattr("orchestrator.study.lease.Lease.start", lambda self: None)
    monkeypatch.setattr("orchestrator.study.lease.Lease.end", lambda self: None)
    url = f"sqlite:///{tmp_path / 'studies.db'}" if database else None
    study = begin(tmp_path, *([f"study.storage={url}"] if url else []))
    file = tmp_path / ("studies.db" if database else "study.journal")
    with hold_lease("made-up", tmp_path, study.lease_records) as old:
        study.drive(old)
        number = ask(study)
        monkeypatch.setattr(old, "_valid_until", 0.0)  # as after a long sleep
        heir = SweepStudy.open(tmp_path / "made-up" if database else tmp_path, url)
        assert heir is not None
        heir.lease_records.renew(replace(heir.limits.claims[-1], epoch=2, holder="near:1:x"))
        before = file.read_bytes()
        for write in (
            lambda: study.report(number, made_up.history(3.0)),
            lambda: study.fail(number, "no"),
            study.next_ticket,
            lambda: study.fail_final(number, "no"),
            lambda: study.limits.request(Request("pause", epoch=2)),
            study.limits.check,
        ):
            with pytest.raises(LeaseLostError, match="lost the lease to process 1 on near"):
                write()
        assert file.read_bytes() == before


def test_no_request_raises_a_budget_above_what_a_sweep_file_may_ask_for(tmp_path: Path) -> None:
    begin(tmp_path / "made-up")
    for trials in (0, -3, 10**30, MOST_TRIALS - 4, 10**500):
        with pytest.raises(InputError, match=rf"add-trials -?\d+: allowed are 1 to {MOST_TRIALS - 5}$"):
            asking.add_trials(tmp_path / "made-up", None, trials)
    said = asking.add_trials(tmp_path / "made-up", None, MOST_TRIALS - 5)
    assert said.startswith(f"made-up: {MOST_TRIALS} trials, ")
    assert read_status(tmp_path / "made-up").budget == MOST_TRIALS
    with pytest.raises(InputError, match=r"allowed are 1 to 0$"):
        asking.add_trials(tmp_path / "made-up", None, 1)
