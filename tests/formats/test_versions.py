"""Versions of formats: older data go through migrations, newer ones end with one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from orchestrator.cli.__main__ import app
from orchestrator.study import formats as study_formats
from orchestrator.study.formats import NOTES, SWEEP
from orchestrator.study.storage import keep_sweep
from orchestrator.study.study import Decision, SweepStudy
from search_spaces.sweep import FORMAT
from tests.support import made_up
from trainers import checkpoint, formats
from trainers.errors import InputError
from trainers.formats import MANIFEST, VERSION, Format, renamed, unchanged

THIRD = Format((unchanged, renamed("a", "b"), renamed("b", "c")))
WHOLE = ("budget.trials=1", "finals.trials=0", "name=kept", "pruner=none")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def complete(tmp_path: Path) -> SweepStudy:
    """A complete sweep of one trial."""
    (tmp_path / "kept").mkdir()
    study = SweepStudy.create(tmp_path / "kept", made_up.sweep(*WHOLE))
    assert study.next_ticket() is not None
    assert study.report(0, made_up.history(3.0, 1.0, 2.0)) is Decision.COMPLETE
    keep_sweep(study.folder, study.sweep)
    return study


def again(study: SweepStudy) -> SweepStudy:
    found = SweepStudy.open(study.folder)
    assert found is not None
    return found


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "kept.yaml").write_text(made_up.TEXT.replace("made-up", "kept"))
    return str(tmp_path / "kept.yaml")


def launch(file: str, *settings: str) -> Result:
    chosen = [f"--set={setting}" for setting in (*WHOLE, *settings)]
    return run("launch", file, *chosen, "--root", str(Path(file).parent))


# Migrations


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"a": 1}, {"c": 1}),
        ({VERSION: 1, "a": 1, "x": 2}, {"c": 1, "x": 2}),
        ({VERSION: 3, "b": 1}, {"c": 1}),
        ({VERSION: 4, "a": 1}, {"a": 1}),
    ],
)
def test_data_take_the_migrations_after_their_own_version(data: dict[str, Any], expected: dict[str, Any]) -> None:
    before = dict(data)
    assert THIRD.read(data, "test") == {VERSION: 4, **expected}
    assert data == before
    assert list(THIRD.read(THIRD.stamped({"c": 1}), "test").items()) == [(VERSION, 4), ("c", 1)]


@pytest.mark.parametrize("number", [5, 0, -1, True, 2.0, "2", None])
def test_a_version_that_is_not_known_is_refused(number: Any) -> None:
    with pytest.raises(InputError, match=r"^test: "):
        THIRD.read({VERSION: number}, "test")


# Checkpoints


def checkpoint_in(folder: Path) -> Path:
    checkpoint.write(folder / checkpoint.folder_name(5), {"w": torch.ones(2)}, {}, {"system": "narman-cgan"})
    return folder / checkpoint.folder_name(5)


def test_a_checkpoint_of_a_newer_program_is_neither_read_nor_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        later.setattr(formats, "MANIFEST", Format((*MANIFEST.migrations, unchanged)))
        folder = checkpoint_in(tmp_path)
        assert checkpoint.read_manifest(folder)[VERSION] == MANIFEST.newest + 1
    said = f"has format {MANIFEST.newest + 1}, and this program reads formats up to {MANIFEST.newest}; install a newer"
    for read in (checkpoint.read, checkpoint.read_manifest, lambda found: checkpoint.newest(found.parent)):
        with pytest.raises(InputError, match=said):
            read(folder)
    scored = run("score", str(folder), "--dataset", "mnist-mini")
    assert isinstance(scored.exception, InputError)  # `main` makes exit code 2 of it


def test_a_damaged_number_is_damage_and_no_newer_program(tmp_path: Path) -> None:
    folder = checkpoint_in(tmp_path)
    manifest = json.loads((folder / checkpoint.MANIFEST).read_text())
    (folder / checkpoint.MANIFEST).write_text(json.dumps({**manifest, VERSION: 99}))
    with pytest.raises(checkpoint.CheckpointError, match="its sha256 is not"):
        checkpoint.read(folder)
    assert checkpoint.newest(tmp_path) is None


# Studies and sweeps


@pytest.mark.parametrize("command", ["status", "resume", "report", "add-trials"])
def test_a_study_of_a_newer_program_is_refused_with_one_sentence(complete: SweepStudy, command: str) -> None:
    complete._study.set_user_attr(VERSION, 99)
    more = ["1"] if command == "add-trials" else []
    done = run(command, "kept", *more, "--root", str(complete.folder.parent))
    said = f"has format 99, and this program reads formats up to {NOTES.newest}; install a newer gansweep"
    assert str(done.exception) == f"the study of sweep kept: it {said}"


def test_a_sweep_kept_by_a_newer_program_is_refused_with_one_sentence(complete: SweepStudy) -> None:
    text = complete.sweep.normalised().replace(f"format: {FORMAT.newest}", "format: 99")
    complete._study.set_user_attr(SWEEP, text)
    done = run("status", "kept", "--root", str(complete.folder.parent))
    assert str(done.exception).startswith("sweep kept: it has format 99, and this program reads formats up to")


def test_notes_are_migrated_on_reading_and_written_by_the_next_driver(
    complete: SweepStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete._study.set_user_attr("old name", 5)
    later = Format((*NOTES.migrations, renamed("old name", "new name")))
    monkeypatch.setattr(study_formats, "NOTES", later)
    study = again(complete)
    assert study._notes.values["new name"] == 5
    assert "new name" not in study._study.user_attrs
    study.upgrade()
    assert study._study.user_attrs["new name"] == 5
    assert study._study.user_attrs[VERSION] == later.newest
    assert again(study)._notes.values["new name"] == 5


def test_a_driver_that_dies_while_it_migrates_leaves_notes_that_are_migrated_again(
    complete: SweepStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete._study.set_user_attr("old name", 5)
    monkeypatch.setattr(study_formats, "NOTES", Format((*NOTES.migrations, renamed("old name", "new name"))))
    study = again(complete)
    write = study._study.set_user_attr

    def dying(key: str, value: Any) -> None:
        if key == VERSION:
            raise KeyboardInterrupt
        write(key, value)

    monkeypatch.setattr(study._study, "set_user_attr", dying)
    with pytest.raises(KeyboardInterrupt):
        study.upgrade()
    assert again(complete)._notes.values["new name"] == 5
    again(complete).upgrade()
    assert again(complete)._study.user_attrs[VERSION] == NOTES.newest + 1


def test_a_study_without_a_number_records_its_defaults_once_a_driver_has_it(tmp_path: Path) -> None:
    first = made_up.sweep(*WHOLE)
    (tmp_path / "kept").mkdir()
    study = SweepStudy.create(tmp_path / "kept", first)
    study._study.set_user_attr(SWEEP, first.normalised())  # as version 1, which had no defaults
    older = again(study)
    assert older.sweep.defaults == {}
    older.upgrade()
    assert older.sweep.defaults == study.sweep.defaults != {}
    assert again(older).sweep == older.sweep


# A file that is launched again


def test_a_file_that_leaves_out_what_the_sweep_has_goes_on_and_is_told(complete: SweepStudy, file: str) -> None:
    text = complete.sweep.normalised()
    assert "  spool: {max_gb: 10.0}" in text
    complete._study.set_user_attr(SWEEP, text.replace("max_gb: 10.0", "max_gb: 20.0"))  # once the default
    done = launch(file)
    assert done.exit_code == 0, done.output
    said = "sweep kept: kept as in the existing sweep, since the file leaves it out: store.spool.max_gb"
    assert done.stdout.splitlines()[:2] == [said, "sweep kept is complete"]
    assert again(complete).sweep.store.spool.max_gb == 20.0


def test_a_file_that_says_all_that_the_sweep_has_goes_on_without_a_word(complete: SweepStudy, file: str) -> None:
    assert launch(file).stdout.splitlines()[0] == "sweep kept is complete"


def test_a_file_that_gives_a_key_another_value_is_refused_with_that_key_alone(complete: SweepStudy, file: str) -> None:
    text = complete.sweep.normalised()
    complete._study.set_user_attr(SWEEP, text.replace("max_gb: 10.0", "max_gb: 20.0"))
    done = launch(file, "score.seed=7")
    assert isinstance(done.exception, InputError)
    changes = [line for line in str(done.exception).splitlines() if line.startswith(("-  ", "+  "))]
    assert changes == ["-  seed: 0", "+  seed: 7"]
