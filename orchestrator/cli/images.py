"""What `gansweep score` prints: scores as text, a table of classes, or JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from trainers.evaluation.classes import OfClass
from trainers.evaluation.scores import written
from trainers.tools.pairs import Likeness
from trainers.tools.score import Scored

console = Console()


def print_scores(found: Scored, as_json: bool) -> None:
    """Each score with its error, the classes where asked for, and what all of it depends on.

    As JSON a list of scores, with classes `{"scores": [...], "classes": [...]}`.
    """
    if as_json:
        scores = [_plain(each) for each in found.scores.values()]
        classes = found.classes
        _print_json(scores if classes is None else {"scores": scores, "classes": [_plain(each) for each in classes]})
        return
    origins: dict[str, list[str]] = {}
    for each in found.scores.values():
        console.print(f"{each.metric:>12} {written(each.value, each.stderr)}", highlight=False)
        origin = f"on {each.n:,} images, by {each.extractor} against {each.reference}"
        origins.setdefault(origin, []).append(each.metric)
    if found.classes is not None:
        console.print(_table(found.classes))
    for origin, names in origins.items():
        text = origin if len(origins) == 1 else f"{', '.join(names)}: {origin}"
        console.print(text, highlight=False, soft_wrap=True)


def print_likeness(found: Likeness, images: Path, targets: Path, as_json: bool) -> None:
    """PSNR and SSIM with their errors; as JSON the fields of `Likeness`, infinity being the string "inf"."""
    if as_json:
        _print_json(_plain(found))
        return
    equal = f" ({found.equal:,} pairs are equal)" if found.equal else ""
    console.print(f"{'psnr':>12} {written(found.psnr, found.psnr_stderr)} dB{equal}", highlight=False)
    console.print(f"{'ssim':>12} {written(found.ssim, found.ssim_stderr)}", highlight=False)
    console.print(f"on {found.n:,} pairs, of {images} with {targets}", highlight=False, soft_wrap=True)


def _table(classes: tuple[OfClass, ...]) -> Table:
    table = Table("class", "images", "accuracy", "kid", "fid")
    for each in classes:
        distance = "-" if each.kid is None else written(each.kid, each.kid_stderr)
        accuracy, fid = ("-" if value is None else written(value, None) for value in (each.accuracy, each.fid))
        table.add_row(str(each.label), f"{each.n:,}", accuracy, distance, fid)
    return table


def _plain(record: Any) -> dict[str, Any]:
    """A dataclass as plain JSON, which has no word for a number that is not finite: its name as a string."""
    return {
        key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(record).items()
    }


def _print_json(content: Any) -> None:
    typer.echo(json.dumps(content, indent=1, allow_nan=False))
