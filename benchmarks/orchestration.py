"""What orchestration costs: no-op trials through the whole stack, beside plain Ray Tune with its default loggers.

    python -m benchmarks.orchestration [TRIALS] [RUNGS] [STUDY]

Through both go TRIALS (default 200) trials of one report each, and 4 trials of RUNGS (default 200) reports each, on
two workers. Plain Tune draws at random and writes its CSV, JSON and TensorBoard files; ours samples with TPE, keeps
every report in the study and all of it in MLflow. Prints, from the first report on, trials per minute, reports per
second, the milliseconds of each part, then what asking, reporting and pruning cost at STUDY (default 1,000) finished
trials, and the memory of a simulated sweep of 10,000 trials.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

WORKERS = 2
SCORES = ("kid", "fid", "is", "accuracy")
LOSSES = ("loss_g", "loss_d", "images_per_s")

SWEEP = """\
name: no-op
system: narman-cgan
dataset: mnist-mini
search:
  g_lr: {log_uniform: [2e-5, 5e-3]}
  d_lr: {log_uniform: [2e-5, 5e-3]}
  beta1: {uniform: [0, 0.9]}
  dropout: {uniform: [0, 0.5]}
  slope: {uniform: [0, 0.3]}
  smoothing: {choice: [none, fixed, random]}
  schedule: {choice: [constant, cosine]}
  smoothing_strength: {uniform: [0.02, 0.3], when: {smoothing: fixed}}
  batch: 100
score: {samples: 100}
finals: {trials: 0}
"""


def plain(trials: int, reports: int) -> None:
    """Plain Tune, in a process of its own: this program's settings must not reach it."""
    import logging

    import ray
    from ray import tune

    class NoOp(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            self._count = 0

        def step(self) -> dict[str, Any]:
            self._count += 1
            return {name: index / self._count for index, name in enumerate((*SCORES, *LOSSES))}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._count = 0
            return True

    class First(tune.Callback):  # type: ignore[misc]
        at = 0.0

        def on_trial_result(self, *arguments: Any, **named: Any) -> None:
            First.at = First.at or time.perf_counter()

    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, num_cpus=WORKERS)
    with tempfile.TemporaryDirectory() as folder:
        space = {name: tune.uniform(0, 1) for name in "abcdefgh"}
        tuner = tune.Tuner(
            NoOp,
            param_space=space,
            tune_config=tune.TuneConfig(num_samples=trials, reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=folder,
                verbose=0,
                stop={"training_iteration": reports},
                callbacks=[First()],  # the default loggers are added to it
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # there is nothing to save
            ),
        )
        tuner.fit()
        print(json.dumps(time.perf_counter() - First.at))
    ray.shutdown()


def run_plain(trials: int, reports: int) -> float:
    """Seconds from the first report to the end, of `trials` trials with so many reports each."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("TUNE_", "RAY_"))}
    command = [sys.executable, "-m", "benchmarks.orchestration", "plain", str(trials), str(reports)]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


class Clock:
    """Seconds spent in parts, by name."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.first: dict[str, float] = {}
        """When each part first ended."""

    @contextmanager
    def watching(self, owner: object, method: str, part: str) -> Iterator[None]:
        """Adds up what calls of a method take, for as long as the block lasts."""
        original: Callable[..., Any] = getattr(owner, method)

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return original(*arguments, **named)
            finally:
                end = time.perf_counter()
                self.seconds[part] += end - start
                self.first.setdefault(part, end)

        with patch.object(owner, method, timed):
            yield


def made_up(images: int, value: float) -> Any:
    """A rung without training."""
    from trainers.evaluation.scores import Score
    from trainers.run import Rung

    scores = {name: Score(name, value, 0.01, 100, "no-op", "no-op", 0) for name in SCORES}
    return Rung(images, scores, dict.fromkeys(LOSSES, 1.0), 0.0, 0.0)


class NoOpTrial:
    """In place of `SweepTrial`: made-up rungs, without training and checkpoints."""

    def __init__(self, sweep: Any, folder: Path, cache: Path, number: int, params: Any, attempt: int) -> None:
        self._rungs, self._history = sweep.rungs, []
        self._value = abs(params["g_lr"] - 1e-3)

    def advance(self) -> list[Any]:
        images = self._rungs[len(self._history)]
        self._history.append(made_up(images, self._value / images))
        return self._history


