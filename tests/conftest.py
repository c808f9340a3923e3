"""Fixtures that several tests share."""

from __future__ import annotations

import os

# Two runs of tests side by side would have two threads for each core, and torch's threads wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"

import shutil
import signal
import uuid
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

from orchestrator.cluster.nodes import bind_to_loopback
from orchestrator.store import Objects
from orchestrator.store.folder import FolderObjects
from orchestrator.store.s3 import S3Objects
from tests.support.postgres import Postgres
from tests.support.servers import S3Server
from tests.support.shared import Shared, close_shared, open_shared, shared_of, tell_worker
from trainers.data.catalogue import load
from trainers.data.images import ImageData
from trainers.data.spec import DatasetSpec
from trainers.evaluation.extractors import Extractor, build_extractor
from trainers.evaluation.spec import ExtractorSpec

#: Folders and files whose tests run sweeps or start clusters.
STARTING_RAY = (
    "cluster/",
    "driver/",
    "faults/",
    "cli/test_readme.py",
    "deploy/test_packaging.py",
    "formats/test_earlier_release.py",
    "study/test_named_classes.py",
    "tracking/test_tracking_outages.py",
)
#: Files in these folders whose tests start none.
STARTING_NONE = (
    "cluster/test_private.py",
    "cluster/test_signals.py",
    "driver/test_garbage.py",
    "driver/test_ownership.py",
    "driver/test_progress.py",
    "driver/test_warm.py",
)
#: Files whose tests take longest, but for those that start Ray.
LONGEST = (
    "study/test_optuna_conformance.py",
    "trainers/test_worked_example.py",
    "driver/test_ownership.py",
    "cli/test_broken_output.py",
    "store/test_store_conformance.py",
    "study/test_samplers.py",
    "store/test_store_s3.py",
)

# Who runs tests in the background may ignore these signals, and so would the commands that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
torch.set_num_threads(1)
hypothesis.settings.register_profile(
    "tests",
    deadline=None,  # a busy machine is no fault of an example
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("tests")
bind_to_loopback()  # before whichever test imports Ray first


def pytest_configure(config: pytest.Config) -> None:
    open_shared(config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Is called by pytest-xdist for each worker before it starts."""
    tell_worker(node.config, node.workerinput)


def pytest_unconfigure(config: pytest.Config) -> None:
    close_shared(config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Gives the tests of a group to one process of pytest-xdist."""
    from xdist.scheduler import LoadFileScheduling

    class ByGroup(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return ByGroup(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The groups that take longest begin first."""
    order = {group: place for place, group in enumerate(("ray", *LONGEST))}
    items.sort(key=lambda item: order.get(group_of(item.nodeid), len(order)))


def group_of(nodeid: str) -> str:
    """The file of a test, whose fixtures its tests share; "ray" for all that start Ray.

    A sweep alone has more processes than most machines have cores.
    """
    name = nodeid.partition("::")[0].removeprefix("tests/")
    return "ray" if name.startswith(STARTING_RAY) and name not in STARTING_NONE else name


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest) -> Shared:
    """What this run's processes have in common."""
    return shared_of(request.config)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with this process's trained classifiers and references."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def mnist_mini() -> tuple[ImageData, ImageData]:
    """Training and test split of the built-in digits."""
    spec = DatasetSpec(name="mnist-mini")
    return load(spec, "train"), load(spec, "test")


@pytest.fixture(scope="session")
def mnist_mini_lenet(shared: Shared, cache_dir: Path, mnist_mini: tuple[ImageData, ImageData]) -> Extractor:
    """The classifier of the built-in digits, trained once in a run."""
    spec = ExtractorSpec(name="lenet")
    with shared.alone("lenet") as trained:
        build_extractor(spec, *mnist_mini, trained, "cpu")
        shutil.copytree(trained, cache_dir, dirs_exist_ok=True)
    return build_extractor(spec, *mnist_mini, cache_dir, "cpu")


@pytest.fixture(params=["folder", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """An empty store, in a folder and in a bucket of the real S3 server."""
    if request.param == "folder":
        return FolderObjects(tmp_path / "store")
    server: S3Server = request.getfixturevalue("s3")
    return S3Objects(server.bucket(f"b-{uuid.uuid4().hex}"), "prefix", server.endpoint)


@pytest.fixture(scope="session")
def s3_server(shared: Shared) -> S3Server:
    """A running S3 server; no test stops it."""
    with shared.alone("s3") as folder:
        server = S3Server(folder)
        if not (folder / "running").exists():
            shared.stop_at_end(server.start())
            (folder / "running").touch()
    return server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server, with credentials for it in the environment and nowhere else."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    return s3_server


@pytest.fixture(scope="session")
def postgres(shared: Shared) -> Postgres:
    """A running PostgreSQL server."""
    with shared.alone("postgres") as folder:
        first = not (folder / "PG_VERSION").exists()
        server = Postgres(folder)
        if first:
            shared.stop_at_end(server.pid, signal.SIGINT)  # it tidies up after itself
    return server
