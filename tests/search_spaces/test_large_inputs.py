"""Large numbers and long files are answered at once: by a plan, or by a message that fits on a screen."""

from __future__ import annotations

from itertools import count, islice

import pytest

from search_spaces.load import parse_sweep
from search_spaces.plan import MOST_PLANNED, planned
from search_spaces.settings import MOST_TRIALS
from tests.support import made_up
from trainers.errors import InputError


def many(pattern: str, separator: str = ", ") -> str:
    """The text `pattern` for each of the numbers 0 to 4999."""
    return separator.join(pattern.format(number) for number in range(5000))


def message(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_sweep(text, "long.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        (made_up.TEXT + many("stray{}: 1", "\n"), "stray0: unknown key 'stray0'; allowed: name, system"),
        (
            made_up.TEXT.replace("doublings: 0", many("stray{}: 1")),
            "score.stray3: unknown key 'stray3'; allowed: metric",
        ),
        (made_up.TEXT.replace("batch: 100", many("x{}: {{choice: [1, 2]}}", "\n  ")), "search.x9: unknown field"),
        (
            made_up.TEXT.replace("trials: 5", "hours: 1") + f"points: [{many('{{x{}: 1}}')}]",
            "points.7.x7: unknown dimension 'x7'; allowed: system, g_lr",
        ),
        (made_up.TEXT + f"stop_on: [{many('v{}')}]", "stop_on.0: unknown verdict 'v0'"),
        (made_up.TEXT.replace("[fid]", f"[{many('m{}')}]"), "score.also.0: unknown metric 'm0'"),
        (made_up.TEXT.replace("narman-cgan", f"{{choice: [{many('s{}')}]}}"), "system: unknown system 's0'; allowed"),
        (made_up.TEXT.replace("{every: 1, until: 3}", f"[{many('x{}')}]"), "rungs.0: expected a number of kimg"),
        (made_up.TEXT + "name: twice\n" * 5000, "name: duplicate key"),
    ],
    ids=["keys", "keys of a section", "search", "points", "verdicts", "metrics", "systems", "rungs", "duplicates"],
)
def test_of_thousands_of_problems_ten_are_named_and_the_others_counted(text: str, fragment: str) -> None:
    *named, last = message(text).splitlines()
    assert len(named) == 10
    assert fragment in "\n".join(named)
    assert last == "long.yaml: 4,990 more problems like these"
    assert len("\n".join(named)) < 20_000


def test_the_middle_of_a_long_word_is_left_out_of_its_message() -> None:
    word = "k" * 100_000
    for text in (f"stop_on: {word}\n", f"objectives: [{word}]\n", f"warm_start: {{{word[:1000]}: {word}}}\n"):
        found = message(made_up.TEXT + text)
        assert len(found) < 5000
        assert "kkk [...] " in found


def test_however_many_trials_are_allowed_the_plan_is_short_and_begins_in_the_same_way() -> None:
    points = "points=[{g_lr: 1e-4}, {smoothing: none}]"
    few, most = (planned(made_up.sweep(f"budget.trials={trials}", points)) for trials in (50, MOST_TRIALS))
    assert len(most) == MOST_PLANNED
    assert most[:50] == few


def test_a_plan_of_more_points_than_are_planned_has_the_first_of_them() -> None:
    points = [{"g_lr": 1e-4 + number * 1e-8} for number in islice(count(), MOST_PLANNED + 5)]
    sweep = made_up.sweep("budget={hours: 1}").model_copy(update={"points": tuple(points)})
    assert [values["g_lr"] for values in planned(sweep)] == [point["g_lr"] for point in points[:MOST_PLANNED]]


@pytest.mark.parametrize("trials", [MOST_TRIALS + 1, 10**30, 10**90])
def test_a_budget_of_more_trials_than_anybody_can_run_is_refused(trials: int) -> None:
    text = made_up.TEXT.replace("trials: 5", f"trials: {trials}")
    assert f"budget.trials: input should be less than or equal to {MOST_TRIALS}" in message(text)
