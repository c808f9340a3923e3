"""Pausing and promoting: nothing is lost by a pause, a restart changes no decision, and samplers see no idle trial."""

from __future__ import annotations

import math
import random
from pathlib import Path
from statistics import mean, variance

import pytest
from optuna.trial import TrialState

from orchestrator.study.status import status_of
from orchestrator.study.study import Decision, SweepStudy
from search_spaces.pruners.freeze_thaw import FreezeThawPolicy
from search_spaces.pruners.halving import HalvingPolicy
from search_spaces.pruners.rule import Curve, slice_end
from search_spaces.sweep import Sweep
from tests.support import made_up
from trainers.evaluation.scores import Score
from trainers.rungs import Rung

PRUNERS = ["freeze-thaw", "halving"]
RUNGS = 12


def sweep(pruner: str, *settings: str) -> Sweep:
    return made_up.sweep(f"pruner={pruner}", "rungs={every: 1, until: 12}", "budget.trials=16", *settings)


def history(number: int, rungs: int) -> list[Rung]:
    """A curve that falls from near 10 to a level of its own."""
    level = random.Random(number).uniform(1, 8)
    return made_up.history(*(level + (10 - level) / (1 + rung) for rung in range(rungs)))


def create(folder: Path, *settings: str) -> SweepStudy:
    folder.mkdir(exist_ok=True)
    return SweepStudy.create(folder, sweep(*settings))


def drive(study: SweepStudy, at_once: int, restart: bool = False) -> tuple[SweepStudy, list[tuple[int, str, int]]]:
    """Works through a study as trials do, `at_once` of them in turns; gives what was decided, rung by rung."""
    live: list[int] = []
    told: list[tuple[int, str, int]] = []
    while True:
        while len(live) < at_once and (ticket := study.next_ticket()) is not None:
            live.append(ticket.number)
        if not live:
            return study, told
        number = live.pop(0)
        passed = len(study.records()[number].rungs)
        decision = study.report(number, history(number, passed + 1))
        told.append((number, decision.value, passed + 1))
        if decision is Decision.CONTINUE:
            live.append(number)
        if restart:
            reopened = SweepStudy.open(study.folder)
            assert reopened is not None
            study, running = reopened, sorted(live)
            live = []
            for _ in running:
                ticket = study.next_ticket()
                assert ticket is not None
                live.append(ticket.number)
            assert sorted(live) == running, "what a dead driver left is issued first, and paused trials are not of it"


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_sweep_ends_with_its_budget_of_trials_and_its_leader_trained_to_the_end(tmp_path: Path, pruner: str) -> None:
    study, _ = drive(create(tmp_path, pruner), at_once=3)
    found = status_of(study)
    assert found.state == "complete"
    assert sum(found.counts.values()) == 16
    assert found.counts["running"] == found.counts["paused"] == 0
    assert found.best is not None
    assert found.best.state == "complete"
    trained = sum(len(record.rungs) for record in found.records)
    assert trained < 16 * RUNGS * 0.7
    for record in found.records:
        assert [rung.images for rung in record.rungs] == [1000 * (i + 1) for i in range(len(record.rungs))]
        if record.state == "pruned":
            kimg = record.rungs[-1].images / 1000
            assert record.reason == f"paused at {kimg:g} kimg and never promoted"


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_driver_that_dies_after_every_report_decides_the_same(tmp_path: Path, pruner: str) -> None:
    _, undisturbed = drive(create(tmp_path / "a", pruner, "sampler=random"), at_once=1)
    _, interrupted = drive(create(tmp_path / "b", pruner, "sampler=random"), at_once=1, restart=True)
    assert interrupted == undisturbed


def test_a_paused_trial_is_not_running_for_samplers_and_counts_with_its_best_value(tmp_path: Path) -> None:
    study = create(tmp_path, "freeze-thaw")
    ticket = study.next_ticket()
    assert ticket is not None
    assert study.report(ticket.number, history(0, 1)) is Decision.PAUSE
    (seen,) = study._sampling.get_trials(deepcopy=False)
    (kept,) = study._study.get_trials(deepcopy=False)
    assert (seen.state, kept.state) == (TrialState.COMPLETE, TrialState.RUNNING)
    assert seen.value == history(0, 1)[0].scores["kid"].value
    assert study._sampling.get_trials(deepcopy=False, states=(TrialState.RUNNING,)) == []
    assert study.records()[0].state == "paused"


