"""Laws of pruning: a trial is cut where it is worse beyond doubt, and looked at again where there is doubt."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cluster.trial import SweepTrial
from orchestrator.store import store_of
from orchestrator.study.study import Decision, SweepStudy
from search_spaces.pruners.percentile import compare, more_images, percentile_score
from search_spaces.pruners.rule import Curve
from tests.support import made_up
from trainers.evaluation.scores import Judgement, Score
from trainers.rungs import Rung


def score(value: float, stderr: float | None = 0.01, metric: str = "kid", n: int = 100) -> Score:
    return Score(metric, value, stderr, n, "lenet-x", "mnist-mini-train-x", 0)


def with_kid(rung: Rung, stderr: float, n: int = 100) -> Rung:
    return replace(rung, scores={**rung.scores, "kid": replace(rung.scores["kid"], stderr=stderr, n=n)})


def test_the_best_score_is_that_of_the_rungs_so_far() -> None:
    curve = Curve((1000, 2000, 3000, 4000), (score(3.0), score(1.0), score(2.0), None))
    assert [curve.best(images) for images in (1000, 2000, 3000, 4000)] == [score(3.0), *[score(1.0)] * 3]
    assert (curve.best(999), Curve((1000,), (None,)).best()) == (None, None)
    assert (curve.cost(), curve.cost(999)) == (1.0, math.inf)
    upwards = Curve((1, 2), (score(0.1, metric="accuracy"), score(0.9, metric="accuracy")))
    assert upwards.cost() == -0.9


@pytest.mark.parametrize(
    ("percentile", "value", "stderr"), [(0, 1, 0.1), (50, 3, 0.3), (100, 9, 0.9), (25, 1.5, (0.05**2 + 0.1**2) ** 0.5)]
)
def test_the_line_is_the_percentile_from_the_best_with_the_errors_it_stands_on(
    percentile: float, value: float, stderr: float
) -> None:
    scores = [score(float(value), value / 10) for value in (9, 3, 1)]
    if percentile == 25:
        scores = [score(9.0, 0.9), score(2.0, 0.2), score(1.0, 0.1)]
    found = percentile_score(scores, percentile)
    assert (found.value, found.stderr) == (pytest.approx(value), pytest.approx(stderr))


def test_the_line_of_a_metric_to_be_maximised_counts_from_the_highest() -> None:
    found = percentile_score([score(value, metric="accuracy") for value in (0.1, 0.5, 0.9)], 0)
    assert found.value == 0.9


@pytest.mark.parametrize(
    ("mine", "other", "expected"),
    [
        (score(1.0, 0.1), score(2.0, 0.1), Judgement.BETTER),
        (score(2.0, 0.1), score(1.0, 0.1), Judgement.WORSE),
        # 0.25 apart: more than two errors of either, less than two of their difference.
        (score(1.25, 0.1), score(1.0, 0.1), Judgement.UNDECIDED),
        (score(1.25, 0.1), score(1.0, 0.0), Judgement.WORSE),
        (score(2.0, None, "fid"), score(1.9, None, "fid"), Judgement.WORSE),
    ],
)
def test_the_error_of_the_difference_decides(mine: Score, other: Score, expected: Judgement) -> None:
    assert compare(mine, other) is expected


def test_scores_that_do_not_compare_are_refused() -> None:
    with pytest.raises(ValueError, match="do not compare"):
        compare(score(1, None, "fid", n=100), score(1, None, "fid", n=200))


@pytest.mark.parametrize(
    ("looked_at", "most", "expected"),
    [(score(1.0), 400, 200), (score(1.0, n=200), 400, 400), (score(1.0, n=400), 400, None), (score(1.0), 100, None)],
)
def test_a_closer_look_takes_twice_the_images_up_to_a_limit(looked_at: Score, most: int, expected: int | None) -> None:
    assert more_images(looked_at, most) == expected


def test_a_closer_look_is_in_vain_for_scores_that_depend_on_their_number_of_images() -> None:
    assert more_images(score(1.0, None, "fid"), 10_000) is None
    assert more_images(score(1.0, 0.1, "is"), 10_000) is None


@pytest.fixture
def study(tmp_path: Path) -> SweepStudy:
    """Two trials are complete with 3 at the first rung; a third one is open."""
    study = SweepStudy.create(tmp_path, made_up.sweep("score.doublings=1"))
    for _ in range(2):
        ticket = study.next_ticket()
        assert ticket is not None
        for count in (1, 2, 3):
            study.report(ticket.number, made_up.history(3.0, 2.0, 1.0)[:count])
    assert study.next_ticket() is not None
    return study


def test_an_undecided_trial_is_measured_again_and_nothing_is_recorded_before(study: SweepStudy) -> None:
    rung = with_kid(made_up.rung(1000, 3.5), 0.5)
    assert study.report(2, [rung]) is Decision.MEASURE
    assert study.images_to_measure([rung]) == 200
    assert study.records()[2].rungs == ()
    surer = with_kid(rung, 0.05, n=200)
    assert study.report(2, [surer]) is Decision.PRUNE
    record = study.records()[2]
    assert record.rungs == (surer,)
    assert record.reason == "median pruner at 1 kimg: kid 3.500 ± 0.050 against 3.0000 ± 0.0071"


def test_a_trial_that_stays_undecided_goes_on(study: SweepStudy) -> None:
    assert study.report(2, [with_kid(made_up.rung(1000, 3.5), 0.5, n=200)]) is Decision.CONTINUE


def test_a_better_trial_goes_on_without_a_closer_look(study: SweepStudy) -> None:
    assert study.report(2, [with_kid(made_up.rung(1000, 1.0), 0.5)]) is Decision.CONTINUE


def test_a_trial_whose_best_lies_behind_is_not_measured_where_it_is_now(study: SweepStudy) -> None:
    first = with_kid(made_up.rung(1000, 2.9), 0.5, n=200)
    assert study.report(2, [first]) is Decision.CONTINUE
    # 2.9 +- 0.5 is undecided against the others' 2, but to measure 9 again would not tell.
    assert study.report(2, [first, with_kid(made_up.rung(2000, 9.0), 0.5)]) is Decision.CONTINUE


def test_the_last_rung_completes_a_trial_however_near_the_line(study: SweepStudy) -> None:
    history = [with_kid(rung, 5.0, n=200) for rung in made_up.history(3.0, 2.0, 1.0)]
    history[-1] = with_kid(history[-1], 5.0, n=100)
    for count in (1, 2):
        assert study.report(2, history[:count]) is Decision.CONTINUE
    assert study.report(2, history) is Decision.COMPLETE


def test_a_restarted_trial_is_judged_again_as_before_its_crash(study: SweepStudy) -> None:
    rung = with_kid(made_up.rung(1000, 3.5), 0.5)
    assert study.report(2, [rung]) is Decision.MEASURE
    reopened = SweepStudy.open(study.folder)
    assert reopened is not None
    ticket = reopened.next_ticket()
    assert ticket is not None
    assert ticket.number == 2
    assert reopened.report(2, [rung]) is Decision.MEASURE


def test_a_trial_scores_its_last_rung_on_as_many_images_as_asked_and_trains_nothing(
    tmp_path: Path, cache_dir: Path
) -> None:
    sweep = made_up.sweep("search={width: 0.1, batch: 10}", "rungs=[0.01, 0.02]", "score.also=[accuracy]")
    store = store_of(sweep, tmp_path)
    trial = SweepTrial(sweep, tmp_path, cache_dir, 0, {"system": "narman-cgan", "width": 0.1, "batch": 10}, 1)
    (first,) = trial.advance()
    store.request(0, 10, 200)
    (again,) = trial.advance()
    assert (again.images, again.losses) == (first.images, first.losses)
    assert (again.scores["kid"].n, again.scores["accuracy"].n) == (200, 100)
    assert again.scores["accuracy"] == first.scores["accuracy"]
    resumed = SweepTrial(sweep, tmp_path, cache_dir, 0, {"system": "narman-cgan", "width": 0.1, "batch": 10}, 2)
    assert resumed.advance() == [again]
    assert [rung.images for rung in resumed.advance()] == [10, 20]
