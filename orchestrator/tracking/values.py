"""What the tracker shows of a trial, as plain values. Nothing here depends on when it is asked for."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime
from itertools import accumulate

from orchestrator.study.records import Final, TrialRecord
from search_spaces.settings import GPU_HOURS
from trainers.evaluation.scores import METRICS
from trainers.rungs import Rung

GRIDS = "samples"
"""Key of the sample grids."""


def rung_values(record: TrialRecord) -> Iterator[tuple[Rung, int, dict[str, float]]]:
    """Each rung of a trial with its time as `stamp` and what is shown of it.

    That is its scores with their standard errors, the best ones until then, its losses, and the GPU-hours until then if
    they are an objective.
    """
    best: dict[str, float] = {}
    for place, (rung, seconds) in enumerate(zip(record.rungs, _seconds(record), strict=True)):
        values = {name: score.value for name, score in rung.scores.items()}
        values |= {f"{name}_se": score.stderr for name, score in rung.scores.items() if score.stderr is not None}
        if record.gpu_hours:
            values[GPU_HOURS] = record.gpu_hours[place]
        for name, score in rung.scores.items():
            known = best.get(f"best_{name}", score.value)
            best[f"best_{name}"] = min(known, score.value, key=METRICS[name].cost)
        yield rung, milliseconds(record.started, seconds), {**values, **best, **rung.losses}


def final_values(final: Final) -> dict[str, float]:
    """Our scores with their standard errors, and clean-fid's."""
    values = {f"final_{name}": score.value for name, score in final.ours.items()}
    values |= {f"final_{name}_se": score.stderr for name, score in final.ours.items() if score.stderr is not None}
    return values | {f"final_cleanfid_{name}": score.value for name, score in final.official.items()}


def failure_text(record: TrialRecord) -> str:
    """Why a trial failed, at each attempt, and the end of the last one's log."""
    attempts = "".join(f"attempt {each.attempt}: {each.kind}: {each.message}\n" for each in record.failures)
    return f"{record.reason}\n\n{attempts}\n{record.log}\n"


def milliseconds(started: datetime | None, seconds: float = 0.0) -> int:
    """Unix time in ms, `seconds` after `started`."""
    return round(1000 * ((started.timestamp() if started else 0.0) + seconds))


def stamp(record: TrialRecord, last: Rung | None = None) -> int:
    """Unix time in ms at which the trial would have passed `last`, by default its last rung, had nothing paused it."""
    passed = len(record.rungs) if last is None else 1 + record.rungs.index(last)
    return milliseconds(record.started, [0.0, *_seconds(record)][passed])


def _seconds(record: TrialRecord) -> Iterator[float]:
    """Of training and scoring, until each rung."""
    return accumulate(rung.train_seconds + rung.score_seconds for rung in record.rungs)


def picture_name(run_id: str, record: TrialRecord, rung: Rung) -> str:
    """Name of a rung's sample grid as MLflow's `log_image` would choose it, without suffix."""
    unique = uuid.uuid5(uuid.NAMESPACE_OID, f"{run_id} {rung.images}")
    return f"{GRIDS}+step+{rung.images}+timestamp+{stamp(record, rung)}+{unique}"
