"""The progress of a sweep on the screen: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.decisions.failures import Failure, in_words
from orchestrator.study.records import TrialRecord
from orchestrator.study.status import UNDER_WAY, SweepStatus, score_of
from search_spaces.sweep import Sweep
from trainers.config import KIMG
from trainers.evaluation.scores import written
from trainers.rungs import Rung

_MARKS = {"running": "…", "paused": "‖", "complete": "✓", "pruned": "✂", "failed": "✗"}
_TABLE_ROWS = 16
#: Seconds between two updates of a terminal.
_REDRAW = 0.25


class Progress:
    """Shows one sweep while it runs; use as a context manager."""

    def __init__(self, console: Console, sweep: Sweep) -> None:
        self._console, self._sweep = console, sweep
        self._start = self._drawn = time.monotonic()
        self._tally: _Tally | None = None
        self._trained_before = 0
        self._status: Callable[[], SweepStatus] | None = None
        """Reads the newest status, if the terminal does not show it yet."""
        self._live = Live(console=console, refresh_per_second=1 / _REDRAW) if console.is_terminal else None

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._draw()
            self._live.stop()

    def say(self, text: str) -> None:
        """Prints a line, above the table if there is one."""
        if self._live:
            self._console.out(text, highlight=False)
        else:  # rich would lay the line out, which takes thirty times as long and changes nothing without a terminal
            print(text, file=self._console.file, flush=True)

    def show(self, changed: TrialRecord, budget: int | None, status: Callable[[], SweepStatus]) -> None:
        """Shows the sweep after a change of the trial `changed`; `budget` is the number of trials that is allowed.

        `status` takes the longer the more trials there are, so it is called only when the terminal is updated.
        """
        if self._tally is None:
            self._tally = _Tally(status().records)
            self._trained_before = self._tally.images
            self._start = time.monotonic()
        self._tally.put(changed)
        if self._live:
            self._status = status
            if time.monotonic() - self._drawn >= _REDRAW:
                self._draw()
        elif changed.rungs or changed.state != "running":
            of = f"/{budget}" if budget else ""
            self.say(f"[{self._tally.ended:>3}{of}] {trial_line(changed, self._sweep.score.metric)}{self._eta(budget)}")

    def _draw(self) -> None:
        if self._live and self._status:
            self._live.update(self._screen(self._status()))
            self._status, self._drawn = None, time.monotonic()

    def _eta(self, budget: int | None) -> str:
        """The time left at the speed so far, assuming that trials to come are as long as those that ended."""
        tally = self._tally
        if tally is None or budget is None or not 0 < tally.ended < budget or tally.images <= self._trained_before:
            return ""
        usual = tally.ended_images / tally.ended
        under_way = [max(0.0, usual - length) for length in tally.running.values()]
        left = sum(under_way) + usual * (budget - tally.ended - len(under_way))
        seconds = int((time.monotonic() - self._start) * left / (tally.images - self._trained_before))
        return f"  ETA {seconds // 60}:{seconds % 60:02d}"

    def _screen(self, status: SweepStatus) -> Group:
        done = sum(record.state not in UNDER_WAY for record in status.records)
        table = Table(title=f"sweep {status.name}", title_justify="left", expand=False)
        searched = [d.name for d in self._sweep.space if d.kind != "constant"]
        for column in ("trial", "state", "kimg", f"best {status.metric}", "parameters"):
            table.add_column(column, no_wrap=column != "parameters")
        for record in status.records[-_TABLE_ROWS:]:
            table.add_row(
                str(record.number),
                f"{_MARKS[record.state]} {record.state}",
                f"{record.rungs[-1].images / KIMG:g}" if record.rungs else "",
                str(score_of(record, status.metric)) if record.best else "",
                parameters(record, searched),
            )
        bar = ProgressBar(total=status.budget, completed=done, width=40)
        best = f"best so far: {best_line(status.best, status.metric)}" if status.best else ""
        line = Text(f"{status.progress}{self._eta(status.budget)}  {best}")
        return Group(table, bar, line)


def _length(record: TrialRecord) -> int:
    """Images on which the trial was trained up to its last rung."""
    return record.rungs[-1].images if record.rungs else 0


class _Tally:
    """How far the trials are trained, updated trial by trial."""

    def __init__(self, records: Iterable[TrialRecord]) -> None:
        self.images = 0
        """Images on which all trials together were trained."""
        self.running: dict[int, int] = {}
        """Images of each running trial, by its number."""
        self._lengths: dict[int, int] = {}
        self._ended: dict[int, int] = {}
        self.ended_images = 0
        for record in records:
            self.put(record)

    @property
    def ended(self) -> int:
        """How many trials have ended; they were trained on `ended_images` together."""
        return len(self._ended)

    def put(self, record: TrialRecord) -> None:
        """Updates the sums after a change of the trial `record`."""
        number, length = record.number, _length(record)
        self.images += length - self._lengths.get(number, 0)
        self._lengths[number] = length
        self.running.pop(number, None)
        if record.state == "running":
            self.running[number] = length
        elif record.state not in UNDER_WAY:
            self.ended_images += length - self._ended.get(number, 0)
            self._ended[number] = length


def trial_line(record: TrialRecord, metric: str) -> str:
    """One trial in one line."""
    parts = [f"trial {record.number:>3} {record.state:<8}"]
    if record.rungs:
        parts.append(f"{record.rungs[-1].images / KIMG:>6g} kimg")
        parts.append(_scores(record.rungs[-1], metric))
    if record.gpu_hours:
        parts.append(f"{record.gpu_hours[-1]:.3g} GPU-hours")
    if record.reason:
        parts.append(f"({record.reason})")
    if len(record.nodes) > 1 and record.state == "running":
        parts.append(f"on {', '.join(record.nodes)}")
    if record.failures and record.state != "failed":
        parts.append(f"(after {in_words(Counter(failure.kind for failure in record.failures))})")
    if record.rungs and (kinds := [v.partition(":")[0] for v in record.rungs[-1].verdicts]):
        parts.append(f"[{', '.join(kinds)}]")
    return "  ".join(parts)


def best_line(record: TrialRecord, metric: str) -> str:
    """The best trial in one line, as it was at its best rung, by which it is ranked."""
    if record.best is None:
        return trial_line(record, metric)
    return trial_line(replace(record, rungs=record.rungs[: 1 + record.rungs.index(record.best)]), metric)


def failure_line(number: int, failure: Failure) -> str:
    """Why an attempt at a trial failed, in one line."""
    return f"trial {number:>3} attempt {failure.attempt}: {failure.kind}: {failure.message}"


def front_line(status: SweepStatus) -> str:
    """The Pareto front of several objectives in one line."""
    return f"Pareto front of {status.metric} and GPU-hours: trials {', '.join(map(str, status.pareto))}"


def final_line(record: TrialRecord) -> str:
    """The final scores of a trial's best checkpoint, ours and clean-fid's, or why there are none, in one line."""
    final, head = record.final, f"final: trial {record.number:>3}"
    if final is None:
        return f"{head}  not scored: {record.final_fault}"
    parts = [f"{head}  {final.images / KIMG:>6g} kimg"]
    for name, score in final.ours.items():
        parts.append(f"{name} {score} (clean-fid {final.official[name]})")
    return "  ".join([*parts, f"on {final.ours['fid'].n:,} images"])


def parameters(record: TrialRecord, names: list[str]) -> str:
    """The values of the parameters `names`, as far as the trial has them, in one line."""
    values = {name: record.params[name] for name in names if record.params.get(name) is not None}
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
    )


def _scores(rung: Rung, metric: str) -> str:
    score = rung.scores.get(metric)
    if score is None:
        return "no score"
    others = "".join(f"  {name} {written(other.value, None)}" for name, other in rung.scores.items() if name != metric)
    return f"{metric} {score}{others}"
