"""The lines that the command line prints about a sweep: its plan, its status, and its outcome."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from orchestrator.decisions.failures import in_words
from orchestrator.driver.progress import best_line, final_line, front_line, trial_line
from orchestrator.paths import REPORT
from orchestrator.study.status import SweepStatus, Unreadable
from search_spaces.sweep import Sweep
from trainers.config import KIMG


def plan_lines(sweep: Sweep, root: Path) -> Iterator[str]:
    """All settings, what will be run, and the cost, which is estimated from training steps that are timed now."""
    from orchestrator.driver.estimate import estimate  # with torch, which a status does not need

    count = f"{sweep.budget.trials} trials" if sweep.budget.trials else f"as many trials as {sweep.budget} allows, each"
    most = f"at most {sweep.budget.trials * sweep.rungs[-1] / KIMG:g} kimg, " if sweep.budget.trials else ""
    yield sweep.normalised()
    length = f"{sweep.rungs[-1] / KIMG:g} kimg in {len(sweep.rungs)} rungs"
    yield f"plan: {count} of {length}, {most}below {root / sweep.name}"
    if sweep.finals.trials:
        yield f"finals: the {sweep.finals.trials} best on {sweep.finals.samples:,} images each, by clean-fid too"
    yield f"cost: {estimate(sweep)}"


def status_lines(found: SweepStatus | Unreadable, trials: bool) -> Iterator[str]:
    """The state of a sweep; with `trials`, one line for each trial too."""
    if isinstance(found, Unreadable):
        yield f"{found.name}: {found.state}; {found.reason}"
        return
    ended = f" ({found.limit.reason})" if found.limit and found.limit.name != "trials" else ""
    yield f"{found.name}: {found.state}{ended}; {found.progress}: {_counts(found)}"
    if trials:
        yield from (f"  {trial_line(record, found.metric)}" for record in found.records)
    if found.fault:
        yield f"  {found.fault}"
    if failures := in_words(found.failures):
        yield f"  failures: {failures}"
    if found.scoring_share is not None:
        yield f"  scoring: {found.scoring_share:.1%} of the time of training"
    if found.best:
        yield f"  best: {best_line(found.best, found.metric)}"
    if found.pareto:
        yield f"  {front_line(found)}"
    if trials:
        yield from (f"  {line}" for line in _final_lines(found))


def outcome_lines(outcome: SweepStatus, root: Path) -> Iterator[str]:
    """How a launched sweep ended, and what can be done next."""
    yield f"{outcome.name}: {outcome.state}; {_counts(outcome)}"
    if outcome.fault:
        yield outcome.fault
    if outcome.best and outcome.best.best:
        yield f"best: {best_line(outcome.best, outcome.metric)}"
        yield "      " + " ".join(f"{key}={value}" for key, value in outcome.best.params.items())
        if lead := outcome.lead():
            yield f"      {lead[1]:.1f} combined standard errors better than the median trial {lead[0].number}"
        if accuracy := outcome.best.best.scores.get("accuracy"):
            yield f"      {accuracy.value:.1%} of its samples are classified as their labels by {accuracy.extractor}"
    if outcome.pareto:
        yield front_line(outcome)
    yield from _final_lines(outcome)
    if stopped(outcome):
        yield f"stopped; `gansweep resume {outcome.name} --root {root}` goes on from the checkpoints"
    else:
        yield f"report: {root / outcome.name / REPORT}    runs: gansweep ui --root {root}"


def stopped(outcome: SweepStatus) -> bool:
    """Whether something is left to do."""
    return not outcome.ended or bool(outcome.finals_missing)


def _counts(found: SweepStatus) -> str:
    return ", ".join(f"{count} {state}" for state, count in found.counts.items())


def _final_lines(found: SweepStatus) -> Iterator[str]:
    """The finals that are scored, and in one line those that are not yet."""
    yield from (final_line(record) for record in found.finalists if record.final or record.final_fault)
    if found.finals_missing:
        numbers = ", ".join(str(record.number) for record in found.finals_missing)
        yield f"finals missing: trials {numbers}; `gansweep resume {found.name}` scores them"
