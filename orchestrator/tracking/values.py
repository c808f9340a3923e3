"""What the tracker shows of a trial, as plain values that depend on the trial's record alone."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import accumulate

from orchestrator.study.records import Final, TrialRecord
from search_spaces.settings import GPU_HOURS
from trainers.evaluation.scores import METRICS
from trainers.rungs import Rung

GRIDS = "samples"
"""The key under which MLflow shows the sample grids."""


def rung_values(record: TrialRecord) -> Iterator[tuple[Rung, int, dict[str, float]]]:
    """Each rung of a trial, its time as in `stamp`, and its metrics by name.

    The metrics are the scores with their standard errors, the best scores so far, the losses, and the GPU-hours so far
    if they are an objective.
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
    """The metrics of a final by name: our scores with their standard errors, and clean-fid's scores."""
    values = {f"final_{name}": score.value for name, score in final.ours.items()}
    values |= {f"final_{name}_se": score.stderr for name, score in final.ours.items() if score.stderr is not None}
    return values | {f"final_cleanfid_{name}": score.value for name, score in final.official.items()}


def failure_text(record: TrialRecord) -> str:
    """Why each attempt at a trial failed, and the end of the last attempt's log."""
    attempts = "".join(f"attempt {each.attempt}: {each.kind}: {each.message}\n" for each in record.failures)
    return f"{record.reason}\n\n{attempts}\n{record.log}\n"


def milliseconds(started: datetime | None, seconds: float = 0.0) -> int:
    """The Unix time in ms `seconds` after `started`; without a start the time is counted from 1970."""
    return round(1000 * ((started.timestamp() if started else 0.0) + seconds))


def stamp(record: TrialRecord, last: Rung | None = None) -> int:
    """The Unix time in ms at which the trial passed the rung `last`, by default its last one.

    Pauses do not count: the time is the trial's start and the seconds of training and scoring since.
    """
    passed = len(record.rungs) if last is None else 1 + record.rungs.index(last)
    return milliseconds(record.started, [0.0, *_seconds(record)][passed])


def _seconds(record: TrialRecord) -> Iterator[float]:
    """Seconds of training and scoring from the start to each rung."""
    return accumulate(rung.train_seconds + rung.score_seconds for rung in record.rungs)


def picture_name(run_id: str, record: TrialRecord, rung: Rung) -> str:
    """The name of a rung's sample grid without suffix, in the form that MLflow's `log_image` gives."""
    return f"{GRIDS}+step+{rung.images}+timestamp+{stamp(record, rung)}+{_unique(run_id, rung)}"


def known_picture(run_id: str, rung: Rung, names: Iterable[str]) -> str | None:
    """The one of `names` that is a sample grid of the rung; None if none is.

    It has another time if the rung was passed again, because its record was lost.
    """
    end = f"+{_unique(run_id, rung)}"
    return next((name for name in names if name.endswith(end)), None)


def _unique(run_id: str, rung: Rung) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, f"{run_id} {rung.images}")
