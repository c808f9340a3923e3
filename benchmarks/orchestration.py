"""Measures the cost of orchestration: no-op trials through all of gansweep, and through plain Ray Tune.

    python -m benchmarks.orchestration [TRIALS] [RUNGS] [STUDY]

Both run TRIALS (default 200) trials of one report each, and 4 trials of RUNGS (default 200) reports each, on two
workers that have started; five times, in turns. Plain Tune draws at random and writes CSV, JSON and TensorBoard files
with its default loggers. Ours samples with TPE, keeps every report in the study's journal and in MLflow's SQLite file,
prints lines of progress, and renews its lease. Nothing is trained, and neither side keeps checkpoints or pictures.

Prints the medians of trials per minute and reports per second, from the first report until everything is written, and
the milliseconds of each part (a process beside the driver writes MLflow's); then the milliseconds of one ask, report
and prune together at STUDY (default 1,000) ended trials, by pruner; and time and memory of simulated sweeps of 1,000
and 10,000 trials.
"""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

WORKERS = 2
#: How often each side runs; the medians are compared.
ROUNDS = 5
#: The parts of the driver's time.
DRIVER = ASK, REPORT, FOLLOW = "ask", "report and decide", "status and progress"
TRACK, REST = "MLflow, in its process", "Tune and processes"
#: The pruners that are measured: the default, the other one that pauses trials, and two that stop them.
PRUNERS = ("freeze-thaw", "halving", "median", "hyperband")
#: Numbers of trials in the simulated sweeps, and the rungs of each trial.
SIMULATED, CURVE = (1_000, 10_000), 50
#: Seconds that workers may take to start.
PATIENCE = 120
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


def gather(folder: Path) -> None:
    """Waits until every worker has called this: else the first one would run all trials while the others start."""
    folder.mkdir(exist_ok=True)
    (folder / str(os.getpid())).touch()
    end = time.monotonic() + PATIENCE
    while len(os.listdir(folder)) < WORKERS:
        if time.monotonic() > end:
            raise TimeoutError(f"{folder}: not every worker has started after {PATIENCE} s")
        time.sleep(0.01)


