"""The Ray cluster that a sweep runs on: one that this machine starts for the sweep, or an existing one at an address.

Only functions import ray, since `bind_to_loopback` must be called before its import.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from orchestrator.cluster import signals
from orchestrator.cluster.private import place, private_folder, use_private_token
from search_spaces.addresses import S3, holds_secret
from search_spaces.settings import Resources
from search_spaces.sweep import Sweep
from trainers.errors import InputError
from trainers.run import pick_device

#: If it is 0, Ray uses only the loopback interface; despite its name it works on every system.
_REACHABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
#: Seconds in which a server must accept a connection.
_CONNECT = 3.0
CLIENT = "ray://"
AUTO = "auto"
#: Seconds between two counts of the cluster's nodes.
_RECOUNT = 2.0
#: A sweep ends if for so many seconds no trial fits on any node: until then a lost node may be replaced.
_GRACE = 60.0
#: How many digits of a node's id are shown, since several nodes may have one address.
NODE_DIGITS = 6


@dataclass(frozen=True)
class Node:
    """The resources of a node: all of them, or those that are free."""

    cpus: float
    gpus: float


def check_address(address: str) -> None:
    """Checks that a driver on this machine can use the cluster at `address`: auto, or HOST:PORT of its head.

    Raises InputError, within 10 s, if nothing answers there, or if this machine is not one of the cluster's nodes.
    """
    refuse_secrets(address)
    here = _clusters_here()
    if address == AUTO:
        wanted = os.environ.get("RAY_ADDRESS", "")
        if wanted:
            check_address(wanted)
        elif not here:
            raise InputError("--address auto: no Ray cluster runs on this machine; `ray start --head` starts one")
        return
    host, port = _host_and_port(address)
    ip = _answering(address, host, port)
    # A loopback address means a cluster of this machine, whatever address that cluster itself uses.
    mine = {each for each in here if each in (f"{host}:{port}", f"{ip}:{port}")}
    mine |= {each for each in here if ip.startswith("127.") and each.endswith(f":{port}")}
    if Path("/proc").exists() and not mine:
        found = ", ".join(sorted(here)) or "none"
        raise InputError(
            f"--address {address}: this machine is not a node of that cluster (clusters here: {found}); "
            f"run this on one of its nodes, or `gansweep submit FILE --address http://{host}:8265` from anywhere"
        )


def refuse_secrets(address: str) -> None:
    """Raises InputError, which does not repeat `address`, if that may hold a user, a password or a token."""
    if holds_secret(address):
        text = "an address has no user, password or token: set RAY_AUTH_TOKEN, or write ~/.ray/auth_token"
        raise InputError(f"--address: {text}")


def check_client(address: str) -> None:
    """Raises InputError, within 10 s, if Ray's client is not installed or nothing answers at ray://HOST:PORT."""
    refuse_secrets(address)
    if find_spec("grpc") is None:
        raise InputError(f'--address {address}: needs Ray\'s client: pip install "ray[client]"')
    _answering(address, *_host_and_port(address.removeprefix(CLIENT)))


def check_shared(sweep: Sweep) -> None:
    """Raises InputError if each machine of a cluster would have a study or a store of its own."""
    storage, store = sweep.study.storage, sweep.store.path
    if (storage is None or storage.startswith("sqlite")) and not sweep.study.shared:
        kind = "a journal file" if storage is None else "SQLite"
        raise InputError(
            f"study.storage: {kind} is for one machine; name a database that the cluster reaches, "
            "or say study.shared: true if all its machines see this folder"
        )
    if not (store or "").startswith(S3) and not sweep.store.shared:
        raise InputError(
            "store.path: a folder is for one machine; name s3://BUCKET/PREFIX, "
            "or say store.shared: true if all machines of the cluster see this folder"
        )


def bind_to_loopback() -> None:
    """Makes Ray use only the loopback interface, if it is imported after this."""
    os.environ.setdefault(_REACHABLE, "0")


