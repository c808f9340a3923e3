"""What cannot be read of a study or a sweep ends with one sentence, and a driver still learns that it was replaced."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.paths import SWEEP_FILE
from orchestrator.study.formats import NOTES, SWEEP
from orchestrator.study.lease import Lease, LeaseLostError
from orchestrator.study.lease import _claim as claim
from orchestrator.study.status import read_status
from orchestrator.study.study import SweepStudy
from search_spaces.sweep import read_kept
from tests.support import made_up
from trainers.data.files import replaced
from trainers.errors import InputError
from trainers.formats import VERSION


def test_a_key_of_a_later_release_is_named() -> None:
    text = made_up.sweep().normalised()
    with pytest.raises(InputError, match=r"^sweep made-up: its kept text: later: unknown key; if a newer gansweep"):
        read_kept(text + "later: 1\n")
    with pytest.raises(InputError, match=r"^sweep made-up: its kept text: budget\.trials: "):
        read_kept(text.replace("trials: 5", "trials: none"))


def test_a_study_whose_sweep_is_damaged_is_named(tmp_path: Path) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep())
    study._study.set_user_attr(SWEEP, made_up.sweep().normalised() + "later: 1\n")
    with pytest.raises(InputError, match="sweep made-up: its kept text: later"):
        read_status(tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"name: [", None])
def test_a_sweep_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is None:
        (tmp_path / SWEEP_FILE).mkdir()
    else:
        (tmp_path / SWEEP_FILE).write_bytes(content)
    with pytest.raises(InputError, match=r"sweep\.yaml"):
        SweepStudy.open(tmp_path)


def test_a_driver_learns_that_a_newer_program_has_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep())
    records = study.lease_records
    mine = claim("made-up", records, None)
    lease = Lease(records, mine)
    study.drive(lease)
    records.renew(replace(mine, epoch=2, holder="near:1:x"))
    study._storage.inner.set_study_user_attr(study._study._study_id, VERSION, NOTES.newest + 1)
    monkeypatch.setattr(lease, "_valid_until", 0.0)  # as after a long sleep
    with pytest.raises(LeaseLostError, match="process 1 on near"):
        study.limits.check()


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_a_replaced_file_has_the_rights_of_new_files(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        with replaced(tmp_path / "file") as temporary:
            temporary.write_text("new")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