def plain(trials: int, reports: int) -> None:
    """Runs plain Tune. Needs a process of its own, since this program's settings must not change Tune's."""
    import logging

    import ray
    from ray import tune

    class NoOp(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            self._count = 0
            gather(Path(config["workers"]))

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
        space = {name: tune.uniform(0, 1) for name in "abcdefgh"} | {"workers": f"{folder}/workers"}
        tuner = tune.Tuner(
            NoOp,
            param_space=space,
            tune_config=tune.TuneConfig(num_samples=trials, reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=folder,
                verbose=0,
                stop={"training_iteration": reports},
                callbacks=[First()],  # Tune adds the default loggers
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # there is nothing to save
            ),
        )
        tuner.fit()
        print(json.dumps(time.perf_counter() - First.at))
    ray.shutdown()


def run_plain(trials: int, reports: int) -> float:
    """Seconds from the first report to the end, of plain Tune with `trials` trials of `reports` reports each."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("TUNE_", "RAY_"))}
    command = [sys.executable, "-m", "benchmarks.orchestration", "plain", str(trials), str(reports)]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


class Clock:
    """Seconds spent in each part, by the part's name."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.first: dict[str, float] = {}
        """The time at which each part first ended."""

    @contextmanager
    def watching(self, owner: object, method: str, part: str) -> Iterator[None]:
        """Adds up the seconds that calls of `owner.method` take within the block."""
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
    """A rung with made-up scores, without training."""
    from trainers.evaluation.scores import Score
    from trainers.rungs import Rung

    scores = {name: Score(name, value, 1e-9, 100, "no-op", "no-op", 0) for name in SCORES}
    return Rung(images, scores, dict.fromkeys(LOSSES, 1.0), 0.0, 0.0)


class NoOpTrial:
    """Takes the place of `SweepTrial`: made-up rungs, without training and checkpoints."""

    damaged: tuple[str, ...] = ()

    def __init__(self, sweep: Any, folder: Path, cache: Path, number: int, params: Any, *rest: Any) -> None:
        self._rungs = sweep.rungs
        self._history: list[Any] = []
        self._value = abs(params["g_lr"] - 1e-3)

    def advance(self) -> list[Any]:
        images = self._rungs[len(self._history)]
        self._history.append(made_up(images, self._value / images))
        return self._history


def run_ours(trials: int, reports: int) -> tuple[float, dict[str, float]]:
    """The same seconds for gansweep, until everything is kept and tracked; and the seconds of each part."""
    from functools import partial

    from rich.console import Console

    from orchestrator.cluster import trainable, tune
    from orchestrator.cluster.nodes import capacity_for, cluster
    from orchestrator.driver.follower import Follower
    from orchestrator.driver.progress import Progress
    from orchestrator.study.lease import hold_lease
    from orchestrator.study.study import SweepStudy
    from orchestrator.tracking.process import TrackerProcess
    from orchestrator.tracking.retry_queue import RetryQueue

    class NoOp(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            vars(trainable)["SweepTrial"] = NoOpTrial
            super().setup(config)
            gather(Path(config["folder"]) / "workers")

    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch, open(os.devnull, "w") as nothing:
        root = Path(scratch)
        (root / "no-op").mkdir()
        study = SweepStudy.create(root / "no-op", parsed(trials, reports))
        with (
            TrackerProcess() as tracker,
            cluster(),
            hold_lease("no-op", study.folder, study.lease_records) as lease,
            Progress(Console(file=nothing), study.sweep) as progress,
            RetryQueue(
                partial(tracker.open, root, study.sweep.normalised(), study.id), print, study.limits.check
            ) as queue,
            patch.object(tune, "Trainable", NoOp),
            clock.watching(SweepStudy, "next_ticket", ASK),
            clock.watching(SweepStudy, "report", REPORT),
            clock.watching(Follower, "changed", FOLLOW),
            clock.watching(TrackerProcess, "sync", TRACK),
        ):
            study.drive(lease)
            queue.put("open", lambda tracker: None)
            queue.drain()
            tune.run_trials(study, root, capacity_for(study.sweep.resources), Follower(study, queue, progress))
            start = clock.first[REPORT]
            clock.seconds[REST] = time.perf_counter() - start - sum(clock.seconds[part] for part in DRIVER)
            assert queue.drain()
            seconds = time.perf_counter() - start
        assert [len(record.rungs) for record in study.records()] == [reports] * trials
        with sqlite3.connect(root / "mlflow.db") as tracked:
            assert tracked.execute("select count(*) from metrics where key = 'kid'").fetchone() == (trials * reports,)
    return seconds, dict(clock.seconds)


def parsed(trials: int, reports: int, *overrides: str) -> Any:
    """The sweep of no-op trials, with `--set`-like overrides."""
    from search_spaces.load import parse_sweep

    rungs = f"rungs={{every: 0.1, until: {reports / 10}}}"
    return parse_sweep(SWEEP, overrides=[rungs, f"budget.trials={trials}", "pruner=none", *overrides])


def at_many_trials(count: int) -> dict[str, float]:
    """Milliseconds of one ask, report and pruning after `count` ended trials, by pruner; the median of 20."""
    from orchestrator.study.study import Decision, SweepStudy

    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        study = SweepStudy.create(Path(scratch), parsed(count, 4, "pruner=median", "sampler=random"))
        while (ticket := study.next_ticket()) is not None:
            value = abs(ticket.params["g_lr"] - 1e-3)
            history = [made_up(100 * step, value / step) for step in range(1, 5)]
            any(study.report(ticket.number, history[:length]) is not Decision.CONTINUE for length in range(1, 5))
        assert {record.state for record in study.records()} == {"complete", "pruned"}
        for pruner in PRUNERS:
            full = SweepStudy(Path(scratch), parsed(10 * count, 4, f"pruner={pruner}"), study._study)
            seconds = [ask_report_prune(full) for _ in range(21)]
            found[pruner] = 1000 * sorted(seconds[1:])[10]  # the first one also reads the ended trials
    return found


def ask_report_prune(study: Any) -> float:
    """Seconds in which a trial is sampled, reports a bad score, and is pruned or paused."""
    from orchestrator.study.study import Decision

    start = time.perf_counter()
    ticket = study.next_ticket()
    asked = time.perf_counter() - start
    passed = list(study.records()[ticket.number].rungs)
    history = [*passed, made_up(100 * (len(passed) + 1), 99.0)]
    start = time.perf_counter()
    decision = study.report(ticket.number, history)
    took = asked + time.perf_counter() - start
    while decision is Decision.CONTINUE:  # hyperband ends only some of its trials here
        history.append(made_up(100 * (len(history) + 1), 99.0))
        decision = study.report(ticket.number, history)
    return took


def simulated(trials: int) -> None:
    """Runs one simulated sweep. Needs a process of its own, so that its peak memory is that of the simulation."""
    import numpy as np

    from orchestrator.decisions.simulate import RecordedCurve, replay
    from search_spaces.pruners.freeze_thaw import FreezeThaw

    rng, steps = np.random.default_rng(0), tuple(range(1, CURVE + 1))
    scale, pace = rng.uniform(1, 2, (trials, 1)), rng.uniform(2, CURVE, (trials, 1))
    losses = scale * (0.5 + np.exp(-np.array(steps) / pace)) + rng.normal(0, 0.01, (trials, CURVE))
    curves = [RecordedCurve(str(number), steps, steps, tuple(row)) for number, row in enumerate(losses.tolist())]
    before, start = peak_mib(), time.perf_counter()
    found = replay(curves, FreezeThaw(), trials * CURVE, workers=8, seed=0)
    assert found.started == trials
    print(json.dumps([time.perf_counter() - start, before, peak_mib(), len(found.used)]))


def peak_mib() -> float:
    """The peak memory of this process in MiB."""
    if sys.platform == "linux":  # there ru_maxrss begins with the memory of the parent process
        return float(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run_simulated(trials: int) -> tuple[float, float, float, int]:
    """Of a simulated sweep: seconds, peak MiB before it (with the curves), peak MiB at its end, and rungs passed."""
    command = [sys.executable, "-m", "benchmarks.orchestration", "simulated", str(trials)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, before, peak, passed = json.loads(done.stdout)
    return seconds, before, peak, passed


def main(trials: int = 200, reports: int = 200, ended: int = 1000) -> None:
    """Prints the comparison."""
    print(f"{'':<28}{'plain Tune':>12}{'gansweep':>12}{'ratio':>8}")
    for name, shape, factor in (("trials/min", (trials, 1), 60 * trials), ("reports/s", (4, reports), 4 * reports)):
        rounds = [(run_plain(*shape), *run_ours(*shape)) for _ in range(ROUNDS)]
        theirs = factor / median(plain for plain, *_ in rounds)
        _, seconds, parts = sorted(rounds, key=lambda each: each[1])[ROUNDS // 2]
        print(f"{name:<28}{theirs:>12.0f}{factor / seconds:>12.0f}{factor / seconds / theirs:>8.2f}")
        each = f"ms per {'trial' if shape[1] == 1 else 'report'}"
        for part, spent in sorted(parts.items(), key=lambda item: -item[1]):
            print(f"    {part:<24}{1000 * spent / shape[0] / shape[1]:>24.2f} {each}")
    for pruner, milliseconds in at_many_trials(ended).items():
        print(f"ask + report + prune at {ended:,} ended trials, {pruner}: {milliseconds:.1f} ms")
    for size in SIMULATED:
        seconds, before, peak, passed = run_simulated(size)
        print(
            f"{size:,} simulated trials, {passed:,} rungs: {seconds:.1f} s, {before:.0f} MiB before, {peak:.0f} at most"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["plain"]:
        plain(int(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1:2] == ["simulated"]:
        simulated(int(sys.argv[2]))
    else:
        main(*map(int, sys.argv[1:]))
