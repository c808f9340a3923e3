"""Laws of the reported numbers and of what compares with them."""

from __future__ import annotations

from pathlib import Path

from orchestrator.report import write_report
from orchestrator.report.published import REPORTED, differences
from orchestrator.study.status import status_of
from orchestrator.study.study import SweepStudy
from tests.support import made_up
from trainers.catalogue import SYSTEMS
from trainers.evaluation.scores import METRICS, Score


def score(metric: str, extractor: str, n: int) -> Score:
    return Score(metric, 1.0, 0.1, n, extractor, "mnist-train-x", 0)


def test_every_reported_number_belongs_to_a_system_and_a_metric() -> None:
    assert set(REPORTED) <= set(SYSTEMS)
    for numbers in REPORTED.values():
        assert numbers
        assert {number.metric for number in numbers} <= set(METRICS)
        assert all(any(character.isdigit() for character in number.text) for number in numbers)


def test_what_differs_is_named_and_what_agrees_compares() -> None:
    reported = next(number for number in REPORTED["narman-cgan"] if number.metric == "is")
    assert differences(reported, score("is", "lenet-1", 10_000), "mnist") == ""
    why = differences(reported, score("is", "inception-1", 2000), "mnist-mini")
    for part in ("mnist-mini", "inception-1", "N 2,000, reported 10,000"):
        assert part in why
    toh = REPORTED["toh-cgan-1"][0]
    assert "reported N unknown" in differences(toh, score("fid", "inception-1", 10_000), "cifar10")


def test_a_report_sets_the_reported_number_beside_the_measured_one(tmp_path: Path) -> None:
    settings = ("system=toh-cgan-1", "dataset=shapes32", "search.smoothing=none", "search.smoothing_strength=0.1")
    study = SweepStudy.create(tmp_path, made_up.sweep(*settings))
    assert study.next_ticket() is not None
    for count in (1, 2, 3):
        study.report(0, made_up.history(3.0, 1.0, 2.0)[:count])
    write_report(status_of(study), study, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Compared with the reports" in page
    assert "36 (toh-2024)" in page
    assert "data set shapes32, reported cifar10; extractor lenet-x, reported inception" in page


def test_a_system_without_a_report_has_no_such_table(tmp_path: Path) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep("system=narman-cgan-no9"))
    assert study.next_ticket() is not None
    study.report(0, made_up.history(3.0))
    write_report(status_of(study), study, tmp_path / "report.html")
    assert "Compared with the reports" not in (tmp_path / "report.html").read_text()
