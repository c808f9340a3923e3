"""Trials of several workers in one process each: fifty early stops leave nothing behind, and a worker that dies."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import ray
from ray.util import placement_group_table

from orchestrator.cluster import tune
from orchestrator.cluster.nodes import Capacity, capacity_for, cluster
from orchestrator.decisions.failures import Failure
from orchestrator.study.study import SweepStudy
from search_spaces.load import parse_sweep
from search_spaces.sweep import Sweep
from tests.support import sweeps

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mnist_mini_lenet")]

WARM, MANY = 3, 50


class Quiet:
    """Hears what happens, and says nothing."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.on_change: Callable[[int], None] = lambda number: None

    def changed(self, number: int) -> None:
        self.on_change(number)

    def failed(self, number: int, failure: Failure) -> None:
        self.failures.append(failure)

    def scored(self, number: int) -> None:
        raise AssertionError("there are no finals here")


@pytest.fixture(scope="module", autouse=True)
def own_cluster() -> Iterator[None]:
    with cluster():
        yield


def two_workers(trials: int, pruner: str) -> Sweep:
    cpus = (os.cpu_count() or 2) / 2
    resources = f"resources={{workers_per_trial: 2, cpus_per_worker: {cpus}}}"
    return parse_sweep(
        sweeps.TINY, "tiny.yaml", [resources, f"pruner={pruner}", f"budget.trials={trials}", "score.samples=20"]
    )


def held() -> dict[str, Counter[str] | set[int] | float]:
    """What trials hold of this machine: placement groups, processes, ports, cores; and the driver's memory in MiB."""
    gc.collect()
    me = psutil.Process()
    below = [each for each in me.children(recursive=True) if each.is_running()]
    groups = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
    ports = {each.laddr.port for p in [me, *below] for each in _connections(p) if each.status == psutil.CONN_LISTEN}
    return {
        "placement groups": Counter(group["state"] for group in groups),
        "actors": Counter(map(_name, trainers())),
        "ports": ports,
        "free cores": ray.available_resources().get("CPU", 0.0),
        "memory": me.memory_info().rss / 2**20,
    }


def trainers() -> list[psutil.Process]:
    """The processes in which trials are trained."""
    found = [(each, _name(each)) for each in psutil.Process().children(recursive=True)]
    return [each for each, name in found if name.startswith("ray::") and ("Worker" in name or "Trainable" in name)]


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _connections(process: psutil.Process) -> list[object]:
    try:
        return list(process.net_connections("inet"))
    except psutil.Error:
        return []


def run(study: SweepStudy, cache: Path, listener: Quiet) -> Capacity:
    capacity = capacity_for(study.sweep.resources)
    tune.run_trials(study, cache, capacity, listener)
    return capacity


def wait_until_nothing_is_held() -> None:
    """Ray ends processes, and gives cores back, some time after a trial has ended."""
    end = time.monotonic() + 120
    while trainers() or ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < end, held()
        time.sleep(0.1)


def resident() -> float:
    """MiB of all processes in which trials are trained."""
    return sum(each.memory_info().rss for each in trainers()) / 2**20


def test_fifty_early_stops_of_two_workers_leave_nothing_behind(tmp_path: Path, cache_dir: Path) -> None:
    study = SweepStudy.create(tmp_path, two_workers(WARM, "{name: threshold, upper: 1e-9}"))
    run(study, cache_dir, Quiet())
    wait_until_nothing_is_held()
    before = held()

    listener, memory = Quiet(), list[float]()
    listener.on_change = lambda number: memory.append(resident())
    wanted = study.sweep.budget.model_copy(update={"trials": WARM + MANY})
    study.limits.change_budget(wanted)
    run(study, cache_dir, listener)
    wait_until_nothing_is_held()
    after = held()

    records = study.records()
    assert Counter(record.state for record in records) == {"pruned": WARM + MANY}
    assert {len(record.rungs) for record in records} == {1}, "stopped at the first rung"
    assert all(len(set(record.nodes)) == 1 and len(record.nodes) == 2 for record in records)
    assert listener.failures == []
    assert after["placement groups"] == before["placement groups"] == Counter()
    assert after["actors"] == before["actors"] == Counter()
    assert after["free cores"] == before["free cores"] == ray.cluster_resources()["CPU"]
    assert len(after["ports"]) <= len(before["ports"]), (before, after)
    assert after["memory"] - before["memory"] < 50, (before, after)
    early, late = memory[10:20], memory[-10:]
    assert sorted(late)[5] - sorted(early)[5] < 50, "trials' processes grow from trial to trial"


def test_a_worker_that_is_killed_costs_its_trial_no_point(tmp_path: Path, cache_dir: Path) -> None:
    found = []
    for name in ("quiet", "killed"):
        (tmp_path / name).mkdir()
        study, listener = SweepStudy.create(tmp_path / name, two_workers(1, "none")), Quiet()
        killed: list[int] = []

        def kill(number: int, study: SweepStudy = study, killed: list[int] = killed) -> None:
            if len(study.records()[number].rungs) == 2 and not killed:
                (other,) = [p for p in psutil.Process().children(recursive=True) if "ray::Worker" in _name(p)]
                killed.append(other.pid)
                os.kill(other.pid, signal.SIGKILL)

        listener.on_change = kill if name == "killed" else listener.on_change
        run(study, cache_dir, listener)
        (record,) = study.records()
        assert record.state == "complete"
        assert [failure.kind for failure in listener.failures] == ["killed-worker"] * len(killed)
        assert bool(killed) is (name == "killed")
        found.append([[(m, s.value) for m, s in rung.scores.items()] for rung in record.rungs])
    assert found[0] == found[1]
