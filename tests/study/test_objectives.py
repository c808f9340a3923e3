"""Laws of several objectives: pruning knows the score alone, samplers know both, and the front is what nobody beats."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from optuna.storages import JournalStorage
from typer.testing import CliRunner

from orchestrator.cli.__main__ import app
from orchestrator.cli.requests import add_trials
from orchestrator.decisions.objectives import pareto_front
from orchestrator.driver.progress import trial_line
from orchestrator.driver.warm_start import prior_trials
from orchestrator.paths import JOURNAL, mlflow_uri
from orchestrator.report import write_report
from orchestrator.study.journal import Journal
from orchestrator.study.status import status_of
from orchestrator.study.study import Decision, SweepStudy
from orchestrator.tracking.tracker import Tracker
from search_spaces.load import parse_sweep
from tests.driver.test_warm import SCORER
from tests.report.test_report import Page
from tests.support import made_up, sweeps
from trainers.errors import InputError
from trainers.rungs import Rung

BOTH = "objectives=[score, gpu_hours]"
NUMBERS = "search={beta1: {uniform: [0, 0.9]}, slope: {uniform: [0, 0.9]}, batch: 100}"


def history(seconds: float, *kids: float) -> list[Rung]:
    """Rungs with these KIDs, each of so many seconds of training and none of scoring."""
    return [replace(rung, train_seconds=seconds, score_seconds=0.0) for rung in made_up.history(*kids)]


def create(folder: Path, *overrides: str) -> SweepStudy:
    folder.mkdir(exist_ok=True)
    return SweepStudy.create(folder, made_up.sweep(BOTH, *overrides))


# The sweep file


def test_objectives_are_the_score_alone_unless_more_are_asked_for() -> None:
    assert made_up.sweep().objectives == ("score",)
    both = made_up.sweep(BOTH)
    assert both.objectives == ("score", "gpu_hours")
    assert parse_sweep(both.normalised()) == both


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["objectives=[score, hours]"], "objectives.1: unknown objective 'hours'"),
        (["objectives=[score, hours]"], "allowed: score, gpu_hours"),
        (["objectives=[score, score]"], "objectives: a word is listed twice in ['score', 'score']"),
        (
            ["objectives=[gpu_hours, score]"],
            "objectives: score must come first, got ['gpu_hours', 'score']; allowed: [",
        ),
        (["objectives=gpu_hours"], "score must come first, got ['gpu_hours']; allowed: [score], [score, gpu_hours]"),
        (["objectives=[]"], "objectives: score must come first, got []"),
        (["objectives={score: 1}"], "objectives: expected a list of words, got {'score': 1}"),
        (
            [BOTH, NUMBERS, "sampler=cmaes"],
            "sampler.name: cmaes takes only one objective; allowed with several: tpe, ",
        ),
        (
            [BOTH, "pruner=hyperband"],
            "pruner.name: hyperband takes only one objective; allowed with several: freeze-t",
        ),
        (
            [BOTH, "sampler=tpe", "warm_start=[old]"],
            "warm_start: GPU-hours of other sweeps, perhaps of other machines,",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_key_value_and_what_is_allowed(overrides: list[str], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        made_up.sweep(*overrides)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("override", ["sampler=cmaes", "pruner=hyperband"])
def test_what_takes_one_objective_is_free_to_take_it(override: str) -> None:
    made_up.sweep("objectives=score", NUMBERS, override)


# Decisions


def decisions(study: SweepStudy) -> list[tuple[int, int, Decision]]:
    """What becomes of each trial after each of its rungs, two at a time, in order of time."""
    found: list[tuple[int, int, Decision]] = []
    live: list[int] = []
    while True:
        while len(live) < 2 and (ticket := study.next_ticket()) is not None:
            live.append(ticket.number)
        if not live:
            return found
        number = live.pop(0)
        passed, decision = len(study.records()[number].rungs), Decision.CONTINUE
        while decision is Decision.CONTINUE:
            passed += 1
            # No trial improves at its second rung, and one in five ends far above its best.
            kids = [
                (number * 37 % 11) + 6 / max(rung, 2) + 9 * (rung > 3 and number % 5 == 0)
                for rung in range(1, passed + 1)
            ]
            decision = study.report(number, history(1.0 + number % 3, *kids))
            found.append((number, passed, decision))


@pytest.mark.parametrize(
    ("pruner", "expected"),
    [
        ("freeze-thaw", Decision.PAUSE),
        ("halving", Decision.PAUSE),
        ("{name: median, startup: 2}", Decision.PRUNE),
        ("{name: percentile, startup: 2}", Decision.PRUNE),
        ("{name: patient, patience: 1}", Decision.PRUNE),
        ("{name: threshold, upper: 9}", Decision.PRUNE),
        ("none", Decision.COMPLETE),
    ],
)
def test_decisions_are_those_of_a_sweep_by_score_alone(tmp_path: Path, pruner: str, expected: Decision) -> None:
    changes = (f"pruner={pruner}", "rungs={every: 1, until: 6}", "budget.trials=14")
    both = decisions(create(tmp_path / "both", *changes))
    (tmp_path / "one").mkdir()
    assert both == decisions(SweepStudy.create(tmp_path / "one", made_up.sweep(*changes)))
    assert expected in {decision for _, _, decision in both}


def test_a_restarted_driver_decides_the_same(tmp_path: Path) -> None:
    study = create(tmp_path, "pruner=freeze-thaw", "sampler={name: nsga2, population: 2}", NUMBERS, "budget.trials=8")
    decisions(study)
    again = SweepStudy.open(tmp_path)
    assert again is not None
    assert again.records() == study.records()
    assert status_of(again).state == "complete"


def test_trials_are_added_to_a_sweep_that_was_complete(tmp_path: Path) -> None:
    study = create(tmp_path / "made-up", "pruner=none", "budget.trials=2")
    decisions(study)
    add_trials(study.folder, None, 1)
    again = SweepStudy.open(study.folder)
    assert again is not None
    decisions(again)
    assert [record.state for record in again.records()] == ["complete"] * 3


def test_its_scores_teach_a_sweep_by_score_alone(tmp_path: Path) -> None:
    study = create(tmp_path, "pruner=none", "budget.trials=3")
    decisions(study)
    found = prior_trials(made_up.sweep("name=new", "sampler=tpe"), study, SCORER)
    assert [set(trial["values"]) for trial in found.trials] == [{1000, 2000, 3000}] * 3


# What a trial is worth


def test_a_complete_trial_is_worth_its_best_score_and_the_gpu_hours_that_budgets_count(tmp_path: Path) -> None:
    study = create(tmp_path, "pruner=none", "resources.gpus_per_worker=0.5")
    assert study.next_ticket() is not None
    study.report(0, made_up.history(3.0, 1.0, 2.0))
    (trial,) = study._study.get_trials()
    assert trial.values == [1.0, pytest.approx(3 * 1.1 * 0.5 / 3600)]
    assert trial.values[1] == pytest.approx(status_of(study).spent.gpu_hours)
    assert study.records()[0].gpu_hours == pytest.approx([hours * 1.1 * 0.5 / 3600 for hours in (1, 2, 3)])


@pytest.mark.parametrize("pruner", ["{name: threshold, upper: 8}", "freeze-thaw"])
@pytest.mark.parametrize("sampler", ["tpe", "gp", "{name: nsga2, population: 2}"])
def test_samplers_see_what_was_pruned_or_paused_with_the_hours_of_a_whole_trial(
    tmp_path: Path, sampler: str, pruner: str
) -> None:
    study = create(tmp_path, f"sampler={sampler}", f"pruner={pruner}", NUMBERS, "budget.trials=3")
    assert study.next_ticket() is not None
    study.report(0, history(1200.0, 9.0))
    assert study.records()[0].state == ("paused" if pruner == "freeze-thaw" else "pruned")
    (seen,) = study._sampling._get_trials()
    assert seen.state.name == "COMPLETE"
    assert seen.values == [9.0, pytest.approx(1.0)]


def test_a_trial_without_a_score_teaches_nothing_and_ends_nothing(tmp_path: Path) -> None:
    study = create(tmp_path, "sampler={name: tpe, startup: 1}", NUMBERS, "budget.trials=4", "pruner=none")
    for number in range(4):
        assert study.next_ticket() is not None
        study.report(number, [made_up.rung(1000, 0.0, diverged="loss_g is nan")])
    assert [record.state for record in study.records()] == ["pruned"] * 4
    assert status_of(study).pareto == []


# The front


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_the_front_is_what_no_other_point_dominates(points: list[tuple[int, int]]) -> None:
    def dominated(point: tuple[int, int]) -> bool:
        return any(other[0] <= point[0] and other[1] <= point[1] and other != point for other in points)

    found = pareto_front([(float(a), float(b)) for a, b in points])
    assert sorted(found) == [index for index, point in enumerate(points) if not dominated(point)]
    assert [points[index] for index in found] == sorted(points[index] for index in found)


@pytest.fixture
def study(tmp_path: Path) -> SweepStudy:
    """Trials 0 and 3 are the front: 1 is beaten in both, 2 was pruned before anybody knew, 4 is under way."""
    study = create(tmp_path / "made-up", "pruner={name: threshold, upper: 8}")
    for kid, seconds in ((3.0, 400.0), (4.0, 800.0), (9.0, 1.0), (1.0, 800.0)):
        ticket = study.next_ticket()
        assert ticket is not None
        study.report(ticket.number, history(seconds, kid))
        if kid < 9:
            study.report(ticket.number, history(seconds, kid, kid, kid))
    assert study.next_ticket() is not None
    return study


def test_the_status_names_the_front_by_score_and_the_best_stays_the_best_by_score(study: SweepStudy) -> None:
    status = status_of(study)
    assert status.pareto == [3, 0]
    assert status.to_json()["pareto"] == [3, 0]
    assert status.best is not None
    assert status.best.number == 3
    assert "pareto" not in status_of(SweepStudy.create(study.folder.parent, made_up.sweep("name=one"))).to_json()


def test_a_metric_to_be_maximised_has_a_front_too(tmp_path: Path) -> None:
    study = create(tmp_path, "pruner=none", "score.metric=accuracy", "score.also=[]", "score.samples=1000")
    for value, seconds in ((0.5, 1.0), (0.9, 2.0), (0.4, 3.0)):
        ticket = study.next_ticket()
        assert ticket is not None
        rungs = history(seconds, value, value, value)
        scores = [{"accuracy": replace(rung.scores["kid"], metric="accuracy")} for rung in rungs]
        study.report(ticket.number, [replace(r, scores=s) for r, s in zip(rungs, scores, strict=True)])
    assert status_of(study).pareto == [1, 0]


def test_lines_and_report_show_gpu_hours_and_the_front(study: SweepStudy) -> None:
    status = status_of(study)
    assert "kid 1.000 ± 0.010  fid 100  0.667 GPU-hours" in trial_line(status.records[3], "kid")
    done = CliRunner().invoke(app, ["status", "made-up", "--root", str(study.folder.parent)])
    assert "Pareto front of kid and GPU-hours: trials 3, 0" in done.output
    write_report(status, study, study.folder / "report.html")
    page = Page((study.folder / "report.html").read_text())
    hours, marks = page.column("GPU-hours"), page.column("Pareto")
    shown = dict(zip(page.column("trial"), zip(hours, marks, strict=True), strict=True))
    assert (shown["0"], shown["1"], shown["4"]) == (("0.333", "front"), ("0.667", ""), ("", ""))


def test_a_report_by_score_alone_has_no_such_columns(tmp_path: Path) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep())
    assert study.next_ticket() is not None
    study.report(0, made_up.history(3.0))
    write_report(status_of(study), study, tmp_path / "report.html")
    assert not {"GPU-hours", "Pareto"} & set(Page((tmp_path / "report.html").read_text()).rows[0])
    assert "GPU-hours" not in trial_line(study.records()[0], "kid")


def test_mlflow_marks_the_front_and_a_trial_that_is_dominated_later_loses_its_mark(study: SweepStudy) -> None:
    root = study.folder.parent

    def marked() -> set[int]:
        client = MlflowClient(mlflow_uri(root))
        runs = client.search_runs([client.get_experiment_by_name("made-up").experiment_id])
        return {int(run.data.tags["gansweep.trial"]) for run in runs if run.data.tags.get("gansweep.pareto") == "true"}

    tracker = Tracker(root, study.sweep, study.id)
    for record in study.records():
        tracker.sync(record, lambda number: {})
    tracker.mark([1])
    assert marked() == {1}
    tracker.mark(status_of(study).pareto)
    assert marked() == {0, 3}
    study.report(4, history(300.0, 2.0, 2.0, 2.0))
    (report := study.folder / "report.html").write_text("<html>")
    heir = Tracker(root, study.sweep, study.id)
    heir.sync(study.records()[4], lambda number: {})
    heir.finish(status_of(study), report)
    assert marked() == {3, 4}


def test_the_official_dashboard_opens_a_study_of_two_objectives(study: SweepStudy) -> None:
    from optuna_dashboard import wsgi  # type: ignore[import-untyped]

    application = wsgi(JournalStorage(Journal(str(study.folder / JOURNAL))))

    def ask(path: str) -> Any:
        environment = {"PATH_INFO": path}
        setup_testing_defaults(environment)
        answered: list[str] = []
        start: Callable[..., object] = lambda status, headers, error=None: answered.append(status)  # noqa: E731
        body = b"".join(application(environment, start))
        assert answered == ["200 OK"], body
        return json.loads(body)

    (summary,) = ask("/api/studies")["study_summaries"]
    detail = ask(f"/api/studies/{summary['study_id']}")
    assert detail["directions"] == ["minimize", "minimize"]
    assert detail["trials"][3]["values"] == [1.0, pytest.approx(2400 / 3600)]


@pytest.mark.slow
@pytest.mark.usefixtures("mnist_mini_lenet")
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_real_sweep_by_two_objectives_prunes_and_ends_with_a_front(
    tmp_path: Path, cache_dir: Path, sampler: str
) -> None:
    text = sweeps.TINY + f"objectives: [score, gpu_hours]\nsampler: {sampler}\n"
    if sampler == "nsga2":  # takes no conditions
        text = text.replace("  smoothing_strength: {uniform: [0.02, 0.3], when: {smoothing: fixed}}\n", "")
    sweeps.prepare(tmp_path, cache_dir, text)
    done = sweeps.gansweep("launch", "tiny.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "GPU-hours" in done.stdout
    assert "Pareto front of kid and GPU-hours: trials " in done.stdout
    found = sweeps.status("tiny", tmp_path)
    records = sweeps.records(tmp_path / "runs" / "tiny")
    complete = {record.number: record for record in records if record.state == "complete"}
    assert found["state"] == "complete"
    assert set(found["pareto"]) <= set(complete)
    assert found["best"]["trial"] in found["pareto"] or records[found["best"]["trial"]].state == "pruned"
    fastest = min(complete.values(), key=lambda record: record.gpu_hours[-1])
    assert fastest.number in found["pareto"]
    client = MlflowClient(mlflow_uri(tmp_path / "runs"))
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    marked = [int(run.data.tags["gansweep.trial"]) for run in runs if "gansweep.pareto" in run.data.tags]
    assert sorted(marked) == sorted(found["pareto"])
    again = sweeps.gansweep("launch", "tiny.yaml", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "is complete" in again.stdout
