"""One driver per sweep, on any machine: a lease with fencing.

Drivers claim numbered epochs (fencing tokens) in records that all of them can read. A driver renews its record in the
background. If it has not done so for `expiry` seconds, another driver may supersede it by a claim of the next epoch.
Every write of a driver checks its lease first. The check reads the driver's own clock, and the records only if the
renewal is overdue (Gray and Cheriton, "Leases", 1989). A takeover compares no clocks of different machines: a driver on
another machine is dead if its record has not changed for `expiry` seconds of the observer's clock. On the same machine
a driver has a lock on a file, which the kernel releases when its process ends.
"""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TextIO

from orchestrator.paths import DRIVER_LOCK
from trainers.errors import InputError, named

#: Seconds without a renewal after which a driver may be superseded.
EXPIRY = "GANSWEEP_LEASE_SECONDS"
_DEFAULT_EXPIRY = 30.0
#: Start of the key of a claim among the notes of a study; the epoch follows.
CLAIM = "lease:"
#: Seconds after which every reader sees a written record (the delay in Fischer's mutual exclusion; Lamport, 1987).
SETTLE = 0.25
#: Attempts to get the lock: `gansweep status` holds it for a moment when it looks for a driver.
_PROBES = 5


class LeaseLostError(Exception):
    """Another driver has taken over, or this one has given its lease back: it must write nothing more."""


@dataclass(frozen=True)
class Claim:
    """One driver's claim to a sweep."""

    epoch: int
    holder: str
    """HOST:PID:UUID."""
    machine: str
    """Id of the running kernel, since several hosts may have the same name."""
    expiry: float
    renewed: float
    """Seconds of the machine's clock at the last renewal."""
    at: float
    """The same moment as Unix time, for people and `running_driver` on other machines."""
    seconds: float = 0.0
    """For how long this driver has been at work."""
    state: str = "held"
    """held, ended, interrupted (ended before its work was done), or withdrawn: claimed too late and never used."""

    @property
    def process(self) -> str:
        """The driver's process, as messages name it."""
        host, pid, _ = self.holder.rsplit(":", 2)
        return f"process {pid} on {host}"


class Records(Protocol):
    """Where claims are kept; every driver reads what any other has written."""

    def read(self) -> Sequence[Claim]:
        """All claims by epoch."""

    def claim(self, claim: Claim) -> bool:
        """Keeps `claim` if nobody has its epoch yet, and says whether it did."""

    def renew(self, claim: Claim) -> None:
        """Replaces the record of the epoch of `claim`, which its own driver has renewed."""


class ClaimNotes:
    """Claims among the notes of a study, one per epoch. `read` returns all notes, `write` keeps one."""

    def __init__(self, read: Callable[[], Mapping[str, Any]], write: Callable[[str, Any], None]) -> None:
        self._read, self._write = read, write

    def read(self) -> Sequence[Claim]:
        return claims(self._read())

    def claim(self, claim: Claim) -> bool:
        start = clock()
        if any(other.epoch >= claim.epoch for other in self.read()):
            return False
        self.renew(claim)
        late = clock() - start >= SETTLE  # a late write may have replaced a claim that others have seen
        time.sleep(SETTLE)
        if late:
            self.renew(replace(claim, state="withdrawn"))
        return self.read()[-1] == claim

    def renew(self, claim: Claim) -> None:
        self._write(f"{CLAIM}{claim.epoch}", asdict(claim))


def claims(notes: Mapping[str, Any]) -> list[Claim]:
    """The claims among a study's notes, by epoch."""
    found = [Claim(**note) for key, note in notes.items() if key.startswith(CLAIM)]
    return sorted(found, key=lambda claim: claim.epoch)


def last_claim(known: Sequence[Claim]) -> Claim | None:
    """The last claim that was not withdrawn, whether its driver lives or not; None if there is none."""
    return next((claim for claim in reversed(known) if claim.state != "withdrawn"), None)


