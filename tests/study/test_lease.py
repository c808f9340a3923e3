"""Laws of the lease: one driver at a time, and one that has lost its lease learns it before it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from random import Random
from time import sleep
from typing import Any

import pytest

from orchestrator.study import lease as module
from orchestrator.study.lease import (
    Claim,
    ClaimNotes,
    Lease,
    LeaseLostError,
    claims,
    driver_seconds,
    hold_lease,
    last_claim,
    running_driver,
)
from orchestrator.study.study import SweepStudy
from tests.support import made_up
from trainers.errors import InputError


class Time:
    """Time that passes in sleep alone; `meanwhile` happens at each."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.meanwhile: Callable[[], None] = lambda: None

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile()


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr("time.sleep", made.sleep)
    monkeypatch.setattr(module, "clock", lambda: made.now)
    monkeypatch.setattr(Lease, "start", lambda self: None)
    monkeypatch.setattr(Lease, "end", lambda self, state="ended": self.renew(state))
    return made


@contextmanager
def on(machine: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What happens inside happens on the machine of this name."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "machine", lambda: machine)
        patch.setattr("socket.gethostname", lambda: machine)
        yield


def notes_of(kept: dict[str, Any]) -> ClaimNotes:
    return ClaimNotes(lambda: dict(kept), kept.__setitem__)


def quiet(text: str) -> None:
    """Nobody listens."""


def test_drivers_one_after_the_other_get_greater_epochs(tmp_path: Path, time: Time) -> None:
    kept: dict[str, Any] = {}
    for epoch in (1, 2, 3):
        with hold_lease("s", tmp_path, notes_of(kept)) as lease:
            assert lease.epoch == epoch
            lease.check()
            assert running_driver(claims(kept), tmp_path) == claims(kept)[-1]
        assert running_driver(claims(kept), tmp_path) is None
    assert [claim.state for claim in claims(kept)] == ["ended"] * 3


def test_a_second_driver_on_the_machine_is_told_who_drives(tmp_path: Path, time: Time) -> None:
    kept: dict[str, Any] = {}
    with hold_lease("s", tmp_path, notes_of(kept)) as lease:
        message = f"s: already driven by process {os.getpid()} on .*; stop it first"
        with pytest.raises(InputError, match=message), hold_lease("s", tmp_path, notes_of(kept)):
            pytest.fail("two drivers at once")
        lease.check()
    assert list(kept) == ["lease:1"]


def test_the_lease_of_a_dead_process_is_taken_at_once(tmp_path: Path, time: Time) -> None:
    kept = {"lease:4": asdict(Claim(4, "here:1:x", module.machine(), 30.0, time.now, 0.0))}
    with hold_lease("s", tmp_path, notes_of(kept)) as lease:
        assert lease.epoch == 5
    assert time.now < 1000 + 2


def test_a_driver_elsewhere_is_watched_and_refused_when_it_renews(
    tmp_path: Path, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, Any] = {}
    with on("far", monkeypatch), hold_lease("s", tmp_path / "far", notes_of(kept)) as lease:
        time.meanwhile = lambda: lease.renew() if time.now > 1010 else None
        refused = pytest.raises(InputError, match=r"on far; stop it first")
        with on("near", monkeypatch), refused, hold_lease("s", tmp_path / "near", notes_of(kept), quiet):
            pytest.fail("two drivers at once")
        lease.check()
    assert list(kept) == ["lease:1"]


def test_a_driver_that_overslept_its_lease_writes_nothing_more(
    tmp_path: Path, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, Any] = {}
    with on("far", monkeypatch), hold_lease("s", tmp_path / "far", notes_of(kept)) as lease:
        with on("near", monkeypatch):
            heir = hold_lease("s", tmp_path / "near", notes_of(kept), quiet)
            assert heir.__enter__().epoch == 2
        assert time.now >= 1030
        before = dict(kept)
        with pytest.raises(LeaseLostError, match=r"lost the lease to process \d+ on near"):
            lease.check()
    assert kept == before


def test_what_a_driver_was_about_to_write_when_it_was_superseded_is_refused(tmp_path: Path, time: Time) -> None:
    def claimed(study: SweepStudy) -> None:
        records = study.lease_records
        study.drive(Lease(records, module._claim("s", records, last_claim(records.read()))))

    (tmp_path / "s").mkdir()
    first = SweepStudy.create(tmp_path / "s", made_up.sweep())
    claimed(first)
    second = SweepStudy.open(tmp_path / "s")
    assert second is not None
    with pytest.raises(LeaseLostError), first._storage.transaction():  # noqa: PT012
        first._study.set_user_attr("late", 1)  # the lease is held at this moment, and nothing is written yet
        time.sleep(module._DEFAULT_EXPIRY + 1)
        claimed(second)
    second._study.set_user_attr("next", 2)
    with pytest.raises(LeaseLostError):
        first._study.set_user_attr("later", 3)
    assert {"late", "next", "later"} & set(second._study.user_attrs) == {"next"}


def test_an_overdue_lease_that_nobody_took_goes_on(tmp_path: Path, time: Time) -> None:
    kept: dict[str, Any] = {}
    with hold_lease("s", tmp_path, notes_of(kept)) as lease:
        time.now += 1000
        lease.check()
        assert claims(kept)[-1].renewed == time.now


def test_within_its_time_a_check_reads_nothing(tmp_path: Path, time: Time) -> None:
    kept: dict[str, Any] = {}
    reads: list[int] = []

    def read() -> dict[str, Any]:
        reads.append(1)
        return dict(kept)

    with hold_lease("s", tmp_path, ClaimNotes(read, kept.__setitem__)) as lease:
        before = len(reads)
        lease.check()
        assert len(reads) == before
        time.now += 31
        lease.check()
        assert len(reads) > before


def test_a_claim_withdraws_where_the_holder_wakes_in_the_last_moment(
    tmp_path: Path, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, Any] = {}
    with on("far", monkeypatch), hold_lease("s", tmp_path / "far", notes_of(kept)) as lease:

        def wake() -> None:
            # The holder has looked for a claim already, and found none; now it writes.
            if "lease:2" in kept and kept["lease:1"]["renewed"] < time.now:
                kept["lease:1"]["renewed"] = time.now

        time.meanwhile = wake
        refused = pytest.raises(InputError, match="on far")
        with on("near", monkeypatch), refused, hold_lease("s", tmp_path / "near", notes_of(kept), quiet):
            pytest.fail("two drivers at once")
        assert kept["lease:2"]["state"] == "withdrawn"
        time.meanwhile = lambda: None
        lease.renew()
        lease.check()
    with hold_lease("s", tmp_path, notes_of(kept)) as heir:
        assert heir.epoch == 3


@pytest.mark.parametrize("seed", range(6))
def test_of_claims_at_the_same_time_at_most_one_holds(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(module, "SETTLE", 0.05)
    kept: dict[str, Any] = {}
    random = Random(seed)

    def claim(index: int, delays: list[float]) -> bool:
        def write(key: str, value: Any) -> None:
            sleep(delays.pop())
            kept[key] = value

        def read() -> dict[str, Any]:
            found = dict(kept)
            sleep(delays.pop())
            return found

        return ClaimNotes(read, write).claim(Claim(1, f"h:{index}:x", "m", 30.0, 0.0, 0.0))

    with ThreadPoolExecutor(4) as pool:
        delays = [[random.choice([0, 0.01, 0.04, 0.08]) for _ in range(9)] for _ in range(4)]
        won = list(pool.map(claim, range(4), delays))
    assert sum(won) <= 1


def test_claims_that_arrive_late_do_not_hold(time: Time) -> None:
    kept: dict[str, Any] = {}

    def slowly(key: str, value: Any) -> None:
        time.now += module.SETTLE
        kept[key] = value

    assert not ClaimNotes(lambda: dict(kept), slowly).claim(Claim(1, "h:1:x", "m", 30.0, 0.0, 0.0))
    assert last_claim(claims(kept)) is None


def test_the_time_at_work_is_the_sum_over_drivers() -> None:
    kept = {f"lease:{n}": asdict(Claim(n, "h:1:x", "m", 30.0, 0.0, 0.0, seconds=10.0 * n)) for n in (1, 2, 3)}
    assert driver_seconds(claims(kept)) == 60.0


@pytest.mark.parametrize("written", ["soon", "0.1", "-3", "nan"])
def test_an_expiry_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.setenv(module.EXPIRY, written)
    with pytest.raises(InputError, match=f"{module.EXPIRY}={written}"), hold_lease("s", tmp_path, notes_of({})):
        pytest.fail("drives")


def test_a_holder_renews_in_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.EXPIRY, "1")
    kept: dict[str, Any] = {}
    renewed = threading.Event()

    def write(key: str, value: Any) -> None:
        if key in kept:
            renewed.set()
        kept[key] = value

    with hold_lease("s", tmp_path, ClaimNotes(lambda: dict(kept), write)):
        assert renewed.wait(240)
    assert claims(kept)[-1].state == "ended"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_driver_whose_work_is_not_done_says_so_at_its_end(tmp_path: Path, error: type[BaseException]) -> None:
    kept: dict[str, Any] = {}
    with pytest.raises(error), hold_lease("s", tmp_path, notes_of(kept)):
        raise error
    assert [claim.state for claim in claims(kept)] == ["interrupted"]
    with hold_lease("s", tmp_path, notes_of(kept)) as lease:
        assert lease.epoch == 2


def test_a_lease_that_was_given_back_early_is_watched_and_not_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, Any] = {}
    with hold_lease("s", tmp_path / "far", notes_of(kept)) as lease:
        lease.end("interrupted")
        lease.check()
        assert running_driver(claims(kept), tmp_path / "far") is None
        before = dict(kept)
        with on("near", monkeypatch), hold_lease("s", tmp_path / "near", notes_of(kept), quiet) as heir:
            with pytest.raises(LeaseLostError, match=r"lost the lease to process \d+ on near"):
                lease.check()
            heir.check()
    assert {key: note for key, note in kept.items() if key in before} == before
    assert [claim.state for claim in claims(kept)] == ["interrupted", "ended"]


