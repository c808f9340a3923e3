"""Ray nodes of a test: real raylets, all on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from orchestrator.cluster.nodes import bind_to_loopback

bind_to_loopback()
from ray.cluster_utils import Cluster  # noqa: E402


class Nodes:
    """A head without room for trials, and nodes with `cpus` each; `address` is the head's HOST:PORT."""

    def __init__(self, cpus: int) -> None:
        self._cpus = cpus
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self._nodes: dict[str, Any] = {}
        self.address: str = self._cluster.address

    def add(self) -> str:
        """Another node; the beginning of its id, which names it in a trial's `nodes`."""
        node = self._cluster.add_node(num_cpus=self._cpus, wait=True)
        name = str(node.node_id)[:6]
        self._nodes[name] = node
        return name

    def remove(self, name: str) -> None:
        """Takes a node away as a machine that loses its power."""
        self._cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def drain(self, name: str, seconds: float) -> None:
        """Announces, as a spot market does, that a node is taken away in so many seconds."""
        import time

        from ray._raylet import GcsClient
        from ray.core.generated import autoscaler_pb2

        reason = autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
        client = GcsClient(address=self.address)
        deadline = int(1000 * (time.time() + seconds))
        accepted, why = client.drain_node(self._nodes[name].node_id, reason, "spot", deadline)
        assert accepted, why

    def shutdown(self) -> None:
        """Ends all of them."""
        self._cluster.shutdown()


@contextmanager
def nodes(count: int, cpus: int) -> Iterator[Nodes]:
    """A head and `count` nodes for as long as the block lasts."""
    with TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        before = os.environ.get("RAY_TMPDIR")
        os.environ["RAY_TMPDIR"] = folder  # the names of its sockets allow no long path
        try:
            found = Nodes(cpus)
            try:
                for _ in range(count):
                    found.add()
                yield found
            finally:
                found.shutdown()
        finally:
            if before is None:
                del os.environ["RAY_TMPDIR"]
            else:
                os.environ["RAY_TMPDIR"] = before
