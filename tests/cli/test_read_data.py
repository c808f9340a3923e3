"""Pictures that cannot be used are found before a sweep begins: by a launch, a dry run that reads, and the doctor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.support import sweeps

Command = Callable[..., tuple[int, str, str]]
DAMAGED = ("b/3.png", "a/0.png", "b/8.png")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command line beside a sweep file and a folder of pictures: exit code, standard output, standard error."""
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for place in range(10):
            Image.new("RGB", (8, 8), (place, 0, 0)).save(tmp_path / "set" / name / f"{place}.png")
    (tmp_path / "set" / "a" / "notes.txt").touch()
    (tmp_path / "tiny.yaml").write_text(
        sweeps.TINY.replace("dataset: mnist-mini", "dataset: {name: folder, path: set, fit: true}").replace(
            "batch: 50", "batch: 10"
        )
    )
    monkeypatch.setattr("orchestrator.driver.estimate.SECONDS_PER_TRIAL", 0.01)

    def run(*arguments: str) -> tuple[int, str, str]:
        done = sweeps.in_process(*arguments, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    return run


def damage(root: Path) -> None:
    for name in DAMAGED:
        (root / "set" / name).write_bytes(b"\x89PNG\r\n\x1a\nno more")


def test_a_dry_run_reads_the_data_if_asked(command: Command, tmp_path: Path) -> None:
    code, _, err = command("launch", "tiny.yaml", "--dry-run", "--read-data")
    assert code == 0
    assert "warning: set: passed over 1 files that are no pictures: .txt (1)" in err
    damage(tmp_path)
    code, _, err = command("launch", "tiny.yaml", "--dry-run")
    assert code == 0
    assert "warning: set: passed over 1 files" in err
    code, _, err = command("launch", "tiny.yaml", "--dry-run", "--read-data")
    assert code == 2
    assert "3 of 20 pictures cannot be used" in err
    assert all(f"set/{name}" in err for name in DAMAGED)
    code, _, err = command("launch", "tiny.yaml", "--dry-run", "--read-data", "--set", "dataset.skip_damaged=true")
    assert code == 0
    assert "warning: set: 3 damaged pictures are passed over: " in err
    assert all(name in err for name in DAMAGED)


def test_a_launch_names_them_before_there_is_a_study(command: Command, tmp_path: Path) -> None:
    damage(tmp_path)
    code, _, err = command("launch", "tiny.yaml")
    assert code == 2
    assert "Traceback" not in err
    assert all(f"set/{name}" in err for name in DAMAGED)
    assert not list(tmp_path.glob("runs/tiny*"))


def test_the_doctor_finds_them_and_leaves_nothing(command: Command, tmp_path: Path) -> None:
    code, out, _ = command("doctor", "tiny.yaml")
    assert code == 0
    assert "folder: 2 classes, 3 x 28 x 28; set: passed over 1 files" in out
    damage(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = command("doctor", "tiny.yaml")
    assert code == 1
    assert "3 of 20 pictures cannot be used" in out
    assert all(f"set/{name}" in out for name in DAMAGED)
    assert sorted(tmp_path.rglob("*")) == before
