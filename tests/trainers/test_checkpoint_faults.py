"""What a disk or a kill does to a checkpoint is found out, said, or undone."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

from trainers import checkpoint
from trainers.checkpoint import CheckpointError


def _write(parent: Path, images: int) -> Path:
    folder = parent / checkpoint.folder_name(images)
    checkpoint.write(folder, {"weight": torch.ones(3)}, {}, {"history": [{"images": 5}], "by class": {10: 1, 9: None}})
    return folder


def test_a_changed_number_in_the_manifest_is_found(tmp_path: Path) -> None:
    folder = _write(tmp_path, 5)
    path = folder / checkpoint.MANIFEST
    changed = path.read_text().replace('"images": 5', '"images": 7')
    assert changed != path.read_text()
    path.write_text(changed)
    for read in (checkpoint.read, checkpoint.read_manifest):
        with pytest.raises(CheckpointError, match=rf"{folder.name}/manifest\.json: its sha256 is not"):
            read(folder)


def test_a_manifest_of_an_earlier_version_that_lists_no_sha256_of_itself_is_read(tmp_path: Path) -> None:
    folder = _write(tmp_path, 5)
    path = folder / checkpoint.MANIFEST
    written = json.loads(path.read_text())
    del written["sha256"]
    path.write_text(json.dumps(written))
    assert checkpoint.read(folder)[2] == written


def test_a_checkpoint_that_stepped_aside_for_one_that_never_came_is_put_back(tmp_path: Path) -> None:
    old = _write(tmp_path, 10)
    aside = old.with_name(f".{old.name}.123.old")
    old.rename(aside)
    assert checkpoint.newest(tmp_path) == old
    assert not aside.exists()
    newer = _write(tmp_path, 20)
    newer.rename(aside)
    assert checkpoint.newest(tmp_path) == old, "it is not put over the one that came"


def test_a_full_disk_is_told_as_one_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    old = _write(tmp_path, 10)
    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        _write(tmp_path, 20)
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == [old]
