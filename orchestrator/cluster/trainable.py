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

from orchestrator.cluster.nodes import draining
from orchestrator.cluster.trial import SweepTrial
from orchestrator.cluster.workers import Team, limit_memory, this_node
from orchestrator.decisions.failures import printable
from orchestrator.paths import process_log
from search_spaces.settings import Resources
from search_spaces.sweep import Sweep, read_kept
from trainers.rungs import Rung

#: Seconds between two looks, by a trial, whether its nodes are to be taken away.
_LOOK = 1.0
#: What is kept of what a trial's process wrote last. JSON makes it three times as long at most.
LOG_BYTES, LOG_LINES = 16_000, 200


class NodeDrainedError(Exception):
    """The trial is saved and must go on elsewhere."""


class Trainable(tune.Trainable):  # type: ignore[misc]  # ray ships no types for it
    """A trial as Tune sees it: each step passes one rung. Tune's own checkpoints are not used.

    A report holds the rungs that are new since the one before, or were measured again; the first of an attempt all.
    """

    _team: Team | None = None
    """The other workers of this process's trials, from its first one on that has several."""
    _looked = -math.inf
    """When its nodes were last known to stay."""

    def setup(self, config: dict[str, Any]) -> None:
        self._config = config
        self._trial: SweepTrial | None = None  # the one before must leave its memory to the next
        self._told: dict[int, Rung] = {}
        _write_to(process_log(Path(config["folder"]), config["number"], config["attempt"]))

    def step(self) -> dict[str, Any]:
        if time.monotonic() - self._looked >= _LOOK:
            if leaving := draining(self._nodes()):
                raise NodeDrainedError(f"{', '.join(leaving)} is about to be taken away")
            self._looked = time.monotonic()
        self._trial = self._trial or self._begin()  # not in `setup`, whose errors Ray tells in another way
        news = [rung for rung in self._trial.advance() if self._told.get(rung.images) is not rung]
        self._told |= {rung.images: rung for rung in news}
        told = {"news": [rung.to_json() for rung in news], "damaged": self._trial.damaged, "nodes": self._nodes()}
        return {"told": json.dumps(told)}

    def _begin(self) -> SweepTrial:
        config, want = self._config, Resources.model_validate_json(self._config["resources"])
        if want.workers_per_trial > 1 and self._team is None:
            self._team = Team(want)
        limit_memory(want.gpu_share)
        folder, cache = Path(config["folder"]), Path(config["cache"])
        return SweepTrial(
            _sweep(config["sweep"]), folder, cache, config["number"], config["params"], config["attempt"], self._team
        )

    def _nodes(self) -> list[str]:
        """Where the trial's workers are."""
        return self._team.nodes if self._team else [this_node()]

    def cleanup(self) -> None:
        if self._team is not None:
            self._team.dissolve()

    def get_auto_filled_metrics(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        """Tune's, without the configuration: the driver knows it, and would keep statistics of each number in it."""
        metrics = tune.Trainable.get_auto_filled_metrics(self, *arguments, **named)
        return {key: value for key, value in metrics.items() if key != "config"}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True


@lru_cache(maxsize=1)
def _sweep(text: str) -> Sweep:
    return read_kept(text)  # a process has one sweep and many trials


def _write_to(log: Path) -> None:
    """From now on this process writes there, libraries below Python included."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)


def log_tail(log: Path, account: str) -> str:
    """The end of what a process wrote to `log`, where this machine has it, and Ray's account of its death."""
    written = b""
    if log.exists():
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_BYTES))
            written = file.read()
    text = printable(f"{written.decode(errors='replace')}\n{account}").strip()
    lines = "\n".join(text.splitlines()[-LOG_LINES:])
    return lines.encode()[-LOG_BYTES:].decode(errors="ignore")
