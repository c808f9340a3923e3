"""A sweep that is not found is told by what is left of it, and looking for it changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli.app import open_study
from orchestrator.paths import JOURNAL, SWEEP_FILE
from orchestrator.study.missing import known_sweeps
from orchestrator.study.status import read_status
from orchestrator.study.storage import create_study, keep_sweep
from orchestrator.study.study import SweepStudy
from search_spaces.sweep import Sweep
from tests.support import made_up
from trainers.errors import InputError


def begun(root: Path, name: str, *overrides: str) -> Sweep:
    """A sweep below `root`, as its driver leaves it."""
    sweep = made_up.sweep(*overrides).model_copy(update={"name": name})
    (root / name).mkdir(parents=True)
    keep_sweep(root / name, SweepStudy.create(root / name, sweep).sweep)
    return sweep


def message(folder: Path, storage: str | None = None) -> str:
    """What is said of the sweep in `folder`; no file changes."""
    before = {path: path.stat().st_mtime_ns for path in folder.parent.parent.rglob("*")}
    with pytest.raises(InputError) as caught:
        open_study(folder, storage)
    if storage is None:
        with pytest.raises(InputError) as again:
            read_status(folder)
        assert str(again.value) == str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in folder.parent.parent.rglob("*")} == before
    return str(caught.value)


def test_a_root_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, reason in (("none", "there is no such folder"), ("file", "is not a folder")):
        root = tmp_path / name
        assert message(root / "t0").startswith(f"no sweep called 't0' in {root}: {root}: {reason}; name the folder of")
    with pytest.raises(InputError, match="there is no such folder"):
        known_sweeps(tmp_path / "none")


def test_another_name_gets_the_names_that_there_are(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    root.mkdir()
    assert message(root / "t0") == f"no sweep called 't0' in {root}; there are no sweeps; name the folder of the " + (
        "sweeps by --root"
    )
    begun(root, "t1")
    (root / "cache").mkdir()
    assert message(root / "t0") == f"no sweep called 't0' in {root}; there are: t1"
    assert message(root / "cache").endswith("there are: t1")
    for number in range(2, 45):
        (root / f"t{number:02}").mkdir()
        (root / f"t{number:02}" / SWEEP_FILE).touch()
    assert message(root / "t0").endswith("t18, t19, t20 and 24 more")


def test_a_study_that_has_not_begun_is_no_other_name(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "t0"
    folder.mkdir(parents=True)
    (folder / JOURNAL).touch()
    for _ in range(2):  # without a study, then without its first notes
        assert message(folder).startswith("t0: its study has not begun, since its driver ended before; launch its file")
        create_study(folder, None, "t0", ["minimize"])


def test_a_journal_that_is_gone_is_named(tmp_path: Path) -> None:
    begun(tmp_path / "runs", "t0")
    (tmp_path / "runs" / "t0" / JOURNAL).unlink()
    found = message(tmp_path / "runs" / "t0")
    assert found == f"t0: {tmp_path}/runs/t0/study.journal is missing, which had its study; put it back from a copy"


def test_a_database_without_the_study_is_named(tmp_path: Path) -> None:
    url, others = (f"sqlite:///{tmp_path}/{name}.db" for name in ("studies", "others"))
    begun(tmp_path / "runs", "t0", f"study.storage={url}")
    begun(tmp_path / "runs", "t1", f"study.storage={others}")
    (tmp_path / "studies.db").rename(tmp_path / "elsewhere.db")
    said = f"t0: {tmp_path}/runs/t0/sweep.yaml says that its study is in {url}, which has no study called t0"
    assert message(tmp_path / "runs" / "t0") == said
    (tmp_path / "others.db").rename(tmp_path / "studies.db")
    assert message(tmp_path / "runs" / "t0") == said


def test_a_database_that_is_given_is_named_and_not_made(tmp_path: Path) -> None:
    begun(tmp_path / "runs", "t1")
    url = f"sqlite:///{tmp_path}/none.db"
    found = message(tmp_path / "runs" / "t0", url)
    assert found == f"no sweep called 't0' in {tmp_path}/runs nor in {url}; there are: t1"
