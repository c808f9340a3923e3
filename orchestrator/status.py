"""What a sweep has come to, as plain data read from its study."""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import Any

from orchestrator.study import SweepStudy, TrialRecord
from trainers.errors import InputError
from trainers.evaluation.scores import METRICS

STATES = ("complete", "pruned", "running", "failed")
_LOCK = "driver.lock"


@dataclass(frozen=True)
class SweepStatus:
    """One sweep at one moment."""

    name: str
    state: str
    """running, complete, or interrupted: not complete and no driver at work."""
    metric: str
    budget: int
    records: list[TrialRecord]
    finals: int
    """How many of the best trials are scored again at the end."""

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials in each state."""
        return {state: sum(record.state == state for record in self.records) for state in STATES}

    @property
    def ranking(self) -> list[TrialRecord]:
        """Trials with a score, best first."""
        sign = 1 if METRICS[self.metric].minimise else -1
        return sorted((r for r in self.records if r.best), key=lambda r: sign * value_of(r, self.metric))

    @property
    def best(self) -> TrialRecord | None:
        """The trial with the best score so far."""
        return self.ranking[0] if self.ranking else None

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
        """Time of scoring over time of training, of all rungs together; None before the first."""
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
        """Name, state, trials by state, `best {trial, metric, value, params}`, the share of scoring, and the finals.

        Of these each is `{trial, images, ours, official, seconds}` with both scores in full, or `{trial, fault}`.
        """
        best = self.best
        return {
            "name": self.name,
            "state": self.state,
            "trials": self.counts,
            "best": best
            and {
                "trial": best.number,
                "metric": self.metric,
                "value": value_of(best, self.metric),
                "params": best.params,
            },
            "scoring_share": self.scoring_share,
            "finals": [
                {"trial": each.number, **(each.final.to_json() if each.final else {"fault": each.final_fault})}
                for each in self.finalists
                if each.final or each.final_fault
            ],
        }


def value_of(record: TrialRecord, metric: str) -> float:
    """The best score of a trial that has one."""
    assert record.best is not None
    return record.best.scores[metric].value


def read_status(folder: Path) -> SweepStatus:
    """The status of the sweep in `folder`; InputError where there is none."""
    study = SweepStudy.open(folder)
    if study is None:
        known = ", ".join(sorted(sweep_names(folder.parent))) or "none"
        raise InputError(f"no sweep called {folder.name!r} in {folder.parent}; there are: {known}")
    return status_of(study)


def status_of(study: SweepStudy) -> SweepStatus:
    """The status of an open study."""
    records = study.records()
    budget = study.sweep.budget.trials
    done = sum(record.state != "running" for record in records) >= budget
    state = "complete" if done else "running" if _locked(study.folder) else "interrupted"
    return SweepStatus(study.sweep.name, state, study.sweep.score.metric, budget, records, study.sweep.finals.trials)


def sweep_names(root: Path) -> list[str]:
    """Names of the sweeps below `root`."""
    return sorted(path.parent.name for path in root.glob("*/study.journal"))


@contextmanager
def driver_lock(folder: Path) -> Iterator[None]:
    """Makes this process the sweep's only driver; InputError where another one is at work.

    The lock dies with its process, however that ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / _LOCK, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(f"{folder.name}: already driven by process {file.read().strip()}; stop it first") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _locked(folder: Path) -> bool:
    try:
        with open(folder / _LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
