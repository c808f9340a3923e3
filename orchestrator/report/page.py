"""The report's page: its tables, figures and pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.graph_objects import Figure

from orchestrator.report import charts
from orchestrator.report.published import REPORTED, differences
from orchestrator.store import store_of
from orchestrator.study.records import TrialRecord
from orchestrator.study.status import SweepStatus
from orchestrator.study.study import SweepStudy
from search_spaces.space import Dimension
from search_spaces.sweep import Sweep
from trainers.catalogue import SYSTEMS
from trainers.config import KIMG
from trainers.data.catalogue import DATASETS
from trainers.data.files import replaced
from trainers.data.samples import COLUMNS
from trainers.evaluation.scores import METRICS

SHOWN_GRIDS = 3
_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Cell:
    """One cell of the leaderboard: its text and its sort key. Empty cells come last in both directions."""

    text: str
    key: float | str = ""


@dataclass(frozen=True)
class Grid:
    """A sample grid as base64 PNG, with its caption."""

    png: str
    caption: str


def write_report(status: SweepStatus, study: SweepStudy, path: Path) -> None:
    """Writes the report of a sweep to `path` as `replaced` does, as a self-contained HTML file."""
    with replaced(path) as temporary:  # first, since a folder is refused before the work
        temporary.write_text(_page(status, study), encoding="utf-8")


def _page(status: SweepStatus, study: SweepStudy) -> str:
    sweep = study.sweep
    searched = [dimension for dimension in sweep.space if dimension.kind != "constant"]
    importances = study.importances()
    figures = _figures(status, searched, importances)
    drawn = {name: Markup(text) for name, text in charts.embedded(figures).items()}
    page: str = _ENVIRONMENT.get_template("report.html.j2").render(
        status=status,
        sweep=sweep,
        better=METRICS[status.metric].better,
        winner=_winner(status, searched),
        measures=_measures(status.records),
        columns=_columns(status, sweep, searched),
        rows=_rows(status, sweep, searched),
        searched=len(searched),
        compared=_compared(status, sweep),
        finals=_finals(status),
        figures={name: drawn.get(name) for name in figures},
        unscored=[_state(record) for record in status.records if not record.best],
        unranked=[d.name for d in searched if importances and d.name not in importances],
        conditional=[dimension.name for dimension in searched if dimension.when],
        grids=_grids(status, study),
    )
    return page


def _winner(status: SweepStatus, searched: Sequence[Dimension]) -> dict[str, Any] | None:
    """What the page says of the best trial; None before the first score."""
    record = status.best
    if record is None or record.best is None:
        return None
    scores, lead, names = record.best.scores, status.lead(), {dimension.name for dimension in searched}
    return {
        "number": record.number,
        "state": charts.kind_of(record),
        "score": scores[status.metric],
        "value": str(scores[status.metric]),
        "kimg": f"{record.best.images / KIMG:g}",
        "accuracy": f"{scores['accuracy'].value:.1%}" if "accuracy" in scores else None,
        "lead": lead and {"errors": f"{lead[1]:.1f}", "median": lead[0].number},
        "params": {name: charts.text_of(value) for name, value in record.params.items() if name in names},
    }


def _measures(records: Sequence[TrialRecord]) -> list[tuple[str, int, str, str, int]]:
    """All ways in which scores were measured: metric, N, extractor, reference and seed."""
    scores = [score for record in records for rung in record.rungs for score in rung.scores.values()]
    return list(dict.fromkeys((s.metric, s.n, s.extractor, s.reference, s.seed) for s in scores))


def _metrics(status: SweepStatus, sweep: Sweep) -> list[str]:
    recorded = {name for record in status.ranking if record.best for name in record.best.scores}
    return [name for name in sweep.metrics if name in recorded or name == status.metric]


def _columns(status: SweepStatus, sweep: Sweep, searched: Sequence[Dimension]) -> list[str]:
    metrics, names = _metrics(status, sweep), [dimension.name for dimension in searched]
    cost = ["GPU-hours", "Pareto"] if len(status.objectives) > 1 else []
    return ["rank", "trial", "state", "kimg", "best at", *metrics, "images/s", *cost, *names, "reason"]


def _rows(status: SweepStatus, sweep: Sweep, searched: Sequence[Dimension]) -> list[list[Cell]]:
    """The leaderboard: trials with a score by rank, then the others by number."""
    ranking, metrics, front = status.ranking, _metrics(status, sweep), status.pareto
    rows = []
    for position, record in enumerate([*ranking, *(record for record in status.records if not record.best)], 1):
        rank = Cell(str(position), position) if record.best else Cell("")
        scores = record.best.scores if record.best else {}
        rows.append(
            [
                rank,
                Cell(str(record.number), record.number),
                Cell(charts.kind_of(record), charts.kind_of(record)),
                _kimg(record.rungs[-1].images if record.rungs else None),
                _kimg(record.best.images if record.best else None),
                *(Cell(str(scores[name]), scores[name].value) if name in scores else Cell("") for name in metrics),
                _speed(record),
                *(_cost(record, front) if len(status.objectives) > 1 else ()),
                *(_parameter(record, dimension) for dimension in searched),
                Cell(record.reason or "", record.reason or ""),
            ]
        )
    return rows


def _kimg(images: int | None) -> Cell:
    return Cell("") if images is None else Cell(f"{images / KIMG:g}", images)


def _speed(record: TrialRecord) -> Cell:
    """Images per second of training over the whole trial."""
    seconds = sum(rung.train_seconds for rung in record.rungs)
    if seconds <= 0:
        return Cell("")
    return Cell(f"{record.rungs[-1].images / seconds:,.0f}", record.rungs[-1].images / seconds)


def _cost(record: TrialRecord, front: Sequence[int]) -> list[Cell]:
    """The trial's GPU-hours, and whether it is on the Pareto front."""
    hours = Cell(f"{record.gpu_hours[-1]:.3g}", record.gpu_hours[-1]) if record.gpu_hours else Cell("")
    return [hours, Cell("front", "front") if record.number in front else Cell("")]