def driver_seconds(known: Sequence[Claim]) -> float:
    """Seconds for which drivers were at work, all of them together."""
    return sum(claim.seconds for claim in known)


def running_driver(known: Sequence[Claim], folder: Path) -> Claim | None:
    """The claim of the driver at work, or None. For another machine it is an estimate from the last renewal."""
    last = last_claim(known)
    if last is None or last.state != "held":
        return None
    if last.machine == machine():
        return last if _locked(folder / DRIVER_LOCK) else None
    return last if time.time() - last.at < last.expiry else None


def clock() -> float:
    """Seconds of a clock that all processes of the machine share and that runs on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@cache
def machine() -> str:
    """An id of the running kernel; if it has none, the host's name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


class Lease:
    """The claim of this process. It must call `check` before every write."""

    def __init__(self, records: Records, mine: Claim) -> None:
        self._records, self._mine = records, mine
        self._valid_until = mine.renewed + mine.expiry
        self._start = time.monotonic()
        self._lost: str | None = None
        self._renewing, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._keep_renewing, name="lease", daemon=True)

    @property
    def epoch(self) -> int:
        """The fencing token: greater than that of every earlier driver."""
        return self._mine.epoch

    @property
    def held(self) -> bool:
        """Whether it was neither given back nor lost, as far as this process knows."""
        return self._lost is None and self._mine.state == "held"

    def check(self) -> None:
        """Raises LeaseLostError if another driver has taken over."""
        if self.held and clock() >= self._valid_until:
            self.renew()
        if self._lost is None and not self.held:
            self._superseded()  # it was given back, so another driver may have taken over at any time
        if self._lost is not None:
            raise LeaseLostError(self._lost)

    def fence(self, notes: Mapping[str, Any]) -> None:
        """Raises LeaseLostError if others' `notes` have a claim of a later epoch."""
        self._notice_takeover(last_claim(claims(notes)))
        if self._lost is not None:
            raise LeaseLostError(self._lost)

    def renew(self, state: str = "held") -> None:
        """Renews the record unless it was superseded, or given back, perhaps while this call waited for another one."""
        with self._renewing:
            if not self.held:
                return
            start = clock()
            worked = time.monotonic() - self._start
            self._mine = replace(self._mine, renewed=start, at=time.time(), seconds=worked, state=state)
            if not self._superseded():
                self._records.renew(self._mine)
            # A second look: a claimant that has not seen the new record has written its own by now, or will withdraw.
            if not self._superseded():
                self._valid_until = start + self._mine.expiry

    def start(self) -> None:
        """Begins to renew the claim in the background."""
        self._thread.start()

    def end(self, state: str = "ended") -> None:
        """Gives the lease back, if that was not done yet; `state` is ended or interrupted."""
        self._stop.set()
        self._thread.join()
        if self.held:
            self.renew(state)

    def _superseded(self) -> bool:
        self._notice_takeover(last_claim(self._records.read()))
        return self._lost is not None

    def _notice_takeover(self, last: Claim | None) -> None:
        later = last is not None and last.epoch >= self._mine.epoch and last.holder != self._mine.holder
        if self._lost is None and last is not None and later:
            self._lost = f"lost the lease to {last.process}, which drives the sweep now"

    def _keep_renewing(self) -> None:
        while self._lost is None and not self._stop.wait(self._mine.expiry / 3):
            # The records may be out of reach for a while. If that lasts, `check` raises the error of the overdue lease.
            with suppress(Exception):
                self.renew()