def test_a_driver_writes_nothing_to_its_study_after_it_gave_the_lease_back(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    study = SweepStudy.create(tmp_path / "s", made_up.sweep())
    with hold_lease("s", tmp_path / "s", study.lease_records) as lease:
        study.drive(lease)
        study._study.set_user_attr("early", 1)
        lease.end("interrupted")
        lease.renew()  # as a thread does that had to wait for the end
        assert not lease.held
        with pytest.raises(LeaseLostError, match="given the lease back"):
            study._study.set_user_attr("late", 2)
        with pytest.raises(LeaseLostError, match="given the lease back"):
            study.next_ticket()
        with pytest.raises(LeaseLostError, match="given the lease back"):
            study.report(0, [])
        study.limits.check()
    found = SweepStudy.open(tmp_path / "s")
    assert found is not None
    assert {"early", "late"} & set(found._study.user_attrs) == {"early"}
    assert found.records() == []


def test_a_driver_that_was_killed_is_not_at_work(tmp_path: Path) -> None:
    code = (
        "import json, pathlib, sys\n"
        "from dataclasses import asdict\n"
        "from orchestrator.study.lease import *\n"
        "kept = {}\n"
        "with hold_lease('s', pathlib.Path(sys.argv[1]), ClaimNotes(lambda: kept, kept.__setitem__)):\n"
        "    print(json.dumps(kept), flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as driver:
        assert driver.stdout is not None
        kept = json.loads(driver.stdout.readline())
        found = running_driver(claims(kept), tmp_path)
        assert found is not None
        assert f"process {driver.pid} on" in found.process
        driver.kill()
    assert running_driver(claims(kept), tmp_path) is None
