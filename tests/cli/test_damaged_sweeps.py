"""One damaged sweep does not hide the others, and each command that opens it says what helps."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli.__main__ import app
from orchestrator.cli.app import complete_sweep
from orchestrator.study.journal import DamagedJournalError
from tests.support import damage

NAMES = ["another", "damaged", "whole"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in NAMES:
        path = damage.journal(tmp_path / name)
        if name == "damaged":
            data = path.read_bytes()
            path.write_bytes(data[:3000] + b"\x00" * 16 + data[3016:])
    return tmp_path


def call(root: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--root", str(root)])


def test_status_lists_all_sweeps_and_ends_with_code_1(root: Path) -> None:
    done = call(root, "status")
    lines = [line for line in done.output.splitlines() if not line.startswith(" ")]
    assert done.exit_code == 1
    assert [line.partition(":")[0] for line in lines] == NAMES
    assert lines[1].startswith(f"damaged: damaged; {root / 'damaged' / 'study.journal'}, line ")
    assert f"`gansweep repair damaged --root {root}`" in lines[1]


def test_it_stays_json(root: Path) -> None:
    (root / "locked").mkdir()
    (root / "locked" / "study.journal").mkdir()  # no file
    done = call(root, "status", "--json")
    found = {each["name"]: each for each in json.loads(done.output)}
    assert done.exit_code == 1
    assert {name: each["state"] for name, each in found.items()} == {
        "another": "interrupted",
        "damaged": "damaged",
        "locked": "unreadable",
        "whole": "interrupted",
    }
    assert "gansweep repair" in found["damaged"]["reason"]


@pytest.mark.parametrize(
    "words",
    [
        ["status", "damaged"],
        ["status", "damaged", "--json"],
        ["report", "damaged"],
        ["resume", "damaged"],
        ["stop", "damaged"],
        ["pause", "damaged"],
        ["add-trials", "damaged", "1"],
        ["gc", "damaged"],
        ["rebuild-tracking", "damaged"],
    ],
)
def test_each_command_names_line_and_remedy_and_changes_nothing(root: Path, words: list[str]) -> None:
    before = {file: file.read_bytes() for file in (root / "damaged").rglob("*") if file.is_file()}
    done = call(root, *words)
    assert isinstance(done.exception, DamagedJournalError)  # `main` prints it, with exit code 2
    assert "study.journal, line " in str(done.exception)
    assert {file: file.read_bytes() for file in (root / "damaged").rglob("*") if file.is_file()} == before


def test_its_name_is_completed(root: Path) -> None:
    context = SimpleNamespace(params={"root": str(root)})
    assert complete_sweep(context, "d") == ["damaged"]  # type: ignore[arg-type]


def test_after_a_repair_all_is_well(root: Path) -> None:
    assert call(root, "repair", "damaged", "--dry-run").exit_code == 0
    assert call(root, "status").exit_code == 1
    done = call(root, "repair", "damaged")
    assert done.exit_code == 0
    assert "study.journal.damaged-1" in done.output
    assert call(root, "status").exit_code == 0
    assert "nothing to repair" in call(root, "repair", "damaged").output
