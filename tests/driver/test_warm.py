"""Laws of a warm start: only what compares is learnt, it is learnt once, and nothing but the sampler knows of it."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestrator.driver.warm_start import earlier_studies, prior_trials
from orchestrator.study.status import status_of
from orchestrator.study.study import Decision, SweepStudy
from search_spaces.sweep import Sweep
from tests.support import made_up
from trainers.errors import InputError
from trainers.evaluation.evaluator import Evaluator

#: What scored the made-up rungs.
SCORER = cast(
    Evaluator,
    SimpleNamespace(extractor=SimpleNamespace(id="lenet-x"), reference=SimpleNamespace(id="mnist-mini-train-x")),
)
SEARCH = "search={g_lr: {log_uniform: [2e-5, 5e-3]}, batch: 100}"
TPE = "sampler={name: tpe, seed: 5, startup: 10}"


def sweep(name: str, *overrides: str) -> Sweep:
    return made_up.sweep(f"name={name}", "pruner=none", SEARCH, TPE, *overrides)


def run(study: SweepStudy, count: int) -> list[dict[str, Any]]:
    """Trials whose best score is the distance of their learning rate from 1e-3, in powers of ten."""
    found = []
    for _ in range(count):
        ticket = study.next_ticket()
        assert ticket is not None
        score = abs(math.log10(ticket.params["g_lr"]) + 3)
        assert study.report(ticket.number, made_up.history(9.0, 8.0, score)) is Decision.COMPLETE
        found.append(ticket.params)
    return found


@pytest.fixture
def earlier(tmp_path: Path) -> SweepStudy:
    (tmp_path / "old").mkdir()
    study = SweepStudy.create(tmp_path / "old", sweep("old", "budget.trials=30"))
    run(study, 30)
    return study


def begin(root: Path, text: Sweep) -> SweepStudy:
    (root / text.name).mkdir()
    return SweepStudy.create(root / text.name, text)


def test_a_warm_sampler_begins_where_the_earlier_sweep_has_come_to(tmp_path: Path, earlier: SweepStudy) -> None:
    def error(name: str, *overrides: str) -> float:
        study = begin(tmp_path, sweep(name, "budget.trials=9", *overrides))
        if study.sweep.warm_start:
            study.keep_prior_trials(prior_trials(study.sweep, earlier, SCORER).trials)
        return sum(abs(math.log10(params["g_lr"]) + 3) for params in run(study, 8)) / 8

    assert error("warm", "warm_start=[old]") < 0.5 * error("cold")


def test_prior_trials_are_no_trials_of_the_sweep(tmp_path: Path, earlier: SweepStudy) -> None:
    study = begin(tmp_path, sweep("new", "warm_start=[old]", "budget={trials: 3, target: 0}"))
    study.keep_prior_trials(prior_trials(study.sweep, earlier, SCORER).trials)
    assert status_of(study).spent.trials == 0
    assert status_of(study).best is None
    run(study, 3)
    assert [record.number for record in study.records()] == [0, 1, 2]
    assert study.next_ticket() is None


def test_a_restart_asks_for_the_same_trials_whatever_became_of_the_earlier_sweep(
    tmp_path: Path, earlier: SweepStudy
) -> None:
    def params(name: str, restart: bool) -> list[dict[str, Any]]:
        study, found = begin(tmp_path, sweep(name, "warm_start=[old]", "budget.trials=4")), []
        study.keep_prior_trials(prior_trials(study.sweep, earlier, SCORER).trials)
        for _ in range(4):
            if restart:
                reopened = SweepStudy.open(study.folder)
                assert reopened is not None
                assert reopened.has_prior_trials
                study = reopened
            found += run(study, 1)
        return found

    assert params("a", restart=False) == params("b", restart=True)


def test_a_driver_that_dies_while_it_keeps_prior_trials_has_kept_none(tmp_path: Path, earlier: SweepStudy) -> None:
    study = begin(tmp_path, sweep("new", "warm_start=[old]"))
    trials = prior_trials(study.sweep, earlier, SCORER).trials * 4
    write, left = study._study.set_user_attr, [2]

    def dying(key: str, value: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        write(key, value)

    study._study.set_user_attr = dying
    with pytest.raises(KeyboardInterrupt):
        study.keep_prior_trials(trials)
    heir = SweepStudy.open(study.folder)
    assert heir is not None
    assert not heir.has_prior_trials
    heir.keep_prior_trials(trials)
    assert heir.has_prior_trials
    assert len(heir._sampling.prior_trials) == len(trials) == 120


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ((), None),
        (("search.g_lr={uniform: [1e-5, 1e-2]}",), None),
        (("rungs={every: 1.5, until: 6}",), None),
        (("rungs=[0.5, 1]",), None),
        (("search.smoothing={choice: [fixed, none]}",), None),
        (("search.g_lr={uniform: [0.1, 0.2]}",), "g_lr outside the space"),
        (("search.batch=50",), "another batch"),
        (("search.smoothing=fixed",), "another smoothing"),
        (("system=narman-dcgan", "search={g_lr: {uniform: [1e-5, 1e-2]}, batch: 100}"), "system narman-cgan"),
        (("rungs=[0.5]",), "no score within 500 images"),
        (("search.width=0.2",), "another width"),
    ],
)
def test_trials_count_that_are_points_of_the_changed_space_with_scores_in_its_length(
    tmp_path: Path, earlier: SweepStudy, overrides: tuple[str, ...], reason: str | None
) -> None:
    found = prior_trials(sweep("new", "budget.trials=3", *overrides), earlier, SCORER)
    if reason is None:
        assert len(found.trials) == 30
        assert not found.passed_over
    else:
        assert found.trials == []
        ((why, count),) = found.passed_over.items()
        assert count == 30
        assert why.startswith(reason)
        assert f"0 trials; 30 not: {reason}" in str(found)


def test_a_field_that_was_not_searched_is_known_by_its_value(tmp_path: Path, earlier: SweepStudy) -> None:
    found = prior_trials(
        sweep("new", "search.batch={choice: [50, 100]}", "search.slope={uniform: [0, 0.9]}"), earlier, SCORER
    )
    assert len(found.trials) == 30
    assert {trial["params"]["batch"] for trial in found.trials} == {100}
    assert len({trial["params"]["slope"] for trial in found.trials}) == 1


def test_scores_by_another_network_or_on_other_images_do_not_count(tmp_path: Path, earlier: SweepStudy) -> None:
    for other, reason in (
        (
            SimpleNamespace(extractor=SimpleNamespace(id="cnn-y"), reference=SCORER.reference),
            "extractor lenet-x is not",
        ),
        (
            SimpleNamespace(extractor=SCORER.extractor, reference=SimpleNamespace(id="z")),
            "reference mnist-mini-train-x",
        ),
    ):
        found = prior_trials(sweep("new"), earlier, cast(Evaluator, other))
        assert found.trials == []
        assert str(found).startswith(f"warm start from old: 0 trials; 30 not: {reason}")


def test_failed_and_running_trials_are_no_prior_trials(tmp_path: Path) -> None:
    study = begin(tmp_path, sweep("old"))
    for _ in range(2):
        assert study.next_ticket() is not None
    study.report(0, made_up.history(1.0))
    study.fail(0, "no")
    study.report(1, made_up.history(1.0))
    assert prior_trials(sweep("new"), study, SCORER).passed_over == {"failed": 1, "running": 1}


def test_earlier_sweeps_are_found_by_name_and_by_folder(tmp_path: Path, earlier: SweepStudy) -> None:
    for word in ("old", str(tmp_path / "old")):
        assert [study.sweep.name for study in earlier_studies(sweep("new", f"warm_start=[{word}]"), tmp_path)] == [
            "old"
        ]
    with pytest.raises(InputError, match="warm_start: older is no sweep in"):
        earlier_studies(sweep("new", "warm_start=[older]"), tmp_path)
    other = sweep("new", "warm_start=[old]", "score.metric=fid", "score.also=[]")
    with pytest.raises(InputError, match="warm_start: old decides by kid, not fid"):
        earlier_studies(other, tmp_path)


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
@pytest.mark.parametrize("pruner", ["none", "median", "freeze-thaw"])
def test_every_learning_sampler_takes_prior_trials_under_every_kind_of_pruner(
    tmp_path: Path, earlier: SweepStudy, sampler: str, pruner: str
) -> None:
    overrides = ("warm_start=[old]", f"sampler={{name: {sampler}, startup: 3}}", "rungs={every: 1, until: 4}")
    study = begin(tmp_path, replace_pruner(sweep("new", *overrides), pruner))
    study.keep_prior_trials(prior_trials(study.sweep, earlier, SCORER).trials)
    while (ticket := study.next_ticket()) is not None:
        kids = [4.0 - rung + ticket.number / 10 for rung in range(4)]
        passed = len(study.records()[ticket.number].rungs)
        for count in range(passed + 1, 5):
            if study.report(ticket.number, made_up.history(*kids[:count])) is not Decision.CONTINUE:
                break
    assert len(study.records()) == 5


def replace_pruner(text: Sweep, pruner: str) -> Sweep:
    return text.model_copy(update={"pruner": made_up.sweep(f"pruner={pruner}").pruner})
