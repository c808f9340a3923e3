"""The faults: each is given a sweep that runs, breaks something, and brings the sweep to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests import sweeps
from tests.faults.laws import NAME
from trainers import checkpoint


@dataclass
class Running:
    """A sweep under way below `place`, and the dice that say when and where it is hit."""

    place: Path
    driver: subprocess.Popen[str]
    dice: Random

    @property
    def folder(self) -> Path:
        return self.place / "runs" / NAME

    def processes(self, pattern: str) -> list[int]:
        """Ids of the sweep's processes whose command line matches."""
        found = subprocess.run(
            ["pgrep", "-s", str(self.driver.pid), "-f", pattern], capture_output=True, text=True, check=False
        )
        return [int(line) for line in found.stdout.split()]

    def kill_driver(self) -> None:
        self.driver.kill()
        self.driver.communicate()

    def finish(self) -> None:
        """Waits for the driver, and goes on with the sweep where it did not bring it to its end."""
        self.driver.communicate(timeout=240)
        if self.driver.returncode != 0:
            self.resume()

    def resume(self) -> None:
        done = sweeps.gansweep("launch", f"{NAME}.yaml", cwd=self.place)
        assert done.returncode == 0, done.stdout + done.stderr


def kill_driver(sweep: Running) -> None:
    """SIGKILL of the driver."""
    sweep.kill_driver()
    sweep.resume()


def kill_driver_twice(sweep: Running) -> None:
    """SIGKILL of the driver, and again of the one that goes on."""
    sweep.kill_driver()
    sweep.driver = sweeps.start("launch", f"{NAME}.yaml", cwd=sweep.place)
    time.sleep(sweep.dice.uniform(0, 12))
    sweep.kill_driver()
    sweep.resume()


def kill_trial(sweep: Running) -> None:
    """SIGKILL of a trial's process."""
    end = time.monotonic() + 10
    while not (found := sweep.processes("ray::.*Trainable")) and time.monotonic() < end:
        time.sleep(0.1)
    if found:
        os.kill(sweep.dice.choice(found), signal.SIGKILL)
    sweep.finish()


def kill_node(sweep: Running) -> None:
    """SIGKILL of the raylet: all trials die with it."""
    for process in sweep.processes("raylet/raylet")[:1]:
        os.kill(process, signal.SIGKILL)
    time.sleep(5)
    sweep.kill_driver()
    sweep.resume()


def damage(how: Callable[[bytes, Random], bytes]) -> Callable[[Running], None]:
    """The driver dies, and the newest checkpoint of a trial is damaged before it goes on."""

    def inject(sweep: Running) -> None:
        sweep.kill_driver()
        time.sleep(7)  # a trial may outlive its driver by so much, and would write a whole one over it
        states = sorted(sweep.folder.glob(f"store/trials/*/checkpoints/[0-9]*/{checkpoint.STATE}"))
        newest = {state.parents[1]: state for state in states}
        if newest:
            state = sweep.dice.choice(list(newest.values()))
            state.write_bytes(how(state.read_bytes(), sweep.dice))
        sweep.resume()

    return inject


def _truncated(content: bytes, dice: Random) -> bytes:
    return content[: dice.randrange(len(content))]


def _flipped(content: bytes, dice: Random) -> bytes:
    place = dice.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << dice.randrange(8))]) + content[place + 1 :]


def two_drivers(sweep: Running) -> None:
    """A second driver of the same sweep is refused and says who is at work."""
    second = sweeps.gansweep("launch", f"{NAME}.yaml", cwd=sweep.place)
    if sweep.driver.poll() is None:
        assert second.returncode == 2, second.stdout + second.stderr
        assert str(sweep.driver.pid) in second.stderr
    sweep.finish()


def interrupt(sweep: Running) -> None:
    """Ctrl-C."""
    sweep.driver.send_signal(signal.SIGINT)
    sweep.finish()


KINDS: dict[str, Callable[[Running], None]] = {
    "kill-driver": kill_driver,
    "kill-driver-twice": kill_driver_twice,
    "kill-trial": kill_trial,
    "kill-node": kill_node,
    "truncated-checkpoint": damage(_truncated),
    "bit-flip": damage(_flipped),
    "two-drivers": two_drivers,
    "interrupt": interrupt,
}
