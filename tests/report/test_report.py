"""Laws of the report: self-contained, complete, honest, and safe against what it is told."""

from __future__ import annotations

import base64
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.report import charts, write_report
from orchestrator.study.records import TrialRecord
from orchestrator.study.status import status_of
from orchestrator.study.study import Decision, SweepStudy
from search_spaces.load import parse_sweep
from search_spaces.space import Dimension
from trainers.data.samples import save_png
from trainers.evaluation.scores import Score
from trainers.rungs import Rung

SWEEP = """
name: made-up
system: narman-cgan
dataset: mnist-mini
search:
  g_lr: {log_uniform: [2e-5, 5e-3]}
  n_critic: {int: [1, 3]}
  smoothing: {choice: [none, fixed]}
  smoothing_strength: {uniform: [0.02, 0.3], when: {smoothing: fixed}}
  batch: 100
rungs: {every: 1, until: 3}
score: {metric: kid, samples: 100, also: [fid, accuracy]}
sampler: {name: random, seed: 1}
pruner: none
budget: {trials: 12}
"""
HOSTILE = '<script>alert(1)</script> & "quotes"'


class Page(HTMLParser):
    """A report as a browser reads it: its elements' attributes and its text by element."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._tag = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._tag = tag
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._tag = "" if tag in ("script", "style", "td", "th") else self._tag

    def handle_data(self, data: str) -> None:
        if self._tag in ("script", "style"):
            return
        self.text += " ".join(data.split()) + " "
        if self._tag in ("td", "th", "button", "span") and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()

    def column(self, name: str) -> list[str]:
        """One column of the leaderboard, which is the first table."""
        index = self.rows[0].index(name)
        return [row[index] for row in self.rows[1:] if len(row) == len(self.rows[0])]

    @property
    def pictures(self) -> list[str]:
        return [value for tag, name, value in self.attributes if (tag, name) == ("img", "src")]


def rung(images: int, kid: float, **change: Any) -> Rung:
    def score(metric: str, value: float, stderr: float | None) -> Score:
        return Score(metric, value, stderr, 100, "lenet-abc", "mnist-mini-test", 0)

    scores = {
        "kid": score("kid", kid, abs(kid) / 20),
        "fid": score("fid", 900 * kid, None),
        "accuracy": score("accuracy", 0.875, 0.01),
    }
    return Rung(
        **{"images": images, "scores": scores, "losses": {}, "train_seconds": 0.5, "score_seconds": 0.1, **change}
    )


def diverged(images: int) -> Rung:
    return rung(images, 1.0, scores={}, losses={"loss_g": math.nan}, diverged="loss_g is nan")


@pytest.fixture
def study(tmp_path: Path) -> SweepStudy:
    (tmp_path / "made-up").mkdir()
    return SweepStudy.create(tmp_path / "made-up", parse_sweep(SWEEP))


def complete(study: SweepStudy, kid: float) -> int:
    """A trial that ends with `kid`, having had twice that and half as much again."""
    ticket = study.next_ticket()
    assert ticket is not None
    history = [rung(1000, 2 * kid), rung(2000, 1.5 * kid), rung(3000, kid)]
    assert study.report(ticket.number, history) is Decision.COMPLETE
    return ticket.number


def begin(study: SweepStudy, *history: Rung) -> int:
    ticket = study.next_ticket()
    assert ticket is not None
    if history:
        study.report(ticket.number, history)
    return ticket.number


def page_of(study: SweepStudy) -> Page:
    path = study.folder / "report.html"
    write_report(status_of(study), study, path)
    return Page(path.read_text(encoding="utf-8"))


def test_every_trial_is_listed_best_first_and_those_without_a_score_last(study: SweepStudy) -> None:
    for kid in (0.04, 0.01, 0.02):
        complete(study, kid)
    begin(study, diverged(1000))
    begin(study, rung(1000, 0.03))
    study.fail(begin(study), "out of memory")
    page = page_of(study)
    assert page.column("trial") == ["1", "2", "4", "0", "3", "5"]
    assert page.column("rank") == ["1", "2", "3", "4", "", ""]
    assert page.column("state") == ["complete", "complete", "running", "complete", "diverged", "failed"]
    assert page.column("kimg") == ["3", "3", "1", "3", "1", ""]
    assert page.column("images/s")[:3] == ["2,000", "2,000", "2,000"]
    assert page.column("reason")[-2:] == ["diverged at 1 kimg: loss_g is nan", "out of memory"]


def test_the_winner_is_named_with_its_score_error_accuracy_and_lead(study: SweepStudy) -> None:
    for kid in (0.04, 0.01, 0.02):
        complete(study, kid)
    text = page_of(study).text
    assert "Best: trial 1 with kid 0.01000 ± 0.00050 at 3 kimg" in text
    assert "8.9 combined standard errors better than the median trial 2" in text  # 0.01 / hypot(0.0005, 0.001)
    assert "87.5% of its samples are classified as the class they were generated for" in text


def test_each_score_stands_with_its_standard_error_where_it_has_one(study: SweepStudy) -> None:
    complete(study, 0.04)
    page = page_of(study)
    assert page.column("kid") == ["0.0400 ± 0.0020"]
    assert page.column("fid") == ["36"]
    assert page.column("accuracy") == ["0.875 ± 0.010"]


def test_the_way_of_measuring_is_told(study: SweepStudy) -> None:
    complete(study, 0.04)
    assert ["kid", "100", "0", "lenet-abc", "mnist-mini-test"] in page_of(study).rows


def test_the_page_loads_nothing_and_forbids_itself_to(study: SweepStudy) -> None:
    for kid in (0.04, 0.01, 0.02):
        complete(study, kid)
    save_png(np.zeros((4, 4, 3), np.uint8), study.folder / "store/trials/00001/samples/000003000.png")
    page = page_of(study)
    loads = [value for _, name, value in page.attributes if name in ("src", "href", "data", "action", "srcset")]
    assert loads
    assert all(value.startswith("data:") for value in loads)
    assert not any(tag in ("link", "iframe", "object") for tag, _, _ in page.attributes)
    assert any(name == "content" and value.startswith("default-src 'none'") for _, name, value in page.attributes)
    assert page.source.count("plotly.js v") == 1


def test_what_a_trial_says_of_its_failure_is_shown_not_run(study: SweepStudy) -> None:
    complete(study, 0.04)
    study.fail(begin(study), HOSTILE)
    page = page_of(study)
    assert HOSTILE in page.column("reason")
    assert "<script>alert(1)" not in page.source


def test_the_three_best_trials_show_the_samples_of_their_best_rung_or_else_the_latest(study: SweepStudy) -> None:
    pictures = {}
    for kid, grids in ((0.01, (2000, 3000)), (0.02, (1000, 2000)), (0.03, ()), (0.04, (3000,))):
        number = complete(study, kid)
        for images in grids:
            path = study.folder / f"store/trials/{number:05d}/samples/{images:09d}.png"
            save_png(np.full((4, 4, 3), 16 * number + images // 1000, np.uint8), path)
            pictures[number, images] = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    page = page_of(study)
    assert page.pictures == [pictures[0, 3000], pictures[1, 2000]]
    assert "trial 0 at 3 kimg: kid 0.01000 ± 0.00050; each column is one class" in page.text
    assert "trial 1 at 2 kimg: kid 0.0300 ± 0.0015; each column is one class" in page.text


def test_only_searched_parameters_are_columns_and_an_inactive_one_is_empty(study: SweepStudy) -> None:
    for kid in (0.04, 0.01, 0.02, 0.03, 0.05):
        complete(study, kid)
    page = page_of(study)
    assert page.rows[0][-5:] == ["g_lr", "n_critic", "smoothing", "smoothing_strength", "reason"]
    strengths = dict(zip(page.column("trial"), page.column("smoothing_strength"), strict=True))
    smoothings = dict(zip(page.column("trial"), page.column("smoothing"), strict=True))
    assert set(smoothings.values()) == {"none", "fixed"}
    assert all((strengths[trial] == "") == (smoothings[trial] == "none") for trial in smoothings)


def test_importances_name_the_parameters_they_leave_out(study: SweepStudy) -> None:
    for index in range(12):
        ticket = study.next_ticket()
        assert ticket is not None
        if ticket.params["smoothing"] == "none":
            study.report(ticket.number, [rung(3000, 0.01 * (1 + index % 5))])
        else:  # hence no complete trial has the conditional parameter
            study.fail(ticket.number, "out of memory")
    assert status_of(study).counts["complete"] >= 3
    text = page_of(study).text
    assert "Left out, since not every trial has them: smoothing_strength." in text
    assert "crosses its axis at “not set”." in text


def test_too_few_trials_for_a_figure_give_a_sentence(study: SweepStudy) -> None:
    complete(study, 0.04)
    text = page_of(study).text
    assert "Importances need a searched parameter and at least four scored trials" in text
    assert "at least two trials with a score" in text
    assert "combined standard errors" not in text


def test_a_sweep_without_trials_has_a_report(study: SweepStudy) -> None:
    text = page_of(study).text
    assert "No trial has begun." in text
    assert "No trial has a score yet." in text
    assert "0 of 12 trials" in text


def test_a_sweep_whose_trials_all_diverged_has_a_report_that_lists_them(study: SweepStudy) -> None:
    for _ in range(3):
        begin(study, diverged(1000))
    page = page_of(study)
    assert page.column("trial") == ["0", "1", "2"]
    assert "No trial has a score yet." in page.text
    assert "trial 2 (pruned: diverged at 1 kimg: loss_g is nan)" in page.text


def test_a_report_is_replaced_whole_and_leaves_no_temporary_file(study: SweepStudy) -> None:
    page_of(study)
    complete(study, 0.04)
    assert "Best: trial 0" in page_of(study).text
    assert [path.name for path in study.folder.iterdir() if "report" in path.name] == ["report.html"]


def test_the_same_study_gives_the_same_report(study: SweepStudy) -> None:
    for kid in (0.04, 0.01, 0.02):
        complete(study, kid)
    assert page_of(study).source == page_of(study).source


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [(0.012345, 0.00056, "0.01235 ± 0.00056"), (31.2, None, "31.2"), (123.4, 17.0, "123 ± 17"), (1.0, 0.0, "1")],
)
def test_a_value_ends_at_the_second_digit_of_its_error(value: float, stderr: float | None, text: str) -> None:
    assert str(Score("kid", value, stderr, 100, "lenet", "test", 0)) == text


def record(
    number: int, params: dict[str, Any], *kids: float, state: str = "complete", last: Rung | None = None
) -> TrialRecord:
    rungs = tuple(rung(1000 * (index + 1), kid) for index, kid in enumerate(kids))
    best = min(rungs, key=lambda rung: rung.scores["kid"].value, default=None)
    return TrialRecord(number, state, params, (*rungs, last) if last else rungs, best, None)


def test_the_score_axis_is_logarithmic_only_where_every_score_is_positive() -> None:
    positive, negative = record(0, {}, 0.2, 0.1), record(1, {}, 0.2, -0.001)
    assert charts.score_curves([positive], "kid", 0, []).layout.yaxis.type == "log"
    assert charts.score_curves([positive, negative], "kid", 1, []).layout.yaxis.type == "linear"


def test_a_curve_shows_how_its_trial_ended() -> None:
    trials = [
        record(0, {"g_lr": 2e-5}, 0.2, 0.1),
        record(1, {"g_lr": 1e-3}, 0.4, 0.3, state="pruned"),
        record(2, {"g_lr": 1e-3}, 0.5, state="pruned", last=diverged(2000)),
        record(3, {"g_lr": 1e-3}, 0.6, state="failed"),
    ]
    figure = charts.score_curves(trials, "kid", 0, ["g_lr"])
    curves = {trace.name: trace for trace in figure.data if trace.y[0] is not None}
    by_group = {curve.legendgroup: curve for curve in curves.values()}
    assert set(by_group) == {"best", "pruned", "diverged", "failed"}
    assert (by_group["pruned"].line.dash, by_group["pruned"].marker.symbol[-1]) == ("dash", "x")
    assert len({by_group[kind].marker.symbol[-1] for kind in by_group}) == 4
    assert by_group["best"].line.width > by_group["pruned"].line.width
    assert "trial 1, pruned<br>2 kimg: kid 0.300 ± 0.015<br>g_lr = 0.001" in by_group["pruned"].text


def test_only_the_best_curve_has_bars_of_two_standard_errors() -> None:
    figure = charts.score_curves([record(0, {}, 0.2, 0.1), record(1, {}, 0.4)], "kid", 0, [])
    bars = {trace.legendgroup: trace.error_y.array for trace in figure.data if trace.y[0] is not None}
    assert list(bars["best"]) == pytest.approx([0.02, 0.01])
    assert bars["complete"] is None


def axes_of(records: list[TrialRecord], *dimensions: Dimension) -> dict[str, Any]:
    (trace,) = charts.parallel_coordinates(records, dimensions, "kid").data
    return {axis.label: axis for axis in trace.dimensions}


def test_a_logarithmic_parameter_has_ticks_of_its_real_values_at_their_logarithms() -> None:
    dimension = Dimension("g_lr", "log_uniform", 1e-5, 1e-2)
    axis = axes_of([record(0, {"g_lr": 1e-4}, 0.1), record(1, {"g_lr": 1e-2}, 0.2)], dimension)["g_lr"]
    assert list(axis.values) == pytest.approx([-4, -2])
    assert dict(zip(axis.ticktext, axis.tickvals, strict=True)) == pytest.approx(
        {"1e-5": -5, "0.0001": -4, "0.001": -3, "0.01": -2}
    )


def test_a_choice_has_one_named_tick_for_each_value() -> None:
    dimension = Dimension("smoothing", "choice", values=("none", "fixed", "random"))
    axis = axes_of([record(0, {"smoothing": "random"}, 0.1), record(1, {"smoothing": "none"}, 0.2)], dimension)[
        "smoothing"
    ]
    assert (list(axis.ticktext), list(axis.tickvals)) == (["none", "fixed", "random"], [0, 1, 2])
    assert list(axis.values) == [2, 0]


@pytest.mark.parametrize(
    "dimension",
    [
        Dimension("x", "uniform", 0.0, 0.3, when={"smoothing": ("fixed",)}),
        Dimension("x", "log_uniform", 0.001, 0.3, when={"smoothing": ("fixed",)}),
        Dimension("x", "int", 0, 0, when={"smoothing": ("fixed",)}),
        Dimension("x", "choice", values=(0.0, 0.3), when={"smoothing": ("fixed",)}),
    ],
    ids=lambda dimension: dimension.kind,
)
def test_a_trial_without_a_conditional_parameter_lies_below_every_real_value(dimension: Dimension) -> None:
    extremes = dimension.extremes()
    records = [record(0, {}, 0.1), *(record(index, {"x": value}, 0.2) for index, value in enumerate(extremes, 1))]
    axis = axes_of(records, dimension)["x"]
    ticks = dict(zip(axis.ticktext, axis.tickvals, strict=True))
    assert axis.values[0] == ticks["not set"] == axis.range[0]
    assert all(axis.values[0] < place <= axis.range[1] for place in axis.values[1:])
    complete_axis = axes_of(records[1:] * 2, dimension)["x"]
    assert "not set" not in complete_axis.ticktext
