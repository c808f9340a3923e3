"""The report's figures: functions from a sweep's data to plotly figures, and the style that all pages share."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from plotly.graph_objects import Bar, Figure, Parcoords, Scatter

from orchestrator.study.records import TrialRecord
from search_spaces.space import Dimension
from trainers.config import KIMG
from trainers.evaluation.scores import METRICS
from trainers.rungs import Rung

NOT_SET = "not set"
_INK, BLUE, ORANGE, TEAL = "#1f2933", "#2f6fa7", "#c2410c", "#0f766e"
#: Arguments of plotly's axes and of its legend.
AXIS = {"gridcolor": "#e4e8ec", "zeroline": False, "automargin": True}
LEGEND_ABOVE = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
_DARK_TO_LIGHT = ["#08306b", "#3f7fb5", "#b9cbd9"]
#: Line colour, dash and marker of the last point, by the kind of a trial as in `kind_of`.
_STYLES = {
    "complete": (BLUE, "solid", "circle"),
    "running": (TEAL, "solid", "circle-open"),
    "paused": ("#98a2ad", "solid", "circle-open"),
    "pruned": ("#98a2ad", "dash", "x"),
    "diverged": ("#b91c1c", "dot", "star-triangle-down"),
    "failed": ("#7c3aed", "dot", "square"),
}


def kind_of(record: TrialRecord) -> str:
    """The state of a trial, or `diverged` if its last rung diverged."""
    return "diverged" if record.rungs and record.rungs[-1].diverged else record.state


def text_of(value: Any) -> str:
    """The value of a parameter or of a tick as short text: 2e-5, 0.25, true."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")
    return str(value)


def score_curves(records: Sequence[TrialRecord], metric: str, best: int | None, names: Sequence[str]) -> Figure:
    """The score of each trial over kimg; trial `best` is drawn last, with bars of ±2 standard errors.

    The hover text shows the parameters `names`. The axis of scores is logarithmic if every score is positive.
    """
    scored = [record for record in records if record.best]
    figure = empty_figure(480)
    for record in sorted(scored, key=lambda record: record.number == best):
        figure.add_trace(_curve(record, metric, record.number == best, names))
    for kind in {kind_of(record): None for record in scored if record.number != best}:
        figure.add_trace(_legend_entry(kind))
    logarithmic = _all_positive(rung.scores[metric].value for record in scored for rung in _sound(record, metric))
    figure.update_xaxes(title="kimg (thousands of images)", rangemode="tozero", **AXIS)
    figure.update_yaxes(
        title=f"{metric} ({METRICS[metric].better} is better)", type="log" if logarithmic else "linear", **AXIS
    )
    if logarithmic:  # ticks 0.002 0.005 0.01; plotly's default labels are 2 5 0.01
        figure.update_yaxes(tickformat="~g", dtick="D2")
    figure.update_layout(legend=LEGEND_ABOVE, hovermode="closest")
    return figure


def importance_bars(importances: Mapping[str, float]) -> Figure:
    """One bar for each parameter's share of the importance, the first one on top; the shares add up to 1."""
    names, shares = list(importances), list(importances.values())
    figure = empty_figure(40 + 32 * len(names))
    labels = [f"{share:.0%}" for share in shares]
    figure.add_trace(Bar(x=shares, y=names, orientation="h", text=labels, textposition="outside", cliponaxis=False))
    figure.update_traces(marker_color=BLUE, hovertemplate="%{y}: %{text}<extra></extra>")
    figure.update_yaxes(autorange="reversed", automargin=True, ticksuffix="  ")
    figure.update_xaxes(visible=False, range=[0, max([*shares, 0.01]) * 1.12])
    return figure


def parallel_coordinates(records: Sequence[TrialRecord], dimensions: Sequence[Dimension], metric: str) -> Figure:
    """One line for each scored trial, through its parameters to its best score; dark lines are good.

    If a trial lacks a conditional parameter, its line crosses that axis at an extra tick below the range.
    """
    scored = [record for record in records if record.best]
    axes = [_parameter_axis(each, [record.params.get(each.name) for record in scored]) for each in dimensions]
    scores = [record.best.scores[metric].value for record in scored if record.best]
    axes.append(_axis(metric, scores, min(scores), max(scores), _all_positive(scores)))
    figure = empty_figure(460)
    colours = {"color": axes[-1]["values"], "colorscale": _DARK_TO_LIGHT, "reversescale": not METRICS[metric].minimise}
    figure.add_trace(Parcoords(dimensions=axes, line=colours, labelangle=-20, labelfont_size=13, tickfont_size=12))
    figure.update_layout(margin={"l": 70, "r": 60, "t": 90, "b": 30})
    return figure


def embedded(figures: Mapping[str, Figure | None]) -> dict[str, str]:
    """The figures that exist, as HTML elements for one page, by name; the first one contains plotly.js for all."""
    drawn = {name: figure for name, figure in figures.items() if figure is not None}
    config = {"responsive": True, "displayModeBar": False}
    return {
        name: figure.to_html(full_html=False, include_plotlyjs=place == 0, div_id=name, config=config)
        for place, (name, figure) in enumerate(drawn.items())
    }


