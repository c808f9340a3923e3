"""The faults: each is given a sweep that runs, breaks something, and brings the sweep to its end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from orchestrator.paths import JOURNAL
from orchestrator.store import SpoolFullError, TrialStore, store_of
from orchestrator.study.lease import EXPIRY
from orchestrator.study.study import SweepStudy
from search_spaces.load import SweepFile
from tests.faults.laws import TRIALS
from tests.faults.running import PATIENCE, Running
from tests.faults.servers import (
    Bucket,
    BusyBucket,
    DataFolder,
    Nothing,
    SharedFolder,
    SmallDisk,
    SmallRoot,
    Tracking,
)
from tests.support import sweeps
from trainers import checkpoint

OUTAGE = 30.0
"""Seconds for which a server is away."""


def kill_driver(sweep: Running) -> None:
    """SIGKILL of the driver."""
    sweep.kill_driver()
    sweep.resume()


def kill_driver_twice(sweep: Running) -> None:
    """SIGKILL of the driver, and again of the one that goes on."""
    sweep.kill_driver()
    sweep.start()
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
    sweep.ends()


def kill_node(sweep: Running) -> None:
    """SIGKILL of the raylet: all trials die with it."""
    for process in sweep.processes("raylet/raylet")[:1]:
        os.kill(process, signal.SIGKILL)
    time.sleep(5)
    sweep.kill_driver()
    sweep.resume()


def kill_cluster_node(sweep: Running) -> None:
    """SIGKILL of the raylet of one of two nodes: its trial goes on upon the other."""
    found = [process for process in sweep.processes("^[^ ]*raylet/raylet ") if not _is_head(process)]
    if found:  # the sweep may just have ended
        os.kill(sweep.dice.choice(found), signal.SIGKILL)
    sweep.ends()


def _is_head(process: int) -> bool:
    return b"--head" in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")


def damage(how: Callable[[bytes, Random], bytes]) -> Callable[[Running], None]:
    """The driver dies, and the newest checkpoint of a trial under way is damaged before it goes on."""

    def inject(sweep: Running) -> None:
        sweep.kill_driver()
        time.sleep(7)  # a trial may outlive its driver by so much, and would write a whole one over it
        states = sorted(sweep.folder.glob(f"store/trials/*/checkpoints/[0-9]*/{checkpoint.STATE}"))
        # A trial that is complete is never trained again, so that nothing can bring its checkpoint back.
        left = {f"{r.number:05d}" for r in sweeps.records(sweep.folder) if r.state == "running"}
        newest = {state.parents[1]: state for state in states if state.parents[2].name in left}
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


def second_driver(sweep: Running) -> None:
    """A second driver of a sweep that runs is refused and says who is at work."""
    first, second = sweep.driver, sweep.start()
    said, _ = second.communicate(timeout=PATIENCE)
    if first.poll() is None:
        assert second.returncode == 2, said
        assert f"already driven by process {first.pid}" in said, said
    sweep.ends(first)


def two_drivers(sweep: Running) -> None:
    """Of two drivers started at once one runs the sweep, and the other says which."""
    time.sleep(sweep.dice.choice([0.0, sweep.dice.uniform(0, 2)]))
    sweep.start()
    said = [driver.communicate(timeout=PATIENCE)[0] for driver in sweep.drivers]
    assert sorted(driver.returncode for driver in sweep.drivers) == [0, 2], said
    winner, loser = sorted(range(2), key=lambda index: sweep.drivers[index].returncode)
    assert f"already driven by process {sweep.drivers[winner].pid}" in said[loser], said[loser]


def stopped_driver(sweep: Running) -> None:
    """A driver is stopped past its lease; it goes on while another one drives, or after, and writes nothing more."""
    first = sweep.driver
    first.send_signal(signal.SIGSTOP)
    its_own = _writers(_journal(sweep))
    try:
        _take_over(sweep, first.pid)
        if sweep.dice.random() < 0.5:
            sweep.driver.wait(PATIENCE)
        else:
            time.sleep(sweep.dice.uniform(0, sweep.seconds))
        before = len(_journal(sweep))
    finally:
        first.send_signal(signal.SIGCONT)
    said, _ = first.communicate(timeout=PATIENCE)
    if len(_epochs(sweep)) == 1:  # all was done when it was stopped, or it had locked the journal
        sweep.ends(first)
        return
    sweep.ends()
    assert first.returncode == 3, f"exit code {first.returncode}: {said}"
    assert "lost the lease to process" in said, said
    assert not _writers(_journal(sweep)[before:]) & its_own, "the driver that was stopped has written to the study"


def _take_over(sweep: Running, stopped: int) -> None:
    """Starts drivers until one is at work on the sweep, or has found that there is nothing it can do."""
    while True:
        sweep.start()
        while len(_epochs(sweep)) == 1 and sweep.driver.poll() is None:
            time.sleep(0.2)
        if len(_epochs(sweep)) > 1 or sweep.driver.returncode == 0:
            return
        said, _ = sweep.driver.communicate()
        if "kept it locked" in said:
            return
        assert f"already driven by process {stopped}" in said, said


def _epochs(sweep: Running) -> list[int]:
    study = SweepStudy.open(sweep.folder)
    assert study is not None
    return [claim.epoch for claim in study.limits.claims]


def _journal(sweep: Running) -> list[str]:
    """The whole lines of the study's journal."""
    return (sweep.folder / JOURNAL).read_text().rpartition("\n")[0].splitlines()