def _parameter(record: TrialRecord, dimension: Dimension) -> Cell:
    value = record.params.get(dimension.name)
    if value is None:
        return Cell("")
    return Cell(charts.text_of(value), charts.text_of(value) if dimension.kind == "choice" else value)


def _state(record: TrialRecord) -> str:
    """The number of a trial, its state and the reason for it, as one phrase."""
    return f"trial {record.number} ({record.state}{': ' + record.reason if record.reason else ''})"


def _figures(
    status: SweepStatus, searched: Sequence[Dimension], importances: dict[str, float]
) -> dict[str, Figure | None]:
    """The page's figures by name, in order; None if there is too little to draw."""
    scored, best, names = status.ranking, status.best, [dimension.name for dimension in searched]
    enough = len(scored) >= 2 and searched
    return {
        "curves": charts.score_curves(status.records, status.metric, best.number, names) if best else None,
        "importances": charts.importance_bars(importances) if importances else None,
        "parallel": charts.parallel_coordinates(scored, searched, status.metric) if enough else None,
    }


def _compared(status: SweepStatus, sweep: Sweep) -> list[list[str]]:
    """Reported numbers beside those of the best trial of each system, and why they are not comparable."""
    rows, seen = [], set()
    for record in status.ranking:
        system = str(record.params["system"])
        if system in seen or not record.best:
            continue
        seen.add(system)
        for reported in REPORTED.get(system, ()):
            score = record.best.scores.get(reported.metric)
            if score is None:
                continue
            samples = f"{reported.samples:,}" if reported.samples else "unknown"
            why = differences(reported, score, sweep.dataset.name) or "nothing known"
            head = [system, reported.metric, f"{reported.text} ({reported.document})", samples]
            rows.append([*head, str(score), f"{score.n:,}", str(record.number), why])
    return rows


def _finals(status: SweepStatus) -> list[list[str]]:
    """The finalists' scores, ours beside clean-fid's, or the reason if a finalist could not be scored."""
    rows = []
    for record in status.finalists:
        number, final = str(record.number), record.final
        if final is not None:
            for name, score in final.ours.items():
                official = final.official[name]
                cells = [str(score), str(official), f"{score.n:,}", official.extractor]
                rows.append([number, f"{final.images / KIMG:g}", name, *cells])
        else:
            rows.append([number, "", "", "", "", "", record.final_fault or "not scored yet"])
    return rows


def _grids(status: SweepStatus, study: SweepStudy) -> list[Grid]:
    """Sample grids of the best trials: at the best rung, or else the latest one. None from another study's store."""
    store, shown = store_of(study.sweep, study.folder), []
    if not store.may_be_of(study.id):
        return []
    for record in status.ranking[:SHOWN_GRIDS]:
        grids = store.grids(record.number)
        if not grids or not record.best:
            continue
        images = record.best.images if record.best.images in grids else max(grids)
        scores = {rung.images: rung.scores[status.metric] for rung in record.rungs if status.metric in rung.scores}
        score = f"{status.metric} {scores[images]!s}" if images in scores else "no score"
        note = "; each column is one class" if _columns_are_classes(record, study.sweep) else ""
        caption = f"trial {record.number} at {images / KIMG:g} kimg: {score}{note}"
        shown.append(Grid(base64.b64encode(grids[images].read_bytes()).decode("ascii"), caption))
    return shown


def _columns_are_classes(record: TrialRecord, sweep: Sweep) -> bool:
    return SYSTEMS[record.params["system"]].conditional and DATASETS[sweep.dataset.name].classes == COLUMNS
