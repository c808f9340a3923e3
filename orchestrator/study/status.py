"""The status of a sweep, as plain data read from its study."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median_low
from typing import Any

from orchestrator.decisions.budget import Limit, Spent, usage_text
from orchestrator.decisions.failures import KINDS, NAN
from orchestrator.decisions.objectives import pareto_front
from orchestrator.study.journal import DamagedJournalError
from orchestrator.study.lease import last_claim, running_driver
from orchestrator.study.missing import missing_sweep
from orchestrator.study.records import TrialRecord
from orchestrator.study.study import SweepStudy
from search_spaces.settings import SCORE, Budget
from trainers.errors import InputError
from trainers.evaluation.scores import Score

STATES = ("complete", "pruned", "running", "paused", "failed")
#: A paused trial may be promoted as long as the sweep goes on.
UNDER_WAY = ("running", "paused")


@dataclass(frozen=True)
class SweepStatus:
    """One sweep at one moment."""

    name: str
    state: str
    """complete, failed (complete, and all trials failed), running (a driver is at work), stopped or paused (as was
    asked), or interrupted."""
    metric: str
    limits: Budget
    added: int
    """Trials that were added to the budget of the file."""
    spent: Spent
    limit: Limit | None
    """What ends the sweep; None while new trials may begin."""
    records: list[TrialRecord]
    finals: int
    """How many of the best trials are scored again at the end."""
    asked: str | None
    """stop or pause if the last driver was asked to."""
    objectives: tuple[str, ...] = (SCORE,)

    @property
    def budget(self) -> int | None:
        """Number of trials that the budget allows; None if it limits something else."""
        return self.limits.trials

    @property
    def progress(self) -> str:
        """What is used of the budget, in words."""
        count = f"{len(self.records)}{f' of {self.budget}' if self.budget else ''} trials"
        added = f" ({self.added} added)" if self.added else ""
        return "; ".join(filter(None, (count + added, usage_text(self.limits, self.spent))))

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials in each state."""
        return {state: sum(record.state == state for record in self.records) for state in STATES}

    @property
    def failures(self) -> dict[str, int]:
        """Number of failures of each kind; for `nan`, the number of trials that diverged."""
        counts = Counter(failure.kind for record in self.records for failure in record.failures)
        counts[NAN] = sum(record.rungs[-1].diverged is not None for record in self.records if record.rungs)
        return {kind: counts[kind] for kind in (*(kind.name for kind in KINDS), NAN)}

    @property
    def ended(self) -> bool:
        """Whether nothing is left to train."""
        return self.state in ("complete", "failed")

    @property
    def fault(self) -> str | None:
        """What ended most trials of a sweep that failed, in one line; None for any other sweep."""
        if self.state != "failed":
            return None
        reasons = Counter(each.failures[-1].message if each.failures else each.reason for each in self.records)
        reason, count = reasons.most_common(1)[0]
        share = "all" if count == len(self.records) else f"{count} of {len(self.records)}"
        return (
            f"{share} trials failed with: {reason}" if count > 1 else f"no trial succeeded; one failed with: {reason}"
        )

    @property
    def ranking(self) -> list[TrialRecord]:
        """Trials with a score, best first."""
        return sorted((r for r in self.records if r.best), key=lambda r: score_of(r, self.metric).cost)

    @property
    def best(self) -> TrialRecord | None:
        """The trial with the best score so far."""
        return self.ranking[0] if self.ranking else None

    @property
    def pareto(self) -> list[int]:
        """The Pareto front of the complete trials, best score first; empty with one objective.

        A trial is on it if no other one is better in one objective and no worse in the other.
        """
        if len(self.objectives) == 1:
            return []
        complete = [record for record in self.records if record.state == "complete"]
        found = pareto_front([(score_of(record, self.metric).cost, record.gpu_hours[-1]) for record in complete])
        return [complete[index].number for index in found]

    @property
    def finalists(self) -> list[TrialRecord]:
        """The trials that are scored again, best first; none before the sweep is complete."""
        return self.ranking[: self.finals] if self.state == "complete" else []

    @property
    def finals_missing(self) -> list[TrialRecord]:
        """Finalists that nobody has tried to score again yet."""
        return [record for record in self.finalists if not (record.final or record.final_fault)]

    @property
    def scoring_share(self) -> float | None:
        """Scoring time divided by training time, of all rungs together; None before the first."""
        rungs = [rung for record in self.records for rung in record.rungs]
        training = sum(rung.train_seconds for rung in rungs)
        return sum(rung.score_seconds for rung in rungs) / training if training else None

    def lead(self) -> tuple[TrialRecord, float] | None:
        """The median trial, and by how many combined standard errors the best trial beats it.

        Combined: the root of the sum of squares. None with fewer than 3 scored trials or without standard errors.
        """
        if len(self.ranking) < 3:
            return None
        middle = self.ranking[median_low(range(len(self.ranking)))]
        best, other = (record.best.scores[self.metric] for record in (self.ranking[0], middle) if record.best)
        if best.stderr is None or other.stderr is None:
            return None
        combined = math.hypot(best.stderr, other.stderr)
        return (middle, abs(other.value - best.value) / combined) if combined else None

    def to_json(self) -> dict[str, Any]:
        """Name, state, trials by state, failures by kind, budget, best, share of scoring, finals.

        `best` is `{trial, metric, value, params}`, `failures` has every kind.

        `budget` is `{limits, added, spent, ended}`: the keys of the sweep file, the trials added to it, what is used
        in the same units, and the reason why the sweep ended. Each of the finals is `{trial, images, ours, official,
        seconds}` with both scores in full, or `{trial, fault}`. With several objectives `pareto` is their front.
        A sweep that failed has its `fault`.
        """
        best = self.best
        return {
            "name": self.name,
            "state": self.state,
            "trials": self.counts,
            "failures": self.failures,
            "budget": {
                "limits": self.limits.model_dump(),
                "added": self.added,
                "spent": asdict(self.spent),
                "ended": self.limit and self.limit.reason,
            },
            "best": best
            and {
                "trial": best.number,
                "metric": self.metric,
                "value": score_of(best, self.metric).value,
                "params": best.params,
            },
            "scoring_share": self.scoring_share,
            "finals": [
                {"trial": each.number, **(each.final.to_json() if each.final else {"fault": each.final_fault})}
                for each in self.finalists
                if each.final or each.final_fault
            ],
            **({"pareto": self.pareto} if len(self.objectives) > 1 else {}),
            **({"fault": self.fault} if self.fault else {}),
        }


