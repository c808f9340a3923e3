"""Many `kill -9` of the driver of one sweep in a row, each at a random moment; nothing may be left of any of them.

    python -m tests.faults.kills FOLDER [KILLS]

`FOLDER` has the sweep and `kills.jsonl`, with one line for each kill. If the program was interrupted, or is called with
a larger number, it goes on there. After the last kill (the 50th by default) the sweep is brought to its end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from getpass import getuser
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from orchestrator.study.records import TrialRecord
from tests.faults.laws import TEXT
from tests.support import sweeps

NAME = "kills"
RUNGS = 8
#: Trials for each kill, so that the sweep lasts longer than its kills.
TRIALS = 2
#: Seconds from the start of a driver to its death, at most; on two cores a first rung takes half of it.
LATEST = 30.0
#: Seconds after which a killed driver must have left no process.
ORPHANS = 10.0
#: torch makes this folder, once for all processes of a user.
CACHE = f"torchinductor_{getuser()}"


@dataclass(frozen=True)
class Kill:
    """One kill, and what was left of the driver after it."""

    number: int
    seconds: float
    """From the driver's start."""
    rungs: int
    """Of all trials, as the study has them."""
    orphans: list[str]
    """Command lines of processes that were alive after ORPHANS seconds."""
    left: list[str]
    """What was in the temporary folder then, but for CACHE."""

    @property
    def broken(self) -> bool:
        return bool(self.orphans or self.left)


def main() -> int:
    folder, kills = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 50
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "kills.jsonl"
    known = [Kill(**json.loads(line)) for line in results.read_text().splitlines()] if results.exists() else []
    # Ray's sockets need a short name, so these files are elsewhere.
    with TemporaryDirectory(prefix="gk", dir="/tmp", ignore_cleanup_errors=True) as temporary:
        place = Path(temporary)
        for number in range(len(known) + 1, kills + 1):
            known.append(kill := _kill(number, folder, kills, place))
            with open(results, "a") as file:
                file.write(json.dumps(asdict(kill)) + "\n")
            print(f"{number:>4}{kill.seconds:>7.1f} s{kill.rungs:>6} rungs  {_in_words(kill)}", flush=True)
        wrong = list(_faults(folder, kills, place))
    broken = sum(kill.broken for kill in known)
    print(f"{len(known)} kills, {broken} left something; {'; '.join(wrong) or f'exactly {TRIALS * kills} trials'}")
    return int(bool(broken or wrong))


def _kill(number: int, folder: Path, kills: int, place: Path) -> Kill:
    """Starts a driver whose temporary folder is `place`, and kills it."""
    seconds = Random(f"{NAME}-{number}").uniform(0, LATEST)
    driver = _start(folder, kills, place)
    with suppress(subprocess.TimeoutExpired):  # else the sweep has come to its end
        driver.wait(seconds)
    with suppress(ProcessLookupError):
        os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    time.sleep(ORPHANS)
    orphans = list(_processes(driver.pid, place))
    left = sorted(each.name for each in place.iterdir() if each.name != CACHE)
    rungs = sum(len(record.rungs) for record in _records(folder))
    return Kill(number, round(seconds, 1), rungs, orphans, left)


def _start(folder: Path, kills: int, place: Path) -> subprocess.Popen[bytes]:
    """Launches the sweep, or goes on with it, with room for two trials for each kill."""
    text = TEXT.replace("until: 2", f"until: {RUNGS / 2:g}")
    (folder / f"{NAME}.yaml").write_text(text)
    command = [sys.executable, "-m", sweeps.COMMAND, "launch", f"{NAME}.yaml", "--trials", str(TRIALS * kills)]
    with open(folder / "output.txt", "ab") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**sweeps.environment(), "TMPDIR": str(place), "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _processes(driver: int, place: Path) -> Iterator[str]:
    """Command lines of living processes of the driver's session, and of others whose temporary folder is `place`."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, _, session = (process / "stat").read_text().rpartition(")")[2].split()[:4]
            ours = int(session) == driver or f"TMPDIR={place}".encode() in (process / "environ").read_bytes()
            if ours and state != "Z":
                yield (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]


def _records(folder: Path) -> Sequence[TrialRecord]:
    return sweeps.records(folder / "runs" / NAME)


def _faults(folder: Path, kills: int, place: Path) -> Iterator[str]:
    """Brings the sweep to its end; what is wrong with it then."""
    code = _start(folder, kills, place).wait()
    if code != 0:
        yield f"the last driver has ended with {code}; see {folder / 'output.txt'}"
    records = _records(folder)
    if [record.number for record in records] != list(range(TRIALS * kills)):
        yield f"there are {len(records)} trials, not {TRIALS * kills}"
    for record in records:
        images = [rung.images for rung in record.rungs]
        if record.state != "complete" or images != [500 * (index + 1) for index in range(RUNGS)]:
            yield f"trial {record.number} is {record.state} with rungs at {images}"
        if record.failures:
            yield f"trial {record.number} has failures: {record.failures}"


def _in_words(kill: Kill) -> str:
    parts = [f"{len(kill.orphans)} processes: {kill.orphans}"] if kill.orphans else []
    parts += [f"files: {kill.left}"] if kill.left else []
    return "; ".join(parts) or "nothing is left"


if __name__ == "__main__":
    sys.exit(main())