def run_ours(trials: int, reports: int) -> tuple[float, dict[str, float]]:
    """As `run_plain`, everything kept and tracked at the end; and the seconds of each part."""
    from functools import partial

    from rich.console import Console

    from orchestrator import sweep as composition
    from orchestrator import tracking, tune
    from orchestrator.lease import driving
    from orchestrator.progress import Progress
    from orchestrator.relay import Relay
    from orchestrator.study import SweepStudy

    class NoOp(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            tune.SweepTrial = NoOpTrial  # type: ignore[assignment, misc]
            super().setup(config)

    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch, open(os.devnull, "w") as nothing:
        root = Path(scratch)
        (root / "no-op").mkdir()
        study = SweepStudy.create(root / "no-op", parsed(trials, reports))
        opening = partial(composition._open_tracker, root, study)
        with (
            tune.cluster(),
            driving("no-op", study.folder, study.lease_records) as lease,
            Progress(Console(file=nothing), study.sweep) as progress,
            Relay(opening, print, study.check) as relay,
            patch.object(tune, "Trainable", NoOp),
            clock.watching(SweepStudy, "next_ticket", "ask"),
            clock.watching(SweepStudy, "report", "report and decide"),
            clock.watching(composition._Follower, "changed", "follow"),
            clock.watching(tracking.Tracker, "sync", "track (in its thread)"),
        ):
            study.drive(lease)
            relay.put("open", lambda tracker: None)
            relay.drain()
            tune.run_trials(study, root, WORKERS, composition._Follower(study, relay, progress))
            start = clock.first["report and decide"]
            clock.seconds["all but tracking"] = time.perf_counter() - start
            assert relay.drain()
            seconds = time.perf_counter() - start
        records = study.records()
        assert [len(record.rungs) for record in records] == [reports] * trials
    return seconds, dict(clock.seconds)


def parsed(trials: int, reports: int, *overrides: str) -> Any:
    """The sweep of no-ops."""
    from search_spaces.sweep import parse_sweep

    rungs = f"rungs={{every: 0.1, until: {reports / 10}}}"
    return parse_sweep(SWEEP, overrides=[rungs, f"budget.trials={trials}", "pruner=none", *overrides])


def at_many_trials(count: int) -> dict[str, float]:
    """Milliseconds of one ask, report and pruning report where `count` trials have ended, by pruner."""
    from orchestrator.study import Decision, SweepStudy

    found = {}
    for pruner in ("freeze-thaw", "median", "halving"):
        with tempfile.TemporaryDirectory() as scratch:
            filling = parsed(count, 4, f"pruner={pruner}", "sampler=random")
            study = SweepStudy.create(Path(scratch), filling)
            while (ticket := study.next_ticket()) is not None:
                passed = len(study._live[ticket.number].user_attrs)
                history = [made_up(100 * step, abs(ticket.params["g_lr"] - 1e-3) / step) for step in range(1, 5)]
                for length in range(1, 5):
                    if study.report(ticket.number, history[:length]) is not Decision.CONTINUE:
                        break
                assert passed < 99
            full = SweepStudy(Path(scratch), parsed(count + 50, 4, f"pruner={pruner}"), study._study)
            seconds = []
            for _ in range(20):
                start = time.perf_counter()
                ticket = full.next_ticket()
                assert ticket is not None
                first = len([key for key in full._live[ticket.number].user_attrs if key.startswith("rung:")])
                history = [made_up(100 * step, 99.0) for step in range(1, first + 2)]
                full.report(ticket.number, history)
                seconds.append(time.perf_counter() - start)
            found[pruner] = 1000 * sorted(seconds)[len(seconds) // 2]
    return found


def main(trials: int = 200, reports: int = 200, ended: int = 1000) -> None:
    """Prints the comparison."""
    print(f"{'':<28}{'plain Tune':>12}{'gansweep':>12}{'ratio':>8}")
    for name, shape, factor in (("trials/min", (trials, 1), 60 * trials), ("reports/s", (4, reports), 4 * reports)):
        theirs = factor / run_plain(*shape)
        seconds, parts = run_ours(*shape)
        print(f"{name:<28}{theirs:>12.0f}{factor / seconds:>12.0f}{factor / seconds / theirs:>8.2f}")
        each = f"ms per {'trial' if shape[1] == 1 else 'report'}"
        for part, spent in sorted(parts.items(), key=lambda item: -item[1]):
            print(f"    {part:<24}{1000 * spent / shape[0] / shape[1]:>24.2f} {each}")
    for pruner, milliseconds in at_many_trials(ended).items():
        print(f"ask + report + prune at {ended:,} ended trials, {pruner}: {milliseconds:.1f} ms")


if __name__ == "__main__":
    if sys.argv[1:2] == ["plain"]:
        plain(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main(*map(int, sys.argv[1:]))
