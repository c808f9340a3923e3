"""Warm start: the trials of earlier sweeps that the sampler of a new sweep can learn from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.study.records import TrialRecord
from orchestrator.study.study import SweepStudy
from search_spaces.space import Dimension, Value, suggest
from search_spaces.sweep import Sweep
from trainers.errors import InputError
from trainers.evaluation.evaluator import Evaluator
from trainers.evaluation.scores import Score, comparable

#: Fields in which the configuration of a prior trial may differ from the one that its point has in the new space.
_MAY_DIFFER = ("seed", "threads", "kimg")


@dataclass(frozen=True)
class PriorTrials:
    """The trials of one earlier sweep from which a new one can learn."""

    name: str
    trials: list[dict[str, Any]]
    """`{params, values}` of each usable trial: its point in the new space, and its scores by images trained."""
    passed_over: Counter[str]
    """How many trials are not usable, by reason."""

    def __str__(self) -> str:
        others = "".join(f"; {count} not: {reason}" for reason, count in self.passed_over.most_common())
        return f"warm start from {self.name}: {len(self.trials)} trials{others}"


def earlier_studies(sweep: Sweep, root: Path) -> list[SweepStudy]:
    """The studies that `sweep.warm_start` names: sweeps below `root` or in the sweep's database, or folders of sweeps.

    Raises InputError if there is no such study, or if its metric is another one.
    """
    found = []
    for word in sweep.warm_start:
        study = SweepStudy.open(root / word) or (
            SweepStudy.open(root / word, sweep.study.storage) if sweep.study.storage else None
        )
        study = study or SweepStudy.open(Path(word))
        if study is None:
            raise InputError(f"sweep {sweep.name}: warm_start: {word} is no sweep in {root} and no folder of one")
        if (metric := study.sweep.score.metric) != sweep.score.metric:
            raise InputError(f"sweep {sweep.name}: warm_start: {word} decides by {metric}, not {sweep.score.metric}")
        found.append(study)
    return found


def prior_trials(sweep: Sweep, earlier: SweepStudy, evaluator: Evaluator) -> PriorTrials:
    """The trials of `earlier` from which `sweep` can learn; `evaluator` is the one that scores the trials of `sweep`.

    A trial is usable if it is complete, pruned or paused, if its scores are comparable with those of `evaluator`, and
    if a point of the space of `sweep` has the same configuration, apart from seed, threads and length. Rungs beyond the
    last one of `sweep` are left out.
    """
    network, real = evaluator.extractor.id, evaluator.reference.id
    like = Score(sweep.score.metric, 0.0, None, sweep.score.samples, network, real, sweep.score.seed)
    trials, passed_over = [], Counter[str]()
    for record in earlier.records():
        point = _point(sweep, earlier.sweep, record)
        values = _values(sweep, record, like)
        if isinstance(point, str) or isinstance(values, str):
            passed_over[point if isinstance(point, str) else str(values)] += 1
        else:
            trials.append({"params": point, "values": values})
    return PriorTrials(earlier.sweep.name, trials, passed_over)


def _values(sweep: Sweep, record: TrialRecord, like: Score) -> dict[int, float] | str:
    """The scores by images trained, or the reason why the trial is not usable."""
    if record.state in ("running", "failed"):
        return record.state
    rungs = [rung for rung in record.rungs if rung.images <= sweep.rungs[-1] and like.metric in rung.scores]
    scores = {rung.images: rung.scores[like.metric] for rung in rungs}
    reasons = [reason for score in scores.values() if (reason := comparable(score, like))]
    if reasons or not scores:
        return reasons[0] if reasons else f"no score within {sweep.rungs[-1]:,} images"
    return {images: score.value for images, score in scores.items()}


def _point(sweep: Sweep, other: Sweep, record: TrialRecord) -> dict[str, Value] | str:
    """The point in the space of `sweep` with the configuration of a trial of `other`, or why there is none."""
    system, config = other.configure(record.params)
    has: dict[str, Any] = {"system": system, **config.model_dump()}
    refused: list[str] = []

    def pick(dimension: Dimension) -> Value:
        value: Value = has.get(dimension.name)  # type: ignore[assignment]
        if dimension.name not in has or not dimension.allows(value):
            refused.append(f"{dimension.name} outside the space")
        return value

    if system not in sweep.systems:
        return f"system {system} outside the space"
    point = suggest(sweep.space, pick)
    if refused:
        return refused[0]
    try:
        ours = sweep.configure(point)[1].model_dump()
    except InputError as error:
        return str(error)
    unlike = [name for name, value in ours.items() if value != has[name] and name not in _MAY_DIFFER]
    return f"another {unlike[0]}" if unlike else point
