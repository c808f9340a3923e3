"""A sweep whose journal was damaged and repaired owns its store still, and is resumed to its exact number of trials."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.driver.ownership import check_own_store
from orchestrator.store.ownership import ForeignStoreError
from orchestrator.study.repair import repair
from orchestrator.study.salvage import LOST
from orchestrator.study.study import SweepStudy
from tests.support import earlier, sweeps
from trainers.checkpoint import MANIFEST

COMPLETE, PRUNED, PAUSED, RUNNING = 0, 3, 11, 15


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The sweep of an earlier release, repaired: records of four trials were damaged."""
    folder = earlier.unpack("e8b0d9e", tmp_path / "runs")
    path = folder / "study.journal"
    lines = path.read_bytes().split(b"\n")
    created = [index for index, line in enumerate(lines) if b'"op_code":4' in line]
    rungs = {
        (number, images): index
        for index, line in enumerate(lines)
        for number, images in ((COMPLETE, 600), (PRUNED, 200), (PAUSED, 200))
        if b'"trial_id":%d,' % number in line and b'"rung:%d"' % images in line
    }
    for index in (created[RUNNING], *rungs.values()):
        lines[index] = bytes(len(lines[index]))
    path.write_bytes(b"\n".join(lines))
    repair(folder)
    return folder


def opened(folder: Path) -> SweepStudy:
    study = SweepStudy.open(folder)
    assert study is not None
    return study


def test_its_store_is_its_own_and_no_other_s(folder: Path) -> None:
    check_own_store(opened(folder))
    path = next((folder / "store" / "trials" / f"{COMPLETE:05d}" / "checkpoints").iterdir()) / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["history"][0]["scores"]["kid"]["value"] += 1
    path.write_text(json.dumps({key: value for key, value in manifest.items() if key != "sha256"}))
    with pytest.raises(ForeignStoreError, match="its scores after 200 images are not those of this sweep"):
        check_own_store(opened(folder))


@pytest.mark.slow
def test_it_is_resumed_to_its_exact_number_of_trials(folder: Path) -> None:
    (folder.parent / "mlflow.db").write_bytes(b"no database")
    done = sweeps.gansweep("resume", "kept", cwd=folder.parents[1], module="orchestrator.cli", timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "`gansweep rebuild-tracking kept" in done.stdout
    records = opened(folder).records()
    assert len(records) == 18
    assert [record.number for record in records if record.reason == LOST] == [RUNNING]
    assert {record.state for record in records if record.number != RUNNING} == {"complete", "pruned"}
    assert records[COMPLETE].state == "complete"
    assert [rung.images for rung in records[COMPLETE].rungs] == [200, 400, 600, 800, 1200]
    assert records[PAUSED].rungs[0].images == 200