def _writers(lines: Iterable[str]) -> set[str]:
    """Who wrote these lines."""
    return {json.loads(line)["worker_id"] for line in lines}


def interrupt(sweep: Running) -> None:
    """Ctrl-C."""
    sweep.driver.send_signal(signal.SIGINT)
    sweep.driver.communicate(timeout=PATIENCE)
    if sweep.driver.returncode != 0:
        sweep.resume()


def ends_by(number: signal.Signals) -> Callable[[Running], None]:
    """A signal that batch systems and terminals send, to the driver alone or to its group, Ray's servers included."""

    def inject(sweep: Running) -> None:
        send = sweep.dice.choice([os.kill, os.killpg])
        with suppress(ProcessLookupError):  # the sweep may just have ended
            send(sweep.driver.pid, number)
        said, _ = sweep.driver.communicate(timeout=PATIENCE)
        assert sweep.driver.returncode in (0, 128 + number), f"exit code {sweep.driver.returncode}: {said}"
        assert "Traceback" not in said, said
        assert "***" not in said, said  # Ray's dump of its stack
        assert not any(record.failures for record in sweeps.records(sweep.folder)), said
        if sweep.driver.returncode != 0:
            sweep.resume()

    return inject


def changed_data(sweep: Running) -> None:
    """A pixel of the training data changes after the driver has died; the sweep goes on when it is put back."""
    sweep.kill_driver()
    servers = sweep.servers
    assert isinstance(servers, DataFolder)
    path = servers.files(sweep.folder) / "train-images-idx3-ubyte"
    whole, before = path.read_bytes(), (sweep.folder / JOURNAL).read_bytes()
    path.write_bytes(whole[:16] + _flipped(whole[16:], sweep.dice))  # the header has 16 bytes
    sweep.start()
    said, _ = sweep.driver.communicate(timeout=PATIENCE)
    if sweep.driver.returncode != 0 or "is complete" not in said:  # a sweep that is complete reads no data
        assert sweep.driver.returncode == 2, f"exit code {sweep.driver.returncode}: {said}"
        assert _trials(before) == _trials((sweep.folder / JOURNAL).read_bytes()), "a trial was touched"
    path.write_bytes(whole)
    sweep.resume()


def _trials(journal: bytes) -> list[bytes]:
    """The records of trials among the lines of a journal."""
    return [line for line in journal.splitlines() if b'"trial_id"' in line]


def foreign_store(sweep: Running) -> None:
    """A sweep of the same name below another root is refused by the store, and its garbage collection too."""
    other = sweep.place / "elsewhere"
    done = sweeps.gansweep("launch", f"{sweep.name}.yaml", "--root", str(other), cwd=sweep.place)
    assert done.returncode == 2, f"exit code {done.returncode}: {done.stdout}{done.stderr}"
    assert "store" in done.stderr, done.stderr
    assert not sweeps.records(other / sweep.name)
    sweep.ends()
    done = sweeps.gansweep("gc", sweep.name, "--root", str(sweep.folder.parent), cwd=sweep.place)
    assert "0 orphans" in done.stdout, done.stdout


def full_disk(sweep: Running) -> None:
    """The disk of the root is full for a while."""
    filler = sweep.folder.parent / "filler"
    with suppress(OSError), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(2**16))
    try:
        sweep.driver.wait(sweep.dice.uniform(0, sweep.seconds))
    except subprocess.TimeoutExpired:
        pass
    finally:
        filler.unlink()
    said, _ = sweep.driver.communicate(timeout=PATIENCE)
    assert sweep.driver.returncode in (0, 1, 2), f"exit code {sweep.driver.returncode}: {said}"
    assert "Traceback" not in said, said
    sweep.resume()


