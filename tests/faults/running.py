"""One sweep under way: its drivers, its processes, and the moment at which it is hit."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.faults.laws import RUNGS, TRIALS
from tests.faults.servers import Nothing
from tests.support import sweeps

PATIENCE = 400.0
"""Seconds in which a sweep ends for certain, outages included."""


@dataclass
class Running:
    """The sweep `name` below `place`, and the dice that say when and where it is hit. Use as a context manager."""

    place: Path
    name: str
    dice: Random
    servers: Nothing
    seconds: float
    """How long the sweep takes from its first trial on when nothing happens."""
    module: str = sweeps.COMMAND
    settings: Mapping[str, str] = field(default_factory=dict)
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exception: object) -> None:
        for driver in self.drivers:
            for process in (driver.pid, *self.processes("", driver)):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            driver.wait()
            assert driver.stdout is not None
            driver.stdout.close()

    @property
    def folder(self) -> Path:
        return self.place / "runs" / self.name

    @property
    def driver(self) -> subprocess.Popen[str]:
        """The one that was started last."""
        return self.drivers[-1]

    def start(self) -> subprocess.Popen[str]:
        """Launches the sweep; from the second time on, that goes on with it."""
        file = f"{self.name}.yaml"
        self.drivers.append(sweeps.start("launch", file, cwd=self.place, module=self.module, settings=self.settings))
        return self.driver

    def until_moment(self) -> None:
        """Waits until a random number of rungs is passed, none and all of them included, and for a part of one."""
        rungs, part = divmod(self.dice.uniform(0, TRIALS * RUNGS + 1), 1)
        while self.driver.poll() is None and not self._has_passed(int(rungs)):
            time.sleep(0.2)
        time.sleep(part * self.seconds / (TRIALS * RUNGS))

    def _has_passed(self, rungs: int) -> bool:
        records = sweeps.records(self.folder)
        return bool(records) and sum(len(record.rungs) for record in records) >= rungs

    def processes(self, pattern: str, driver: subprocess.Popen[str] | None = None) -> list[int]:
        """Ids of a driver's processes, by default the last one's, whose command line matches."""
        command = ["pgrep", "-s", str((driver or self.driver).pid), "-f", pattern]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        return [int(line) for line in found.stdout.split()]

    def kill_driver(self) -> None:
        self.driver.kill()
        self.driver.wait()

    def resume(self) -> None:
        """Goes on with the sweep until its end."""
        self.start()
        self.ends()

    def ends(self, driver: subprocess.Popen[str] | None = None) -> str:
        """Waits until a driver, by default the last one, has ended the sweep by itself; returns what it said."""
        driver = driver or self.driver
        said, _ = driver.communicate(timeout=PATIENCE)
        assert driver.returncode == 0, f"exit code {driver.returncode}: {said}"
        assert "Traceback" not in said, said
        return said