@contextmanager
def hold_lease(name: str, folder: Path, records: Records, say: Callable[[str], None] = print) -> Iterator[Lease]:
    """Makes this process the only driver of the sweep `name` for as long as the block lasts.

    `folder` is the sweep's on this machine. Raises InputError that names another driver if one is at work. It takes up
    to `expiry` seconds to learn whether a driver on another machine lives.
    """
    with _Lock(folder / DRIVER_LOCK) as lock:
        last = last_claim(records.read())
        if last is None or last.state != "held":
            if not lock.held:
                raise InputError(f"{name}: already driven by process {lock.owner}; stop it first")
        elif last.machine != machine():
            say(f"{name}: waiting up to {last.expiry:g} s to learn whether {last.process} is still at work")
            _wait_for_expiry(name, records, last)
        elif not lock.held and clock() - last.renewed < last.expiry:
            raise _already_driven(name, last)
        lease = Lease(records, _claim(name, records, last))
        lock.take_over()
        lease.start()
        try:
            yield lease
        except BaseException:
            lease.end("interrupted")
            raise
        lease.end()


@contextmanager
def without_driver(name: str, folder: Path, known: Sequence[Claim]) -> Iterator[None]:
    """Lets no driver of the sweep `name` begin on this machine while the block runs; `known` are its claims.

    Raises InputError that names a driver if one is at work.
    """
    if (driver := running_driver(known, folder)) is not None:
        raise _already_driven(name, driver)
    with _Lock(folder / DRIVER_LOCK) as lock:
        if not lock.held:
            raise InputError(f"{name}: already driven by process {lock.owner}; stop it first")
        yield


def _claim(name: str, records: Records, last: Claim | None) -> Claim:
    """Claims the next epoch. `last` is the last claim, whose driver is believed dead."""
    me = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    epoch = max((claim.epoch for claim in records.read()), default=0) + 1
    mine = Claim(epoch, me, machine(), _expiry(), clock(), time.time())
    won = records.claim(mine)
    others = [claim for claim in records.read() if claim.holder != me]
    if not won:
        by = next((claim for claim in others if claim.epoch == epoch), None)
        if by is None:
            raise InputError(f"{name}: other drivers start at the same time; try again")
        raise _already_driven(name, by)
    before = last_claim([claim for claim in others if claim.epoch < epoch])
    if before is not None and before != last:  # its driver has renewed it meanwhile, and lives
        records.renew(replace(mine, state="withdrawn"))
        raise _already_driven(name, before)
    return mine


def _expiry() -> float:
    written = os.environ.get(EXPIRY, str(_DEFAULT_EXPIRY))
    try:
        seconds = float(written)
    except ValueError:
        seconds = 0.0
    if not 4 * SETTLE <= seconds < 1e6:
        raise InputError(f"{EXPIRY}={written}: must be a number of seconds from {4 * SETTLE:g} to 1e6")
    return seconds


def _wait_for_expiry(name: str, records: Records, last: Claim) -> None:
    """Waits until `last` has expired or was given back. Raises InputError if its driver, or another one, renews it."""
    end = clock() + last.expiry
    while clock() < end:
        time.sleep(min(1.0, last.expiry / 10))
        now = last_claim(records.read())
        if now != last and now is not None:
            if now.state == "held":
                raise _already_driven(name, now)
            return


def _already_driven(name: str, by: Claim) -> InputError:
    return InputError(f"{name}: already driven by {by.process}; stop it first")


class _Lock:
    """A lock on a file that names the process which has it. The kernel releases it when that process ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None
        self.owner = "?"

    @property
    def held(self) -> bool:
        return self._file is not None

    def __enter__(self) -> _Lock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._try()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()

    def take_over(self) -> None:
        """Replaces the file of a superseded driver, which keeps the lock on the old one, by a new locked file."""
        if not self.held:
            temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            self._lock(temporary)
            temporary.replace(self._path)

    def _try(self) -> None:
        for _ in range(_PROBES):
            try:
                self._lock(self._path)
            except BlockingIOError:
                self.owner = self._path.read_text().strip()
                time.sleep(SETTLE / _PROBES)
            else:
                return

    def _lock(self, path: Path) -> None:
        file = open(path, "a+")  # noqa: SIM115  # it is closed with the lock
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise
        with named(path):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        self._file = file


def _locked(path: Path) -> bool:
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
