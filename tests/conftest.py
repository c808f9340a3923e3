"""Fixtures that several tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainers.data import DatasetSpec, ImageData, load
from trainers.evaluation.extractors import Extractor, ExtractorSpec, build_extractor

torch.set_num_threads(1)


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