def empty_figure(height: int) -> Figure:
    """A figure in the report's style, without traces, `height` pixels high."""
    figure = Figure()
    font = {"family": "system-ui, sans-serif", "size": 13, "color": _INK}
    margin = {"l": 10, "r": 20, "t": 20, "b": 10}
    figure.update_layout(template="none", height=height, font=font, margin=margin)
    return figure


def _sound(record: TrialRecord, metric: str) -> list[Rung]:
    return [rung for rung in record.rungs if metric in rung.scores]


def _all_positive(values: Iterable[float]) -> bool:
    return all(value > 0 for value in values)


def _curve(record: TrialRecord, metric: str, best: bool, names: Sequence[str]) -> Scatter:
    rungs, kind = _sound(record, metric), kind_of(record)
    colour, dash, end = _STYLES[kind]
    errors = [2 * (rung.scores[metric].stderr or 0) for rung in rungs]
    return Scatter(
        x=[rung.images / KIMG for rung in rungs],
        y=[rung.scores[metric].value for rung in rungs],
        error_y={"array": errors, "thickness": 1.5, "width": 4} if best and any(errors) else None,
        mode="lines+markers",
        line={"color": ORANGE if best else colour, "dash": dash, "width": 3.5 if best else 1.6},
        marker={"symbol": ["circle"] * (len(rungs) - 1) + [end], "size": [5] * (len(rungs) - 1) + [9], "opacity": 1},
        opacity=1 if best else 0.75,
        text=[_hover(record, rung, metric, names) for rung in rungs],
        hoverinfo="text",
        name=f"best: trial {record.number} ({kind})",
        legendgroup="best" if best else kind,
        showlegend=best,
    )


def _legend_entry(kind: str) -> Scatter:
    """A trace without points, whose legend entry stands for all trials of a kind and shows or hides them."""
    colour, dash, end = _STYLES[kind]
    line, marker = {"color": colour, "dash": dash, "width": 1.6}, {"symbol": end, "size": 9}
    return Scatter(x=[None], y=[None], mode="lines+markers", line=line, marker=marker, name=kind, legendgroup=kind)


def _hover(record: TrialRecord, rung: Rung, metric: str, names: Sequence[str]) -> str:
    score = rung.scores[metric]
    params = [f"{name} = {text_of(record.params[name])}" for name in names if record.params.get(name) is not None]
    result = f"{rung.images / KIMG:g} kimg: {metric} {score}"
    lines = [f"trial {record.number}, {kind_of(record)}", result, *params]
    return "<br>".join(html.escape(line) for line in lines)


def _parameter_axis(dimension: Dimension, values: Sequence[Any]) -> dict[str, Any]:
    if dimension.kind == "choice":
        places = [None if value is None else float(dimension.values.index(value)) for value in values]
        ticks = {float(place): text_of(value) for place, value in enumerate(dimension.values)}
        return _spanned(dimension.name, places, ticks, gap=1.0)
    whole = dimension.kind == "int"
    return _axis(dimension.name, values, dimension.low, dimension.high, dimension.kind == "log_uniform", whole)


def _axis(
    label: str, values: Sequence[float | None], low: float, high: float, logarithmic: bool, whole: bool = False
) -> dict[str, Any]:
    """A numerical axis from `low` to `high`. If it is logarithmic, its values are log10, its labels are not."""
    marks = _log_ticks(low, high) if logarithmic else _linear_ticks(low, high, whole)

    def place(value: float) -> float:
        return math.log10(value) if logarithmic else float(value)

    places = [None if value is None else place(value) for value in values]
    ticks = {place(mark): text_of(mark) for mark in marks}
    return _spanned(label, places, ticks, gap=0.15 * (place(high) - place(low)))


def _spanned(label: str, places: Sequence[float | None], ticks: dict[float, str], gap: float) -> dict[str, Any]:
    """An axis over its ticks. If a place is None, it is drawn at one more tick, `gap` below the others."""
    low, high = min(ticks), max(ticks)
    if low == high:
        low, high, gap = low - 0.5, high + 0.5, 0.25
    if None in places:
        low -= gap
        ticks = {low: NOT_SET, **ticks}
    filled = [low if place is None else place for place in places]
    return {
        "label": label,
        "values": filled,
        "range": [low, high],
        "tickvals": list(ticks),
        "ticktext": list(ticks.values()),
    }


def _linear_ticks(low: float, high: float, whole: bool) -> list[float]:
    """Every whole number if there are at most eleven, else five values at equal distances."""
    if whole and high - low <= 10:
        return list(range(int(low), int(high) + 1))
    marks = [low + (high - low) * part / 4 for part in range(5)]
    return list(dict.fromkeys(round(mark) if whole else mark for mark in marks))


def _log_ticks(low: float, high: float) -> list[float]:
    """Both ends and the powers of ten between them; for less than two decades also their doubles and fivefolds."""
    span = math.log10(high / low)
    steps = (1, 2, 5) if span < 2 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [float(f"{step}e{decade}") for decade in decades for step in steps]
    # A tick closer to an end than a twelfth of the axis would overprint it.
    inner = [mark for mark in marks if math.log10(mark / low) > span / 12 and math.log10(high / mark) > span / 12]
    return list(dict.fromkeys([low, *inner, high]))
