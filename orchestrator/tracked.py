"""What the tracker shows of a trial, as plain values. Nothing here depends on when it is asked for."""

from __future__ import annotations

import uuid
from datetime import datetime

from orchestrator.finals import Final
from orchestrator.records import TrialRecord
from search_spaces.settings import GPU_HOURS
from trainers.evaluation.scores import METRICS
from trainers.run import Rung

GRIDS = "samples"
"""Key of the sample grids."""


def rung_values(record: TrialRecord, rung: Rung) -> dict[str, float]:
    """Scores with their standard errors, the best ones until then, losses, and GPU-hours if they are an objective."""
    values = {name: score.value for name, score in rung.scores.items()}
    values |= {f"{name}_se": score.stderr for name, score in rung.scores.items() if score.stderr is not None}
    if record.gpu_hours:
        values[GPU_HOURS] = record.gpu_hours[record.rungs.index(rung)]
    return {**values, **_best_until(record.rungs, rung), **rung.losses}


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
    passed = [rung for rung in record.rungs if last is None or rung.images <= last.images]
    return milliseconds(record.started, sum(rung.train_seconds + rung.score_seconds for rung in passed))


def picture_name(run_id: str, record: TrialRecord, rung: Rung) -> str:
    """Name of a rung's sample grid as MLflow's `log_image` would choose it, without suffix."""
    unique = uuid.uuid5(uuid.NAMESPACE_OID, f"{run_id} {rung.images}")
    return f"{GRIDS}+step+{rung.images}+timestamp+{stamp(record, rung)}+{unique}"


def _best_until(rungs: tuple[Rung, ...], last: Rung) -> dict[str, float]:
    best = {}
    for name, metric in METRICS.items():
        values = [rung.scores[name].value for rung in rungs if rung.images <= last.images and name in rung.scores]
        if values:
            best[f"best_{name}"] = min(values) if metric.minimise else max(values)
    return best
