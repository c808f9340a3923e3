"""A trial as Ray Tune runs it, in a process of its own."""

from __future__ import annotations

import json
import math
import os
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from ray import tune

from orchestrator.cluster.nodes import draining, this_node
from orchestrator.cluster.trial import SweepTrial
from orchestrator.cluster.workers import Team, limit_memory
from orchestrator.decisions.failures import printable
from orchestrator.paths import process_log
from orchestrator.study.inputs import Inputs
from search_spaces.settings import Resources
from search_spaces.sweep import Sweep, read_kept
from trainers.rungs import Rung

#: Seconds between two checks of a trial whether one of its nodes is draining.
_CHECK = 1.0
#: The end of a trial's log that is kept with the study. As JSON it is at most three times as long.
LOG_BYTES, LOG_LINES = 16_000, 200
#: The key of a report among the values that Tune passes from a trial to the driver.
REPORT = "report"


class NodeDrainedError(Exception):
    """A node of the trial is draining; the trial is saved and continues on other nodes."""


class Trainable(tune.Trainable):  # type: ignore[misc]  # ray ships no types for it
    """A trial as Tune sees it: each step passes one rung. Tune's own checkpoints are not used.

    The first report of an attempt has all rungs of the trial, every other one those that are new or were measured
    again.
    """

    _team: Team | None = None
    """The workers of this process's trials; None until a trial with several workers begins."""
    _checked = -math.inf
    """The time at which none of its nodes was draining."""

    def setup(self, config: dict[str, Any]) -> None:
        self._config = config
        self._trial: SweepTrial | None = None  # frees the memory of the trial before
        self._reported: dict[int, Rung] = {}
        _write_to(process_log(Path(config["folder"]), config["number"], config["attempt"]))

    def step(self) -> dict[str, Any]:
        if time.monotonic() - self._checked >= _CHECK:
            if leaving := draining(self._nodes()):
                raise NodeDrainedError(f"{', '.join(leaving)} is about to be taken away")
            self._checked = time.monotonic()
        self._trial = self._trial or self._begin()  # not in `setup`: Ray reports errors there in another form
        new = [rung for rung in self._trial.advance() if self._reported.get(rung.images) is not rung]
        self._reported |= {rung.images: rung for rung in new}
        report = {"rungs": [rung.to_json() for rung in new], "damaged": self._trial.damaged, "nodes": self._nodes()}
        return {REPORT: json.dumps(report)}

    def _begin(self) -> SweepTrial:
        config, want = self._config, Resources.model_validate_json(self._config["resources"])
        if want.workers_per_trial > 1 and self._team is None:
            self._team = Team(want)
        limit_memory(want.gpu_share)
        return SweepTrial(
            _sweep(config["sweep"]),
            Path(config["folder"]),
            Path(config["cache"]),
            config["number"],
            config["params"],
            config["attempt"],
            self._team,
            Inputs.from_json(config["inputs"], "the inputs of the study") if config["inputs"] else None,
        )

    def _nodes(self) -> list[str]:
        """The node of each worker of the trial."""
        return self._team.nodes if self._team else [this_node()]

    def cleanup(self) -> None:
        if self._team is not None:
            self._team.end()

    def get_auto_filled_metrics(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        """Tune's metrics without the configuration: the driver has it, and would keep statistics of each number."""
        metrics = tune.Trainable.get_auto_filled_metrics(self, *arguments, **named)
        return {key: value for key, value in metrics.items() if key != "config"}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True


@lru_cache(maxsize=1)
def _sweep(text: str) -> Sweep:
    return read_kept(text)  # cached, since a process has one sweep and many trials


def _write_to(log: Path) -> None:
    """Redirects standard output and error of this process to `log`, also for libraries that are not in Python."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)


def log_tail(log: Path, account: str) -> str:
    """The end of what a process wrote to `log`, if this machine has that file, and of `account`, Ray's error.

    At most LOG_LINES lines and LOG_BYTES bytes. Keys and passwords are left out, as far as they can be recognised.
    """
    written = b""
    if log.exists():
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_BYTES))
            written = file.read()
    text = printable(f"{written.decode(errors='replace')}\n{account}").strip()
    lines = "\n".join(text.splitlines()[-LOG_LINES:])
    return lines.encode()[-LOG_BYTES:].decode(errors="ignore")
