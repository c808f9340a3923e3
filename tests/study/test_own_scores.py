"""Laws of the pruners that look at a trial's own scores alone: patience and bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.study.study import Decision, SweepStudy
from search_spaces.pruners.own_scores import Patient, Threshold
from search_spaces.pruners.percentile import Median
from search_spaces.pruners.rule import Curve, Pruner
from tests.support import made_up
from trainers.rungs import Rung


def accuracies(*values: float) -> list[Rung]:
    """Rungs whose only score is better the larger it is."""
    rungs = made_up.history(*values)
    return [replace(r, scores={"accuracy": replace(r.scores["kid"], metric="accuracy")}) for r in rungs]


def reason_of(pruner: Pruner, rungs: list[Rung], metric: str) -> str | None:
    """Why the pruner ends a trial with these rungs, without any other trial; None if it goes on."""
    curve = Curve(tuple(rung.images for rung in rungs), tuple(rung.scores.get(metric) for rung in rungs))
    answer = pruner.judge(curve, [], most_images=0)
    return answer.reason if answer.kind == "prune" else None


@pytest.mark.parametrize(
    ("kids", "min_delta", "ends"),
    [
        ((5.0, 4.0, 3.0, 2.0), 0.0, False),
        ((5.0, 1.0, 2.0, 2.0), 0.0, True),
        ((5.0, 1.0, 1.0, 1.0), 0.0, True),
        ((1.0, 2.0), 0.0, False),  # no more rungs than patience
        ((9.0, 1.0, 2.0, 3.0, 0.9), 0.0, False),
        ((9.0, 1.0, 2.0, 3.0, 0.9), 0.2, True),
    ],
)
def test_patience_ends_where_the_last_rungs_bring_no_improvement(
    kids: tuple[float, ...], min_delta: float, ends: bool
) -> None:
    reason = reason_of(Patient(patience=2, min_delta=min_delta), made_up.history(*kids), "kid")
    assert (reason is not None) == ends


def test_patience_knows_which_way_a_metric_is_better() -> None:
    assert reason_of(Patient(patience=1), accuracies(0.5, 0.6), "accuracy") is None
    assert reason_of(Patient(patience=1), accuracies(0.6, 0.5), "accuracy") is not None


def test_rungs_without_a_score_are_not_held_against_a_trial() -> None:
    unscored = replace(made_up.rung(3000, 0.0), scores={})
    assert reason_of(Patient(patience=2), [*made_up.history(2.0, 1.0), unscored], "kid") is None


@pytest.mark.parametrize(
    ("kids", "reason"),
    [
        ((3.0, 2.0), None),
        ((9.0, 2.0, 9.0), None),  # the best until now counts
        ((9.0,), "kid 9.000 ± 0.010 is above 3"),
        ((3.015,), None),  # within two standard errors of 0.01
        ((3.03,), "kid 3.030 ± 0.010 is above 3"),
        ((0.5,), "kid 0.500 ± 0.010 is below 1"),
    ],
)
def test_a_threshold_ends_what_is_surely_beyond_it(kids: tuple[float, ...], reason: str | None) -> None:
    assert reason_of(Threshold(lower=1.0, upper=3.0), made_up.history(*kids), "kid") == reason


def test_a_threshold_may_have_one_bound_only() -> None:
    assert reason_of(Threshold(upper=3.0), made_up.history(-9.0), "kid") is None
    assert reason_of(Threshold(lower=0.4), accuracies(0.3), "accuracy") is not None


@pytest.mark.parametrize("pruner", [Patient(patience=1, warmup=3), Threshold(upper=1.0, warmup=3)])
def test_nothing_ends_before_the_warmup(pruner: Patient | Threshold) -> None:
    assert reason_of(pruner, made_up.history(8.0, 9.0), "kid") is None
    assert reason_of(pruner, made_up.history(8.0, 9.0, 9.0), "kid") is not None


def test_other_pruners_are_not_concerned() -> None:
    assert reason_of(Median(), made_up.history(8.0, 9.0), "kid") is None


@pytest.mark.parametrize(
    ("pruner", "reason"),
    [
        (
            "{name: patient, patience: 1}",
            "patient pruner at 2 kimg: kid 2.000 ± 0.010 in the last rung, 1.000 ± 0.010 before",
        ),
        ("{name: threshold, upper: 0.5}", "threshold pruner at 1 kimg: kid 1.000 ± 0.010 is above 0.5"),
    ],
)
def test_the_reason_is_kept_with_the_trial(tmp_path: Path, pruner: str, reason: str) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep(f"pruner={pruner}"))
    assert study.next_ticket() is not None
    decisions = []
    for passed in (1, 2):
        decisions.append(study.report(0, made_up.history(*(1.0, 2.0)[:passed])))
        if decisions[-1] is not Decision.CONTINUE:
            break
    assert decisions[-1] is Decision.PRUNE
    assert study.records()[0].reason == reason
