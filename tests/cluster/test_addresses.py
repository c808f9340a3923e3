"""Clusters that cannot be used are refused with a sentence before anything starts."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cluster import nodes as cluster
from orchestrator.cluster.nodes import check_address, check_client, check_fits, check_shared
from tests.support import made_up, sweeps
from trainers.errors import InputError


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """HOST:PORT of somebody who takes connections and is no cluster of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_an_address_where_nobody_answers_is_refused() -> None:
    with pytest.raises(InputError, match="nothing answers there"):
        check_address(f"127.0.0.1:{free_port()}")


def test_a_driver_must_be_on_a_node_of_the_cluster(elsewhere: str) -> None:
    with pytest.raises(InputError, match=r"this machine is not a node of that cluster .*gansweep submit FILE"):
        check_address(elsewhere)


def test_the_loopback_interface_leads_to_the_cluster_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, elsewhere: str
) -> None:
    port = elsewhere.rpartition(":")[2]
    monkeypatch.setattr(cluster, "_clusters_here", lambda: {f"10.0.0.7:{port}"})
    check_address(elsewhere)


@pytest.mark.parametrize("address", ["", "localhost", "localhost:", "localhost:0", "localhost:99999", "http://a:8265"])
def test_an_address_of_another_form_is_told_what_is_allowed(address: str) -> None:
    with pytest.raises(InputError, match=r"allowed are auto, HOST:PORT|nothing answers there"):
        check_address(address)


def test_auto_needs_a_cluster_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster, "_clusters_here", set)
    with pytest.raises(InputError, match="no Ray cluster runs on this machine"):
        check_address("auto")


def test_auto_uses_ray_s_own_variable(monkeypatch: pytest.MonkeyPatch, elsewhere: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", elsewhere)
    with pytest.raises(InputError, match=f"{elsewhere}: this machine is not a node"):
        check_address("auto")


def test_a_ray_client_is_told_its_extra_or_that_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="nothing answers there"):
        check_client(f"ray://127.0.0.1:{free_port()}")
    with pytest.raises(InputError, match="allowed are auto, HOST:PORT of a cluster's head, or ray://HOST:PORT"):
        check_client("ray://head")
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'needs Ray\'s client: pip install "ray\[client\]"'):
        check_client("ray://head:10001")


@pytest.mark.parametrize(
    ("overrides", "refused"),
    [
        ([], "study.storage: a journal file is for one machine"),
        (["study.storage=sqlite:////data/study.db"], "study.storage: SQLite is for one machine"),
        (["study.storage=postgresql://me@db/studies"], "store.path: a folder is for one machine"),
        (["study.shared=true"], "store.path: a folder is for one machine"),
        (["study.shared=true", "store.shared=true"], None),
        (["study.storage=postgresql://me@db/studies", "store.path=s3://bucket/prefix"], None),
    ],
)
def test_what_only_one_machine_sees_is_refused_unless_it_is_declared_shared(
    overrides: list[str], refused: str | None
) -> None:
    sweep = made_up.sweep(*overrides)
    if refused is None:
        check_shared(sweep)
    else:
        with pytest.raises(InputError, match=refused):
            check_shared(sweep)


@pytest.mark.parametrize(
    ("overrides", "needs"),
    [
        (["resources.gpus_per_worker=4"], r"a trial needs 1 CPU and 4 GPU, but there is \d+ CPU, 0 GPU in all"),
        (["resources.workers_per_trial=50"], r"a trial needs 50 workers of 1 CPU each, but there is \d+ CPU"),
        (["resources.cpus_per_worker=4096"], r"a trial needs 4096 CPU, but there is"),
    ],
)
def test_a_trial_that_this_machine_can_never_run_is_refused_before_ray_starts(overrides: list[str], needs: str) -> None:
    with pytest.raises(InputError, match=needs):
        check_fits(made_up.sweep(*overrides))


def test_four_gpus_on_a_machine_without_are_refused_by_the_command_before_ray_starts(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(sweeps.TINY)
    command, files = ["launch", "tiny.yaml", "--set", "resources.gpus_per_worker=4"], tmp_path / "ray"
    files.mkdir()
    done = sweeps.gansweep(*command, cwd=tmp_path, settings={"RAY_TMPDIR": str(files)})
    assert done.returncode == 2
    assert "resources: a trial needs 1 CPU and 4 GPU, but there is" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs" / "tiny").exists()
    assert list(files.iterdir()) == []
