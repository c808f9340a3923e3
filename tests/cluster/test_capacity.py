"""Laws of the capacity for trials of nodes that come and go, without a cluster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cluster import nodes as cluster
from orchestrator.cluster.nodes import Capacity, Node, bundles, capacity_for
from search_spaces.settings import Resources
from trainers.errors import InputError

NODES = st.lists(st.builds(Node, st.integers(0, 64), st.integers(0, 8)), max_size=6)


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(cluster, "time", clock)
    return clock


@given(NODES, st.integers(1, 4), st.integers(1, 8), st.sampled_from([0, 0.25, 0.5, 1, 2]))
def test_no_more_trials_than_every_worker_has_a_place(have: list[Node], workers: int, cpus: int, gpus: float) -> None:
    want = Resources(workers_per_trial=1 if gpus % 1 else workers, cpus_per_worker=cpus, gpus_per_worker=gpus)
    trials = cluster._fitting(want, have)
    places = trials * want.workers_per_trial
    assert places * cpus <= sum(node.cpus for node in have)
    assert places * gpus <= sum(node.gpus for node in have)
    for node in have:  # whatever one node holds by itself fits
        on_gpus = node.gpus * int(1 / gpus) if 0 < gpus < 1 else node.gpus // gpus if gpus else node.cpus
        alone = min(node.cpus // cpus, on_gpus)
        assert trials >= alone // want.workers_per_trial


def test_a_worker_never_has_parts_of_two_gpus() -> None:
    assert cluster._fitting(Resources(gpus_per_worker=0.4), [Node(64, 3)]) == 6
    assert cluster._fitting(Resources(gpus_per_worker=1, trials_per_gpu=3), [Node(64, 2)]) == 6


def test_a_trial_reserves_a_bundle_for_each_worker() -> None:
    assert bundles(Resources(workers_per_trial=2, cpus_per_worker=3)) == [{"CPU": 3}, {"CPU": 3}]
    assert bundles(Resources(gpus_per_worker=1, trials_per_gpu=4)) == [{"CPU": 1, "GPU": 0.25}]


def test_nodes_that_join_make_room_and_those_that_leave_take_it(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    have = [Node(2, 0)]
    monkeypatch.setattr(cluster, "nodes", lambda: have)
    capacity = Capacity(Resources(workers_per_trial=2))
    assert capacity.trials(idle=False) == 1
    have.append(Node(4, 0))
    clock.sleep(5)
    assert capacity.trials(idle=False) == 3
    have.pop(0)
    clock.sleep(5)
    assert capacity.trials(idle=False) == 2
    assert Capacity(Resources(concurrent_trials=1)).trials(idle=False) == 1


def test_a_cluster_without_a_node_is_waited_for_and_then_told(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    have = [Node(2, 0)]
    monkeypatch.setattr(cluster, "nodes", lambda: have)
    capacity = Capacity(Resources())
    assert capacity.trials(idle=True) == 2
    have.clear()
    clock.sleep(5)
    assert capacity.trials(idle=False) == 0
    clock.sleep(1000)
    assert capacity.trials(idle=True) == 0, "a node that was lost may be replaced"
    have.append(Node(1, 0))
    clock.sleep(50)
    assert capacity.trials(idle=True) == 1
    have.clear()
    clock.sleep(5)
    assert capacity.trials(idle=True) == 0
    clock.sleep(61)
    with pytest.raises(InputError, match="a trial needs 1 CPU, but 0 nodes have nothing in all"):
        capacity.trials(idle=True)


def test_an_autoscaler_is_asked_once_and_waited_for(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    asked: list[list[dict[str, float]]] = []
    monkeypatch.setattr(cluster, "_request_resources", asked.append)
    monkeypatch.setattr(cluster, "nodes", lambda: [Node(8, 1)] if clock.now > 30 else [])
    want = Resources(gpus_per_worker=1, wait=60)
    assert capacity_for(want).trials(idle=True) == 1
    assert asked == [bundles(want), []], "what it brought may be taken away again when nobody uses it"


def test_an_autoscaler_that_brings_nothing_is_told_after_its_time(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(cluster, "_request_resources", lambda wanted: None)
    monkeypatch.setattr(cluster, "nodes", lambda: [Node(8, 0)])
    with pytest.raises(InputError, match=r"1 CPU and 4 GPU, but there is 8 CPU, 0 GPU in all, and nothing came within"):
        capacity_for(Resources(gpus_per_worker=4, wait=60))
    assert clock.now >= 60
    clock.now = 0
    with pytest.raises(InputError, match=r"but there is 8 CPU, 0 GPU in all$"):
        capacity_for(Resources(gpus_per_worker=4))
    assert clock.now == 0, "without a time to wait it is told at once"
