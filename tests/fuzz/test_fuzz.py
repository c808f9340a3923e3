"""A few hostile inputs of each kind; `make fuzz` tries thousands."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.fuzz.__main__ import broken_laws
from tests.fuzz.kinds import KINDS, prepare
from tests.fuzz.laws import run_command_line, violations, violations_of_command
from tests.fuzz.mutations import MARKER


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    prepare(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_inputs_are_answered_in_words(kind: str, place: Path) -> None:
    broken = {number: found for number in range(1, 16) if (found := broken_laws(kind, number, "in process", place))}
    assert broken == {}


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_answers_them_too(kind: str, place: Path) -> None:
    assert broken_laws(kind, 1, "command", place) == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_depends_on_its_number_alone(kind: str, place: Path, tmp_path: Path) -> None:
    made = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        attack = KINDS[kind](Random(f"{kind}-7"), folder, place)
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        made.append(([word.replace(str(folder), "") for word in attack.arguments], sorted(files)))
    assert made[0] == made[1]


def test_each_broken_law_is_found(tmp_path: Path) -> None:
    def leak() -> None:
        print(MARKER)
        (tmp_path / "log").write_text(f"x{MARKER}x")
        raise KeyError("x")

    assert violations(leak, tmp_path, set(), False) == ["KeyError: 'x'", "a secret in the output", "a secret in log"]
    assert violations(lambda: print("nan"), tmp_path, {tmp_path / "log"}, True)[0].startswith("no JSON")
    assert violations(lambda: print("NaN"), tmp_path, {tmp_path / "log"}, True) == ["no JSON: NaN is no JSON"]
    assert violations(lambda: exit(9), tmp_path, {tmp_path / "log"}, False) == ["exit code 9"]
    assert violations(lambda: exit(2), tmp_path, {tmp_path / "log"}, False) == ["exit code 2 without a message"]
    assert violations(lambda: run_command_line(["list", "x"]), tmp_path, {tmp_path / "log"}, False) == []
    assert violations_of_command(["list", MARKER], tmp_path, {tmp_path / "log"}) == ["a secret in the output"]


def test_an_input_that_hangs_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.laws.LIMIT", 0.2)

    def hang() -> None:
        while True:
            pass

    assert violations(hang, tmp_path, set(), False) == ["no answer within 0.2 s"]
