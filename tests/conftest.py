"""Fixtures that several tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from orchestrator.cluster.nodes import bind_to_loopback
from tests.support.postgres import Postgres
from tests.support.servers import S3Server
from trainers.data.catalogue import load
from trainers.data.images import ImageData
from trainers.data.spec import DatasetSpec
from trainers.evaluation.extractors import Extractor, build_extractor
from trainers.evaluation.spec import ExtractorSpec

torch.set_num_threads(1)
bind_to_loopback()  # before whichever test imports Ray first


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where trained classifiers and references are kept during the session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def mnist_mini() -> tuple[ImageData, ImageData]:
    """Training and test split of the built-in digits."""
    spec = DatasetSpec(name="mnist-mini")
    return load(spec, "train"), load(spec, "test")


@pytest.fixture(scope="session")
def mnist_mini_lenet(cache_dir: Path, mnist_mini: tuple[ImageData, ImageData]) -> Extractor:
    """The classifier of the built-in digits, trained once per session."""
    return build_extractor(ExtractorSpec(name="lenet"), *mnist_mini, cache_dir, "cpu")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running S3 server; whoever stops it starts it again."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server, with credentials for it in the environment and nowhere else."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    return s3_server


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A running PostgreSQL server."""
    server = Postgres(tmp_path_factory.mktemp("postgres"))
    yield server
    server.stop()
