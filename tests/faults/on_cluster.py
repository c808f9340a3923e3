"""The command line over a Ray cluster of two nodes with room for one trial each, and a head without any."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.cli import __main__ as cli  # before Ray, whose settings come with it  # isort: skip
from orchestrator.cluster.nodes import bind_to_loopback
from orchestrator.driver import launch as sweep

bind_to_loopback()
import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

NODES = 2


@contextmanager
def cluster() -> Iterator[None]:
    """In place of `cluster.cluster`, where one node can die and the sweep go on."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(NODES):
            nodes.add_node(num_cpus=1)
        ray.init(address=nodes.address, log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()
    finally:
        nodes.shutdown()


if __name__ == "__main__":
    sweep.cluster = cluster
    cli.main()
