"""Real sweeps in processes of their own, for tests that interrupt, kill or look at them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from orchestrator.study.records import TrialRecord
from orchestrator.study.study import SweepStudy

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = "orchestrator.cli"

#: Small enough for seconds, real all the same: digits, a classifier, rungs, pruning.
TINY = """\
system: narman-cgan
dataset: mnist-mini
search:
  g_lr: {log_uniform: [2e-5, 5e-3]}
  smoothing: {choice: [none, fixed]}
  smoothing_strength: {uniform: [0.02, 0.3], when: {smoothing: fixed}}
  batch: 50
  width: 0.1
rungs: {every: 0.5, until: 2}
score: {samples: 100}
finals: {trials: 0}
pruner: {name: median, startup: 2}
budget: {trials: 5}
"""


def prepare(folder: Path, cache: Path, text: str = TINY) -> Path:
    """A root that has a trained extractor and `tiny.yaml` beside it; returns the sweep file."""
    shutil.copytree(cache, folder / "runs" / "cache", dirs_exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(text)
    return path


def environment() -> dict[str, str]:
    """The test's environment without settings of the person who runs it."""
    return {key: value for key, value in os.environ.items() if not key.startswith("GANSWEEP")}


def gansweep(
    *arguments: str, cwd: Path, timeout: float = 600, module: str = COMMAND, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end, with `settings` in its environment."""
    command, environ = [sys.executable, "-m", module, *arguments], {**environment(), **(settings or {})}
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=timeout, check=False)


def in_process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """As `gansweep`, in this process, which has imported already what takes seconds; for commands that run no sweep."""
    from orchestrator.cli.__main__ import main

    out, err, code = StringIO(), StringIO(), 0
    with (
        chdir(cwd),
        redirect_stdout(out),
        redirect_stderr(err),
        patch.object(sys, "argv", ["gansweep", *arguments]),
        patch.dict(os.environ, environment(), clear=True),
    ):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(list(arguments), code, out.getvalue(), err.getvalue())


def start(
    *arguments: str, cwd: Path, module: str = COMMAND, settings: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Starts the command in a process group of its own, so that a signal to it reaches nobody else."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        env={**environment(), **(settings or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def records(folder: Path) -> list[TrialRecord]:
    """The trials of the sweep in `folder` as its study has them; none before it has begun."""
    study = SweepStudy.open(folder)
    return study.records() if study else []


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], timeout: float = 600) -> None:
    """Waits until `condition` holds while `process` lives."""
    end = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None, f"ended early: {process.stdout and process.stdout.read()}"
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def wait_for_the_last_process(driver: subprocess.Popen[str]) -> None:
    """Waits until no process of the session that `driver` led is alive."""
    end = time.monotonic() + 60
    listing = ["pgrep", "-a", "-s", str(driver.pid)]
    while left := subprocess.run(listing, capture_output=True, text=True, check=False).stdout:
        assert time.monotonic() < end, f"processes of the sweep are still alive: {left}"
        time.sleep(0.1)


def status(name: str, cwd: Path) -> dict[str, Any]:
    """What `gansweep status NAME --json` prints."""
    done = in_process("status", name, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
