"""The Ray that a sweep starts for itself: what it refuses, and who can reach it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cluster.nodes import cluster as own_cluster
from orchestrator.cluster.nodes import trials_at_once
from tests.support import made_up
from trainers.errors import InputError

LISTEN = "0A"
LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One small cluster for the module."""
    with own_cluster():
        yield


def descendants(pid: int) -> set[int]:
    """The processes below `pid`, and itself."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def listening(pids: set[int]) -> list[str]:
    """Addresses, as the kernel writes them, on which these processes accept connections."""
    inodes = set()
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.add(os.readlink(handle).removeprefix("socket:[").removesuffix("]"))
            except FileNotFoundError:
                continue
    rows = [
        line.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        if Path(table).exists()
        for line in Path(table).read_text().splitlines()[1:]
    ]
    return [row[1].partition(":")[0] for row in rows if row[3] == LISTEN and row[9] in inodes]


def test_nobody_on_the_network_can_reach_a_sweeps_own_cluster() -> None:
    addresses = listening(descendants(os.getpid()))
    assert len(addresses) >= 4
    assert set(addresses) <= set(LOOPBACK)


def test_capacity_counts_whole_trials() -> None:
    cores = os.cpu_count() or 1
    assert trials_at_once(made_up.sweep()) == cores
    assert trials_at_once(made_up.sweep(f"resources.cpus_per_worker={cores}")) == 1
    assert trials_at_once(made_up.sweep("resources.concurrent_trials=1")) == 1


@pytest.mark.parametrize("setting", ["resources.cpus_per_worker=4096", "resources.gpus_per_worker=512"])
def test_a_trial_that_can_never_be_placed_is_refused_with_what_there_is(setting: str) -> None:
    words = r"resources: a trial needs (4096 CPU|1 CPU and 512 GPU), but there is \d+ CPU, 0 GPU in all"
    with pytest.raises(InputError, match=words):
        trials_at_once(made_up.sweep(setting))