def damaged_journal(sweep: Running) -> None:
    """A bit of a rung's record in the journal flips after the driver has died; `repair` drops that record."""
    sweep.kill_driver()
    path = sweep.folder / JOURNAL
    lines = path.read_bytes().splitlines(keepends=True)
    chosen = [index for index, line in enumerate(lines[:-1]) if b'"rung:' in line or b'"intermediate_value"' in line]
    if chosen:
        index = sweep.dice.choice(chosen)
        lines[index] = _flipped(lines[index][:-1], sweep.dice).replace(b"\n", b"\0") + b"\n"
        path.write_bytes(b"".join(lines))
        done = sweeps.gansweep("status", sweep.name, cwd=sweep.place)
        assert done.returncode == 2, f"exit code {done.returncode}: {done.stdout}{done.stderr}"
        assert f"{JOURNAL}:{index + 1}" in done.stderr or f"line {index + 1}" in done.stderr, done.stderr
        done = sweeps.gansweep("repair", sweep.name, cwd=sweep.place)
        assert done.returncode == 0, done.stderr
    sweep.resume()


def broken_output(sweep: Running) -> None:
    """Whoever reads what the driver prints goes away."""
    assert sweep.driver.stdout is not None
    sweep.driver.stdout.close()
    assert sweep.driver.wait(PATIENCE) == 0


def outage(sweep: Running) -> None:
    """A server is away for a while."""
    with sweep.servers.away(sweep.dice):
        time.sleep(OUTAGE)
    said = sweep.ends()
    if "`gansweep rebuild-tracking" in said:
        done = sweeps.gansweep("rebuild-tracking", sweep.name, cwd=sweep.place)
        assert done.returncode == 0, done.stderr


def full_spool(sweep: Running) -> None:
    """S3 is away, and the disk of the spool is full."""
    with sweep.servers.away(sweep.dice):
        time.sleep(OUTAGE)
        said = _complaint(store_of(SweepFile.read(sweep.place / f"{sweep.name}.yaml").sweep(), sweep.folder))
    for words in (f"the spool {sweep.folder}/scratch/spool is full", "No space left on device", "Bring the store back"):
        assert words in said, said
    sweep.ends()


def _complaint(store: TrialStore) -> str:
    """What one more trial would say when its patience is over."""
    store.patience = 0
    try:
        store.publish(TRIALS, 1, _write_until_full, ())
    except SpoolFullError as error:
        return str(error)
    return "nothing"


def _write_until_full(folder: Path) -> Path:
    folder.mkdir()
    try:
        with open(folder / "zeros", "wb", buffering=0) as file:
            while True:
                file.write(bytes(2**16))
    finally:
        shutil.rmtree(folder)


@dataclass(frozen=True)
class Kind:
    """A fault, what the sweeps that it hits stand on, and how they are run."""

    inject: Callable[[Running], None]
    servers: type[Nothing] = Nothing
    module: str = sweeps.COMMAND
    settings: Mapping[str, str] = field(default_factory=dict)
    at_once: bool = False
    """Whether it strikes with the start of the sweep, not at a random moment after its first trial has begun."""


KINDS = {
    "kill-driver": Kind(kill_driver),
    "kill-driver-twice": Kind(kill_driver_twice),
    "kill-trial": Kind(kill_trial),
    "kill-node": Kind(kill_node),
    "kill-cluster-node": Kind(
        kill_cluster_node, module="tests.faults.on_cluster", settings={"PYTHONPATH": str(sweeps.REPOSITORY)}
    ),
    "truncated-checkpoint": Kind(damage(_truncated)),
    "bit-flip": Kind(damage(_flipped)),
    "two-drivers": Kind(two_drivers, at_once=True),
    "second-driver": Kind(second_driver),
    "stopped-driver": Kind(stopped_driver, settings={EXPIRY: "4"}),
    "interrupt": Kind(interrupt),
    "sigterm": Kind(ends_by(signal.SIGTERM)),
    "sighup": Kind(ends_by(signal.SIGHUP)),
    "changed-data": Kind(changed_data, DataFolder),
    "foreign-store": Kind(foreign_store, SharedFolder),
    "disk-full": Kind(full_disk, SmallRoot),
    "damaged-journal": Kind(damaged_journal),
    "broken-output": Kind(broken_output),
    "s3-down": Kind(outage, Bucket),
    "s3-503": Kind(outage, BusyBucket),
    "spool-full": Kind(full_spool, SmallDisk),
    "mlflow-down": Kind(outage, Tracking),
}