@dataclass(frozen=True)
class Unreadable:
    """A sweep whose study cannot be read."""

    name: str
    state: str
    """damaged (its journal is), or unreadable."""
    reason: str

    def to_json(self) -> dict[str, Any]:
        """`{name, state, reason}`."""
        return asdict(self)


def score_of(record: TrialRecord, metric: str) -> Score:
    """The best score of a trial that has one."""
    assert record.best is not None
    return record.best.scores[metric]


def read_status(folder: Path) -> SweepStatus:
    """The status of the sweep in `folder`. Raises InputError if there is none."""
    study = SweepStudy.open(folder)
    if study is None:
        raise missing_sweep(folder)
    return status_of(study)


def read_each(root: Path, names: Sequence[str]) -> list[SweepStatus | Unreadable]:
    """The status of each of these sweeps below `root`; of those that cannot be read, why not."""
    return [_readable(root / name) for name in names]


def _readable(folder: Path) -> SweepStatus | Unreadable:
    try:
        return read_status(folder)
    except DamagedJournalError as error:
        return Unreadable(folder.name, "damaged", str(error))
    except (InputError, OSError) as error:
        return Unreadable(folder.name, "unreadable", str(error))


def status_of(study: SweepStudy) -> SweepStatus:
    """The status of an open study."""
    records, spent = study.records(), study.limits.spent()
    limit = study.limits.limit(spent)
    done = limit is not None and not any(record.state in UNDER_WAY for record in records)
    failed = records and all(record.state == "failed" for record in records)
    return SweepStatus(
        name=study.sweep.name,
        state=("failed" if failed else "complete") if done else _unfinished_state(study),
        metric=study.sweep.score.metric,
        limits=study.sweep.budget,
        added=study.limits.trials_added,
        spent=spent,
        limit=limit,
        records=records,
        finals=study.sweep.finals.trials,
        asked=study.limits.asked,
        objectives=study.sweep.objectives,
    )


def _unfinished_state(study: SweepStudy) -> str:
    """The state of a sweep that is not complete."""
    if running_driver(study.limits.claims, study.folder):
        return "running"
    last = last_claim(study.limits.claims)
    if last is None or last.state == "held":  # its driver died
        return "interrupted"
    return {"stop": "stopped", "pause": "paused", None: "interrupted"}[study.limits.asked]