@contextmanager
def cluster(address: str | None = None) -> Iterator[None]:
    """Connects to the cluster at `address` for the block, or starts one on this machine alone, without dashboard."""
    if address is None:
        bind_to_loopback()
        use_private_token()
    with private_folder() if address is None else nullcontext():
        import ray

        try:
            ray.init(
                address=address or "local",
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
            yield
        finally:
            # After a signal the guard of the folder ends our own Ray. It may be dead already, if it got the signal too,
            # and `shutdown` would wait for it.
            if address is not None or not signals.received():
                _shut_down()


def _shut_down() -> None:
    """Disconnects from Ray, and ends the servers that this process has started.

    They are killed: they do not listen to SIGTERM, which Ray would send them and wait a second for each.
    """
    import ray
    from ray._private import worker

    if (node := worker._global_node) is not None:
        kill = node.kill_all_processes
        node.kill_all_processes = lambda **_: kill(check_alive=False)
    ray.shutdown()


def check_fits(sweep: Sweep) -> str | None:
    """Returns what is unusual about this machine, if anything; starts nothing.

    Raises InputError if this machine alone can never run a trial of `sweep`, or has no temporary folder for Ray.
    """
    import torch

    _, notice = place()
    gpus = torch.cuda.device_count() if pick_device() == "cuda" else 0
    _refuse_impossible(sweep.resources, [Node(os.cpu_count() or 1, gpus)])
    return notice


class Capacity:
    """How many trials with the resources `want` fit on the cluster; counted again, since nodes join and leave."""

    def __init__(self, want: Resources) -> None:
        self.want = want
        self._counted, self._empty_since = -math.inf, math.inf
        self._fits = 0

    def trials(self, idle: bool) -> int:
        """The number of trials that fit at once, at most `want.concurrent_trials`; `idle` says that none is running.

        Raises InputError if the cluster is idle and no trial has fitted for `want.wait` seconds, at least for a minute.
        """
        now = time.monotonic()
        if now - self._counted >= _RECOUNT:
            self._counted, self._fits = now, _fitting(self.want, nodes())
        if self._fits or not idle:
            self._empty_since = math.inf
        elif now - min(self._empty_since, now) > max(self.want.wait, _GRACE):
            _refuse_impossible(self.want, nodes(), max(self.want.wait, _GRACE))
        else:
            self._empty_since = min(self._empty_since, now)
        return min(self._fits, self.want.concurrent_trials or self._fits)


def capacity_for(want: Resources) -> Capacity:
    """The capacity for trials with the resources `want` on the cluster that this process is connected to.

    If not even one fits, asks the autoscaler for nodes and waits up to `want.wait` seconds. Raises InputError if none
    fits then.
    """
    start, asked = time.monotonic(), False
    while not _fitting(want, nodes()) and time.monotonic() - start < want.wait:
        if not asked:
            _request_resources(bundles(want))
            asked = True
        time.sleep(1)
    if asked:  # else the autoscaler would keep the nodes for ever; running trials keep those that they use
        _request_resources([])
    _refuse_impossible(want, nodes(), want.wait)
    return Capacity(want)


def trials_at_once(sweep: Sweep) -> int:
    """How many trials of `sweep` fit on the cluster at once, as it is now. Raises InputError as `capacity_for`."""
    return capacity_for(sweep.resources).trials(idle=True)


def draining(names: Sequence[str]) -> list[str]:
    """Which of the nodes `names`, each ADDRESS/ID, are draining: Ray will take them away soon."""
    from ray._private.state import state

    leaving = [node_id[:NODE_DIGITS] for node_id in state.get_draining_nodes()]
    return [name for name in names if name.rpartition("/")[2] in leaving]


@cache
def this_node() -> str:
    """The node of this process as ADDRESS/ID, with the first digits of Ray's id."""
    import ray

    return f"{ray.util.get_node_ip_address()}/{ray.get_runtime_context().get_node_id()[:NODE_DIGITS]}"


def nodes() -> list[Node]:
    """The resources of each living node of the cluster, used ones included."""
    import ray

    alive = [each["Resources"] for each in ray.nodes() if each["Alive"]]
    return [Node(each.get("CPU", 0.0), each.get("GPU", 0.0)) for each in alive]


def free() -> Node:
    """The free resources of all nodes of the cluster together."""
    import ray

    left = ray.available_resources()
    return Node(left.get("CPU", 0.0), left.get("GPU", 0.0))


def bundles(want: Resources) -> list[dict[str, float]]:
    """The bundles that Ray reserves for one trial, one for each of its workers."""
    each = {"CPU": want.cpus_per_worker, **({"GPU": want.gpu_share} if want.gpu_share else {})}
    return [dict(each) for _ in range(want.workers_per_trial)]


def _fitting(want: Resources, have: Sequence[Node]) -> int:
    """The number of trials that fit on the nodes at once; the workers of one trial may be on several nodes."""
    return sum(_workers_on(node, want) for node in have) // want.workers_per_trial


def _workers_on(node: Node, want: Resources) -> int:
    fits = node.cpus / want.cpus_per_worker
    if want.gpu_share > 1:
        fits = min(fits, node.gpus // want.gpu_share)
    elif want.gpu_share:  # a worker uses a part of one GPU, never parts of two
        fits = min(fits, node.gpus * int(1 / want.gpu_share + 1e-9))
    return int(fits + 1e-9)


def _refuse_impossible(want: Resources, have: Sequence[Node], waited: float = 0) -> None:
    if _fitting(want, have):
        return
    worker = f"{want.cpus_per_worker:g} CPU" + (f" and {want.gpu_share:g} GPU" if want.gpu_share else "")
    each = f"{want.workers_per_trial} workers of {worker} each" if want.workers_per_trial > 1 else worker
    there = "; ".join(f"{node.cpus:g} CPU, {node.gpus:g} GPU" for node in have) or "nothing"
    in_vain = f", and nothing came within {waited:g} s" if waited else ""
    nodes_in_words = f"{len(have)} nodes have" if len(have) != 1 else "there is"
    raise InputError(f"resources: a trial needs {each}, but {nodes_in_words} {there} in all{in_vain}")


def _request_resources(wanted: list[dict[str, float]]) -> None:
    """Asks the autoscaler for nodes on which the bundles `wanted` fit; replaces the request before."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=wanted)


def _answering(address: str, host: str, port: int) -> str:
    """The IP address of `host`. Raises InputError if nothing accepts a connection at its `port`."""
    try:
        with socket.create_connection((host, port), _CONNECT):
            return socket.gethostbyname(host)
    except OSError as error:
        raise InputError(f"--address {address}: nothing answers there: {error}") from None


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(f"--address {address}: allowed are auto, HOST:PORT of a cluster's head, or ray://HOST:PORT")
    return host, int(port)


def _clusters_here() -> set[str]:
    """HOST:PORT of each cluster of which this machine is a node."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # the process has ended
            continue
        if Path(words[0]).name == "raylet":
            found |= {word.partition("=")[2] for word in words if word.startswith("--gcs-address=")}
    return found
