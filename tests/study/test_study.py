"""Laws of the study: exact budgets, nothing reported twice, nothing lost with a driver."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.study.status import status_of
from orchestrator.study.study import Decision, SweepStudy
from tests.support import made_up
from trainers.errors import InputError
from trainers.rungs import Rung


@pytest.fixture
def study(tmp_path: Path) -> SweepStudy:
    return SweepStudy.create(tmp_path, made_up.sweep())


def run_to_end(study: SweepStudy, number: int, *kids: float) -> Decision:
    """Reports rung by rung, as a trial does."""
    decision = Decision.CONTINUE
    for count in range(1, len(kids) + 1):
        decision = study.report(number, made_up.history(*kids[:count]))
        if decision is not Decision.CONTINUE:
            break
    return decision


def test_a_study_hands_out_exactly_its_budget_of_trials(study: SweepStudy) -> None:
    numbers = []
    while (ticket := study.next_ticket()) is not None:
        numbers.append(ticket.number)
        run_to_end(study, ticket.number, 3.0, 2.0, 1.0)
    assert numbers == [0, 1, 2, 3, 4]
    assert status_of(study).state == "complete"
    assert status_of(study).counts == {"complete": 5, "pruned": 0, "running": 0, "paused": 0, "failed": 0}


def test_parameters_follow_their_conditions(tmp_path: Path) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep("budget.trials=20", "pruner=none"))
    for _ in range(20):
        ticket = study.next_ticket()
        assert ticket is not None
        assert ("smoothing_strength" in ticket.params) == (ticket.params["smoothing"] == "fixed")
        assert study.records()[ticket.number].params == ticket.params
        study.sweep.configure(ticket.params)


def test_a_trial_worse_than_the_median_is_pruned_with_its_reason(study: SweepStudy) -> None:
    for _ in range(2):
        ticket = study.next_ticket()
        assert ticket is not None
        run_to_end(study, ticket.number, 3.0, 2.0, 1.0)
    ticket = study.next_ticket()
    assert ticket is not None
    assert study.report(ticket.number, made_up.history(9.0)) is Decision.PRUNE
    record = study.records()[ticket.number]
    assert (record.state, record.reason) == (
        "pruned",
        "median pruner at 1 kimg: kid 9.000 ± 0.010 against 3.0000 ± 0.0071",
    )


def test_a_complete_trial_is_worth_its_best_rung(study: SweepStudy) -> None:
    ticket = study.next_ticket()
    assert ticket is not None
    assert run_to_end(study, ticket.number, 3.0, 1.0, 2.0) is Decision.COMPLETE
    best = study.records()[0].best
    assert best is not None
    assert (best.images, best.scores["kid"].value) == (2000, 1.0)


def test_a_diverged_trial_is_a_recorded_result(study: SweepStudy) -> None:
    ticket = study.next_ticket()
    assert ticket is not None
    diverged = made_up.rung(2000, 0.0, diverged="loss_g is nan")
    assert study.report(ticket.number, [*made_up.history(3.0), diverged]) is Decision.PRUNE
    reopened = SweepStudy.open(study.folder)
    assert reopened is not None
    record = reopened.records()[0]
    assert record.state == "pruned"
    assert record.reason == "diverged at 2 kimg: loss_g is nan"
    assert math.isnan(record.rungs[-1].losses["loss_g"])
    assert record.best is not None


def _failing(*verdicts: str, images: int = 2000) -> list[Rung]:
    """A sound rung and one with these verdicts."""
    return [made_up.rung(1000, 3.0), replace(made_up.rung(images, 2.0), verdicts=verdicts)]


ALIKE, CONFIDENT = "mode-collapse: diversity is 0.1 < 0.5, for 500 steps", "over-confident-discriminator: it is: sure"


def test_a_trial_is_stopped_by_the_gravest_verdict_of_stop_on_with_its_evidence(tmp_path: Path) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep("stop_on=[mode-collapse, over-confident-discriminator]"))
    assert study.next_ticket() is not None
    assert study.report(0, _failing(CONFIDENT, ALIKE)) is Decision.PRUNE
    record = study.records()[0]
    assert (record.state, record.reason) == ("pruned", "over-confident-discriminator at 2 kimg: it is: sure")
    assert record.rungs[-1].verdicts == (CONFIDENT, ALIKE)
    assert record.best is not None


def test_verdicts_that_are_not_in_stop_on_are_only_recorded(study: SweepStudy, tmp_path: Path) -> None:
    assert study.next_ticket() is not None
    assert study.report(0, _failing(CONFIDENT, ALIKE)) is Decision.CONTINUE
    (tmp_path / "other").mkdir()
    other = SweepStudy.create(tmp_path / "other", made_up.sweep("stop_on=[mode-collapse]"))
    assert other.next_ticket() is not None
    assert other.report(0, _failing(CONFIDENT)) is Decision.CONTINUE


def test_a_failure_that_has_passed_by_the_last_rung_ends_nothing(tmp_path: Path) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep("stop_on=[mode-collapse]", "rungs=[1, 2, 3, 4]"))
    assert study.next_ticket() is not None
    assert study.report(0, [*_failing(ALIKE), made_up.rung(3000, 1.0)]) is Decision.CONTINUE


def test_a_trial_that_reached_its_end_is_complete_whatever_the_verdict(tmp_path: Path) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep("stop_on=[mode-collapse]"))
    assert study.next_ticket() is not None
    assert study.report(0, _failing(ALIKE, images=3000)) is Decision.COMPLETE
    assert study.records()[0].reason is None


def test_a_failed_trial_counts_and_says_why(study: SweepStudy) -> None:
    ticket = study.next_ticket()
    assert ticket is not None
    study.fail(ticket.number, "out of memory")
    assert (study.records()[0].state, study.records()[0].reason) == ("failed", "out of memory")
    following = study.next_ticket()
    assert following is not None
    assert following.number == 1


def test_trials_that_a_dead_driver_left_running_are_issued_again_unchanged(study: SweepStudy) -> None:
    first, second = study.next_ticket(), study.next_ticket()
    assert first is not None
    assert second is not None
    study.report(second.number, made_up.history(3.0))
    heir = SweepStudy.open(study.folder)
    assert heir is not None
    again = [heir.next_ticket(), heir.next_ticket(), heir.next_ticket()]
    assert [(t.number, t.attempt) for t in again if t] == [(0, 2), (1, 2), (2, 1)]
    assert again[0] is not None
    assert again[1] is not None
    assert (again[0].params, again[1].params) == (first.params, second.params)


def test_a_trial_whose_driver_died_while_asking_gets_the_rest_of_its_parameters(study: SweepStudy) -> None:
    study._study.ask()
    heir = SweepStudy.open(study.folder)
    assert heir is not None
    ticket = heir.next_ticket()
    assert ticket is not None
    assert ticket.number == 0
    heir.sweep.configure(ticket.params)


def test_rungs_the_study_lacks_are_made_up_for_and_known_ones_are_not_repeated(study: SweepStudy) -> None:
    ticket = study.next_ticket()
    assert ticket is not None
    study.report(ticket.number, made_up.history(3.0))
    heir = SweepStudy.open(study.folder)
    assert heir is not None
    assert heir.next_ticket() is not None
    assert heir.report(0, made_up.history(3.0)) is Decision.CONTINUE
    assert heir.report(0, made_up.history(3.0, 2.0, 1.0)) is Decision.COMPLETE
    assert [rung.images for rung in heir.records()[0].rungs] == [1000, 2000, 3000]


def test_the_same_seed_asks_for_the_same_trials_whether_or_not_the_driver_restarts(tmp_path: Path) -> None:
    def params(folder: Path, restart: bool) -> list[object]:
        folder.mkdir()
        study = SweepStudy.create(folder, made_up.sweep("sampler={name: tpe, startup: 2}"))
        found: list[object] = []
        for _ in range(5):
            if restart:
                reopened = SweepStudy.open(folder)
                assert reopened is not None
                study = reopened
            ticket = study.next_ticket()
            assert ticket is not None
            found.append(ticket.params)
            run_to_end(study, ticket.number, 3.0, 2.0, 1.0 + ticket.params["g_lr"])
        return found

    assert params(tmp_path / "a", restart=False) == params(tmp_path / "b", restart=True)


@pytest.mark.parametrize(
    "pruner", ["median", "{name: percentile, percentile: 50}", "halving", "freeze-thaw", "hyperband", "none", "patient"]
)
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_every_sampler_and_pruner_runs_a_sweep_to_its_end(tmp_path: Path, sampler: str, pruner: str) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep(f"sampler={sampler}", f"pruner={pruner}"))
    while (ticket := study.next_ticket()) is not None:
        run_to_end(study, ticket.number, 3.0, 2.0 + ticket.number, 1.0 + ticket.number)
    counts = status_of(study).counts
    assert sum(counts.values()) == 5
    assert counts["complete"] >= 1
    assert counts["running"] == counts["failed"] == 0


def test_a_grid_is_walked_once_in_its_order_whatever_restarts(tmp_path: Path) -> None:
    search = "search={seed: {choice: [0, 1]}, smoothing: {choice: [none, fixed]}, batch: 100}"
    study = SweepStudy.create(tmp_path, made_up.sweep("sampler=grid", "pruner=none", search, "budget.trials=4"))
    found = []
    while (ticket := study.next_ticket()) is not None:
        found.append((ticket.params["seed"], ticket.params["smoothing"]))
        run_to_end(study, ticket.number, 3.0, 2.0, 1.0)
        reopened = SweepStudy.open(tmp_path)
        assert reopened is not None
        study = reopened
    assert found == [(0, "none"), (0, "fixed"), (1, "none"), (1, "fixed")]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_points_come_first_and_the_sampler_fills_what_they_leave_out(tmp_path: Path, sampler: str) -> None:
    points = "points=[{g_lr: 0.001, smoothing: fixed, smoothing_strength: 0.25}, {smoothing: none}]"
    study = SweepStudy.create(tmp_path, made_up.sweep(f"sampler={sampler}", "pruner=none", points))
    tickets = []
    while (ticket := study.next_ticket()) is not None:
        tickets.append(ticket.params)
        run_to_end(study, ticket.number, 3.0, 2.0, 1.0)
    assert tickets[0] == {
        "system": "narman-cgan",
        "g_lr": 0.001,
        "smoothing": "fixed",
        "smoothing_strength": 0.25,
        "batch": 100,
    }
    assert tickets[1]["smoothing"] == "none"
    assert len({params["g_lr"] for params in tickets}) == 5


def test_the_study_keeps_the_sweep_it_was_made_for(study: SweepStudy) -> None:
    reopened = SweepStudy.open(study.folder)
    assert reopened is not None
    assert reopened.sweep == study.sweep


def test_there_is_no_study_in_an_empty_folder(tmp_path: Path) -> None:
    assert SweepStudy.open(tmp_path) is None


def test_parameter_importances_find_the_parameter_that_matters(tmp_path: Path) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep("budget.trials=12", "pruner=none"))
    assert study.importances() == {}
    while (ticket := study.next_ticket()) is not None:
        run_to_end(study, ticket.number, 99.0, 98.0, abs(math.log(ticket.params["g_lr"])))
    importances = study.importances()
    assert set(importances) == {"g_lr", "smoothing"}
    assert sum(importances.values()) == pytest.approx(1)
    assert next(iter(importances)) == "g_lr"
    assert importances["g_lr"] > 0.9


def test_a_status_names_the_sweep_it_cannot_find(tmp_path: Path) -> None:
    from orchestrator.study.status import read_status

    with pytest.raises(InputError, match=r"no sweep called 'nothing' .*there are no sweeps; name the folder"):
        read_status(tmp_path / "nothing")