def test_samplers_compare_trials_at_the_longest_rung_that_enough_of_them_reached(tmp_path: Path) -> None:
    study, _ = drive(create(tmp_path, "halving"), at_once=1)
    seen = study._sampling.get_trials(deepcopy=False)
    assert len(seen) == 16
    for number, trial in enumerate(seen):  # four went on, which are too few for a model of their own
        assert (trial.state, trial.value) == (TrialState.COMPLETE, history(number, 1)[0].scores["kid"].value)


def _near_optimum(folder: Path, pruner: str, seed: int) -> float:
    """Share of the last 20 of 40 trials that lie near the optimum of a known function; at random it is 0.2."""
    settings = [f"sampler={{name: tpe, seed: {seed}}}", "budget.trials=40", "search={beta1: {uniform: [0, 0.9]}}"]
    study, where = create(folder, pruner, *settings), {}
    while (ticket := study.next_ticket()) is not None:
        where[ticket.number] = ticket.params["beta1"]
        passed, decision = len(study.records()[ticket.number].rungs), Decision.CONTINUE
        while decision is Decision.CONTINUE:
            passed += 1
            level = 1 + abs(where[ticket.number] - 0.3)
            decision = study.report(ticket.number, made_up.history(*(level + 1 / (1 + rung) for rung in range(passed))))
    return sum(abs(where[number] - 0.3) < 0.09 for number in range(20, 40)) / 20


def test_the_estimator_samples_no_worse_with_pausing_than_with_stopping(tmp_path: Path) -> None:
    """Paused trials seen as running gave 0.22, seen as pruned at lengths of their own 0.43, stopping 0.47."""
    pausing, stopping = (
        [_near_optimum(tmp_path / f"{kind}{seed}", pruner, seed) for seed in range(100, 106)]
        for kind, pruner in enumerate(("freeze-thaw", "{name: median, startup: 5}"))
    )
    margin = 2 * math.sqrt((variance(pausing) + variance(stopping)) / len(pausing))
    assert mean(pausing) >= mean(stopping) - margin
    assert mean(pausing) >= 0.4


def curve(*values: float) -> Curve:
    """A curve with a rung at each step from 1 on."""
    scores = tuple(Score("kid", value, None, 100, "lenet-x", "mnist-mini-train-x", 0) for value in values)
    return Curve(tuple(range(1, 1 + len(values))), scores)


def test_the_trial_that_falls_fastest_is_resumed_before_one_that_is_better_but_flat() -> None:
    policy = FreezeThawPolicy(share=0.5, optimism=1.0, growth=1.5)
    for number, values in enumerate(((5.0, 4.9), (9.0, 5.1))):  # flat, falling
        policy.started(number)
        policy.paused(number, curve(values[0]))
        policy.resumed(number)
        policy.paused(number, curve(*values))
    assert policy.choose(may_start=False) == 1


def test_halving_promotes_one_in_so_many_and_the_best_of_them() -> None:
    policy = HalvingPolicy(reduction=3)
    for number, value in enumerate((5.0, 3.0, 4.0)):
        assert policy.choose(may_start=True) == "start"
        policy.started(number)
        policy.paused(number, curve(value))
    assert policy.choose(may_start=True) == 1
    assert policy.choose(may_start=True) == "start"


@pytest.mark.parametrize("policy", [FreezeThawPolicy(0.65, 0.5, 1.5), HalvingPolicy(4)], ids=["freeze-thaw", "halving"])
def test_a_trial_that_never_had_a_value_is_never_promoted(policy: FreezeThawPolicy | HalvingPolicy) -> None:
    policy.started(0)
    policy.paused(0, Curve((1,), (None,)))
    assert policy.choose(may_start=False) is None


def test_slices_grow_and_end_at_the_last_rung() -> None:
    rungs, ends, at = range(1, 21), [], 0
    while at < 20:
        at = slice_end(FreezeThawPolicy(0.65, 0.5, 1.5), rungs, at)
        ends.append(at)
    assert ends == [1, 2, 3, 5, 8, 12, 18, 20]
