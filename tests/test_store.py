"""Laws of the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.store import FolderStore, StaleAttemptError, store_of
from tests import made_up


def test_a_later_attempt_fences_off_an_earlier_one(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.claim(3, 1)
    store.check(3, 1)
    store.claim(3, 2)
    store.check(3, 2)
    with pytest.raises(StaleAttemptError, match="attempt 1 was superseded by attempt 2"):
        store.check(3, 1)
    with pytest.raises(StaleAttemptError):
        store.claim(3, 1)
    store.check(4, 1)


def test_grids_are_found_by_images_and_half_written_ones_are_not(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    samples = store.trial(7) / "samples"
    samples.mkdir(parents=True)
    for name in ("0000010000.png", "0000002000.png", ".0000020000.png.tmp"):
        (samples / name).touch()
    assert list(store.grids(7)) == [2000, 10000]
    assert store.grids(8) == {}


def test_a_store_named_in_the_sweep_keeps_sweeps_apart(tmp_path: Path) -> None:
    assert store_of(made_up.sweep(f"store.path={tmp_path}"), Path("x")).root == tmp_path / "made-up"
    assert store_of(made_up.sweep(), Path("x")).root == Path("x/store")
