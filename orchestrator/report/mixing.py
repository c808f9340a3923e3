"""Table and page of a study that trains classifiers on mixes of real and generated images.

Both show our accuracies beside those that narman-2019 reports.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from plotly.graph_objects import Figure, Scatter

from orchestrator.report import charts
from trainers.data.files import replaced
from trainers.tools.mix_study import Settings
from trainers.tools.mixing import (
    BATCH,
    LEARNING_RATE,
    REPORTED_DATASET,
    REPORTED_EPOCHS,
    REPORTED_IMAGES,
    STRATEGIES,
    Point,
    reported_at,
)

TABLE, PAGE = "table.md", "mix-study.html"
_COLOURS = dict(zip(STRATEGIES, (charts.BLUE, charts.ORANGE, charts.TEAL), strict=True))
#: Errors in % at which the axis of accuracies has ticks.
_TICKS = (90, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1)
#: Percent of real images whose validation curves are drawn.
_CURVES_AT = 10


def write_results(settings: Settings, points: Sequence[Point], folder: Path) -> str:
    """Writes table and page to `folder`; returns the table, in Markdown. `points` must not be empty."""
    text = table(settings, points)
    for name, content in ((TABLE, text), (PAGE, page(settings, points))):
        with replaced(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return text


def table(settings: Settings, points: Sequence[Point]) -> str:
    """The facts and a table in Markdown: accuracies in %, reported ones and seconds, by number of real images.

    There is a row for each number of real images, and a column for each strategy.
    """
    names = [name for name in STRATEGIES if any(point.strategy == name for point in points)]
    titles = [title for name in names for title in (_title(name), "reported")]
    head = ["% real", "real", *titles, *(f"seconds, {_title(name)}" for name in names)]
    rows = [head, ["---:"] * len(head)]
    seeds = sorted({point.seed for point in points})
    reported = reported_at(settings.images, settings.classes)
    for real in sorted({point.real for point in points}):
        groups = [_group(points, name, real) for name in names]
        numbers = [f"{100 * reported[real][name]:.1f}" if real in reported else "" for name in names]
        cells = [cell for group, number in zip(groups, numbers, strict=True) for cell in (_cell(group, seeds), number)]
        seconds = [f"{mean(point.seconds for point in group):.1f}" if group else "" for group in groups]
        rows.append([_percent(real, settings), f"{real:,}", *cells, *seconds])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*_facts(settings, seeds), "", *lines, ""])


def page(settings: Settings, points: Sequence[Point]) -> str:
    """A self-contained HTML file: accuracy over the share of real images, and validation curves."""
    seeds = sorted({point.seed for point in points})
    share, curves = validation_curves(settings, points)
    facts = "".join(f"<p>{html.escape(line)}</p>" for line in _facts(settings, seeds) if line)
    figures = charts.embedded({"accuracies": accuracies(settings, points), "curves": curves})
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Real and generated images</title>'
        '<body style="font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 1.5rem auto; padding: 0 1rem">'
        f"<h1>Classifiers trained on real and generated images</h1>{facts}{figures['accuracies']}"
        f"<h2>Accuracy on validation images, {share} % real</h2>{figures['curves']}</body></html>\n"
    )


def accuracies(settings: Settings, points: Sequence[Point]) -> Figure:
    """Test accuracy over the share of real images: means over seeds, single seeds, and reported values."""
    reported = reported_at(settings.images, settings.classes)
    sizes = sorted({point.real for point in points})
    figure = _figure("% of the training set that is real", "test accuracy in %")
    for name, colour in _COLOURS.items():
        groups = {_percent(real, settings): _group(points, name, real) for real in sizes}
        means = {share: _error(mean(point.accuracy for point in group)) for share, group in groups.items() if group}
        each = [(share, _error(point.accuracy)) for share, group in groups.items() for point in group]
        known = {_percent(real, settings): _error(reported[real][name]) for real in sizes if real in reported}
        if not means:
            continue
        line, title = {"color": colour}, _title(name)
        figure.add_trace(Scatter(x=[*means], y=[*means.values()], mode="lines", line=line, name=title))
        figure.add_trace(
            Scatter(x=[x for x, _ in each], y=[y for _, y in each], mode="markers", marker=line, showlegend=False)
        )
        dotted = {**line, "dash": "dot", "width": 1.2}
        figure.add_trace(Scatter(x=[*known], y=[*known.values()], mode="lines", line=dotted, name=f"{title}, reported"))
    # The shares are categories at equal distances: on a numerical axis those below 1 % would be one point.
    order = [_percent(real, settings) for real in sizes]
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=order)
    return figure


def validation_curves(settings: Settings, points: Sequence[Point]) -> tuple[str, Figure]:
    """The share of real images in % that is nearest to 10 %, and the validation accuracy over epochs at that share."""
    real = min((point.real for point in points), key=lambda size: abs(100 * size / settings.images - _CURVES_AT))
    figure = _figure("epoch", "validation accuracy in %")
    for name, colour in _COLOURS.items():
        if group := _group(points, name, real):
            values = [_error(mean(each)) for each in zip(*(point.curve for point in group), strict=True)]
            epochs = list(range(1, len(values) + 1))
            line = {"color": colour}
            figure.add_trace(Scatter(x=epochs, y=values, mode="lines+markers", line=line, name=_title(name)))
    return _percent(real, settings), figure


def _facts(settings: Settings, seeds: Sequence[int]) -> list[str]:
    """How the points were measured, and how that differs from the report, in sentences."""
    pairs = (
        ("data set", settings.dataset, REPORTED_DATASET),
        ("images", settings.images, REPORTED_IMAGES),
        ("epochs", settings.epochs, REPORTED_EPOCHS),
    )
    unlike = [f"{name} {own}, reported {theirs}" for name, own, theirs in pairs if own != theirs]
    return [
        f"Generated images: {settings.system} after {settings.shown:,} images, checkpoint {settings.checkpoint[:12]}.",
        f"Classifier: LeNet, Adam at {LEARNING_RATE:g}, batch {BATCH}, {settings.epochs} epochs of {settings.images:,} "
        f"images; real ones from {settings.dataset} {settings.train[:12]}; on {settings.device}.",
        f"Accuracy in % on the {settings.tested:,} test images {settings.test[:12]}: mean ± standard deviation over "
        f"the seeds {', '.join(map(str, seeds))}, or n of them; seconds per training.",
        "Strategies: none mixes all images; 1 has the generated ones first, then the real ones; 2 alternates by epoch.",
        "Reported: narman-2019, section 4. Unlike it: " + ("; ".join(unlike) or "nothing known") + ".",
    ]


def _group(points: Sequence[Point], strategy: str, real: int) -> list[Point]:
    return [point for point in points if (point.strategy, point.real) == (strategy, real)]


def _cell(group: Sequence[Point], seeds: Sequence[int]) -> str:
    if not group:
        return ""
    values = [100 * point.accuracy for point in sorted(group, key=lambda point: point.seed)]
    spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2f}{spread}" + (f" (n={len(values)})" if len(values) < len(seeds) else "")


def _title(strategy: str) -> str:
    return "no strategy" if strategy == "none" else f"strategy {strategy}"


def _percent(real: int, settings: Settings) -> str:
    """The share of real images in %, to two digits: 0.018, 10, 100."""
    return f"{float(f'{100 * real / settings.images:.2g}'):g}"


def _error(accuracy: float) -> float:
    """The percentage of wrong images, at least the last tick of the logarithmic axis."""
    return max(100 * (1 - accuracy), _TICKS[-1])


def _figure(x: str, y: str) -> Figure:
    """An empty figure. Its axis of accuracies is logarithmic in the error, so that accuracies near 1 differ visibly."""
    figure = charts.empty_figure(460)
    figure.update_layout(legend=charts.LEGEND_ABOVE)
    figure.update_xaxes(title=x, **charts.AXIS)
    labels = [f"{100 - tick:g}" for tick in _TICKS]
    figure.update_yaxes(title=y, type="log", autorange="reversed", tickvals=_TICKS, ticktext=labels, **charts.AXIS)
    return figure
