"""A few faults at one random moment each; `make faults` injects every kind, at as many moments as there is time for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.harness import Undisturbed, broken_laws, standing, undisturbed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.faults,
    pytest.mark.usefixtures("mnist_mini_lenet"),
]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path, mnist_mini_lenet: object) -> Undisturbed:
    """What the sweep comes to when nothing happens."""
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), cache_dir)


@pytest.mark.parametrize("kind", ["kill-cluster-node", "s3-503", "stopped-driver"])
def test_all_laws_hold_after_a_fault(kind: str, tmp_path: Path, quiet: Undisturbed) -> None:
    with standing(kind, tmp_path / "servers") as servers:
        assert broken_laws(kind, 1, tmp_path, servers, quiet) == []
