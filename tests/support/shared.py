"""What all processes of one test run share: one folder, servers and trained networks, each made by the first that asks.

pytest-xdist runs the tests in several processes. Each would start its own servers, which takes longer than the tests
that use them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

_KEY = pytest.StashKey["Shared"]()
#: The key under which pytest-xdist hands the folder to its workers.
_INPUT = "gansweep_shared"


class Shared:
    """A folder that all processes of a run know, with a short path: the names of sockets allow no long one.

    It does not lie below pytest's own temporary folder: PostgreSQL, which runs as another user if root tests, needs a
    path that everybody may enter, and every run of pytest closes that folder to others again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def alone(self, name: str) -> Iterator[Path]:
        """The folder `name`, which no other process of the run uses as long as the block lasts; empty at first."""
        place = self.folder / name
        with open(self.folder / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            place.mkdir(exist_ok=True)
            yield place

    def stop_at_end(self, pid: int, how: signal.Signals = signal.SIGKILL) -> None:
        """Sends this signal to the process and its group at the end of the run."""
        with open(self.folder / "processes", "a") as processes:
            processes.write(f"{pid} {psutil.Process(pid).create_time()} {how.value}\n")

    def close(self) -> None:
        """Ends the processes and removes the folder."""
        listed = self.folder / "processes"
        for line in listed.read_text().splitlines() if listed.exists() else ():
            pid, created, how = line.split()
            with suppress(psutil.Error, ProcessLookupError):
                process = psutil.Process(int(pid))
                if process.create_time() == float(created):
                    os.killpg(process.pid, int(how))
                    process.wait(60)
        shutil.rmtree(self.folder, ignore_errors=True)


def open_shared(config: pytest.Config) -> None:
    """Makes the folder, or finds it in a worker of pytest-xdist."""
    given = getattr(config, "workerinput", {}).get(_INPUT)
    if given is None:
        given = tempfile.mkdtemp(prefix="gansweep-tests-")
        os.chmod(given, 0o755)
    config.stash[_KEY] = Shared(Path(given))


def shared_of(config: pytest.Config) -> Shared:
    """The folder of this run."""
    return config.stash[_KEY]


def tell_worker(config: pytest.Config, workerinput: dict[str, object]) -> None:
    """Passes the folder on to a worker that is about to start."""
    workerinput[_INPUT] = str(shared_of(config).folder)


def close_shared(config: pytest.Config) -> None:
    """At the end of the run, not at that of each worker."""
    if not hasattr(config, "workerinput") and _KEY in config.stash:
        shared_of(config).close()
