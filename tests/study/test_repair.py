"""Laws of `gansweep repair`: it keeps what is whole, says what is lost, guesses nothing, and the sweep goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.paths import JOURNAL
from orchestrator.store import store_of
from orchestrator.study.journal import DamagedJournalError, Journal
from orchestrator.study.lease import hold_lease
from orchestrator.study.records import TrialRecord
from orchestrator.study.repair import repair
from orchestrator.study.salvage import LOST, WORKER
from orchestrator.study.status import read_status
from orchestrator.study.storage import keep_sweep
from orchestrator.study.study import Decision, SweepStudy
from tests.support import damage, earlier, made_up
from trainers.errors import InputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = damage.journal(tmp_path / "kept")
    study = SweepStudy.open(path.parent)
    assert study is not None
    keep_sweep(path.parent, study.sweep)
    return path


def trials(path: Path) -> list[TrialRecord]:
    return read_status(path.parent).records


def records(path: Path) -> list[dict[str, Any]]:
    return list(Journal(str(path)).read_logs(0))


def lines_of(path: Path, *texts: str) -> list[int]:
    """Indices of the lines that have all of `texts`."""
    found = path.read_text().splitlines()
    return [index for index, line in enumerate(found) if all(text in line for text in texts)]


def spoil(path: Path, *indices: int) -> None:
    """Zeroes a part of some lines."""
    lines = path.read_bytes().split(b"\n")
    for index in indices:
        lines[index] = lines[index][:40] + bytes(30) + lines[index][70:]
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(DamagedJournalError, match=f"line {min(indices) + 1}: "):
        read_status(path.parent)


def text(value: Any) -> str:
    return str(value)  # nan differs from itself


def created(path: Path, number: int) -> int:
    return lines_of(path, '"op_code":4')[number]


def test_a_whole_journal_is_not_touched(path: Path) -> None:
    before = {file: (file.stat(), file.read_bytes()) for file in path.parent.iterdir()}
    assert repair(path.parent) == [f"kept: {path} is whole; there is nothing to repair"]
    path.write_bytes(path.read_bytes()[:-9])  # the last line was never acknowledged
    before[path] = (path.stat(), path.read_bytes())
    assert "nothing to repair" in repair(path.parent)[0]
    after = {file: (file.stat(), file.read_bytes()) for file in path.parent.iterdir()}
    assert {file: (a.st_mtime_ns, a.st_ino, b) for file, (a, b) in after.items()} == {
        file: (a.st_mtime_ns, a.st_ino, b) for file, (a, b) in before.items()
    }


def test_a_dry_run_says_the_same_and_changes_nothing(path: Path) -> None:
    spoil(path, 20)
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    said = repair(path.parent, dry_run=True)
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before
    assert repair(path.parent)[:-1] == said[:-1]
    assert "dry run" in said[-1]


def test_the_damaged_journal_is_kept_each_time(path: Path) -> None:
    for count in (1, 2):
        spoil(path, 20)
        before = path.read_bytes()
        assert f"study.journal.damaged-{count}" in repair(path.parent)[-1]
        assert path.with_name(f"study.journal.damaged-{count}").read_bytes() == before
        assert "nothing to repair" in repair(path.parent)[0]


@pytest.mark.parametrize("seed", range(63))
def test_what_is_kept_was_written_and_numbers_stay(path: Path, seed: int) -> None:
    known, before = records(path), trials(path)
    path.write_bytes(damage.damaged(path.read_bytes(), seed))
    repair(path.parent)
    kept = [record for record in records(path) if record["worker_id"] != WORKER]
    assert all(record in known for record in kept)
    for old, new in zip(before, trials(path), strict=False):
        assert new.params == old.params or new.reason == LOST
        assert {text(rung) for rung in new.rungs} <= {text(rung) for rung in old.rungs}


@pytest.mark.parametrize("seed", range(15))
def test_a_journal_without_checksums_is_repaired_too(tmp_path: Path, seed: int) -> None:
    path = earlier.unpack("e8b0d9e", tmp_path) / JOURNAL
    before = len(trials(path))
    path.write_bytes(damage.damaged(path.read_bytes(), seed))
    try:
        repair(path.parent)
    except InputError as error:
        if "nothing of it is whole" in str(error):
            return
        raise
    assert len(trials(path)) <= before + 1  # a value that was changed inside a line is not noticed


def test_lines_that_were_copied_moved_or_added_cost_nothing(path: Path, tmp_path: Path) -> None:
    known = records(path)
    lines = path.read_bytes().splitlines()
    stranger = damage.journal(tmp_path / "other").read_bytes().splitlines()
    mixed = [*lines[30:], *stranger[5:20], *lines[10:30], b"", *lines[:15], b"a text"]
    path.write_bytes(b"\n".join(mixed) + b"\n")
    said = "\n".join(repair(path.parent))
    assert records(path) == known
    assert "is a record of another journal" in said
    assert "is a copy of line" in said
    assert "put back by their numbers" in said


def test_a_trial_whose_creation_is_lost_fails_and_the_others_keep_their_numbers(path: Path) -> None:
    before = trials(path)
    spoil(path, created(path, 0), created(path, 3))
    said = "\n".join(repair(path.parent))
    after = trials(path)
    assert [record.reason == LOST for record in after] == [True, False, False, True, False, False]
    assert [text(after[n]) for n in (1, 2, 4, 5)] == [text(before[n]) for n in (1, 2, 4, 5)]
    assert "trial 0 counts as failed, since its creation is lost" in said
    assert "trial 3 counts as failed, since its creation is lost" in said
    status = read_status(path.parent)
    assert status.best is not None
    assert status.best.number == 4


def test_a_trial_that_lacks_a_parameter_fails(path: Path) -> None:
    (line,) = lines_of(path, '"trial_id":4', '"param_name":"g_lr"')
    spoil(path, line)
    said = "\n".join(repair(path.parent))
    assert trials(path)[4].reason == LOST
    assert f"line {line + 1} (it seems to be of trial 4, g_lr)" in said
    assert "trial 4 counts as failed, since a parameter of it is lost" in said


def finish(study: SweepStudy, histories: Callable[[int], list[Any]]) -> None:
    while (ticket := study.next_ticket()) is not None:
        assert study.report(ticket.number, histories(ticket.number)) is not Decision.PAUSE


def test_a_complete_trial_that_lacks_a_rung_gets_it_back_from_its_checkpoint(path: Path) -> None:
    before = trials(path)
    spoil(path, *lines_of(path, '"trial_id":4', '"rung:2000"'))
    assert "trial 4: its rungs at 2 kimg are lost; resume reads them" in "\n".join(repair(path.parent))
    assert trials(path)[4].state == "running"
    study = SweepStudy.open(path.parent)
    assert study is not None
    finish(study, lambda number: made_up.history(2.0, 1.5, 1.75) if number == 4 else made_up.history(9.0, 8.0, 7.0))
    after = trials(path)
    assert (after[4].state, after[4].rungs, after[4].best) == ("complete", before[4].rungs, before[4].best)
    assert len(after) == 7
    assert read_status(path.parent).state == "complete"


def test_a_paused_trial_without_its_rungs_goes_on(tmp_path: Path) -> None:
    sweep = made_up.sweep("name=kept", "pruner=freeze-thaw", "budget.trials=3", "finals.trials=0")
    (tmp_path / "kept").mkdir()
    study = SweepStudy.create(tmp_path / "kept", sweep)
    tickets = [study.next_ticket() for _ in range(3)]
    assert [ticket.number for ticket in tickets if ticket] == [0, 1, 2]
    assert {study.report(number, made_up.history(3.0 + number)) for number in range(3)} == {Decision.PAUSE}
    path = tmp_path / "kept" / JOURNAL
    spoil(path, *lines_of(path, '"trial_id":1', '"rung:1000"'))
    assert "trial 1: its rungs at 1 kimg are lost; resume reads them" in "\n".join(repair(path.parent))
    assert [record.state for record in trials(path)] == ["paused", "running", "paused"]
    resumed = SweepStudy.open(path.parent)
    assert resumed is not None
    while (ticket := resumed.next_ticket()) is not None:
        passed = len(resumed.record(ticket.number).rungs)
        resumed.report(ticket.number, made_up.history(*(3.0 + ticket.number for _ in range(passed + 1))))
    assert read_status(path.parent).state == "complete"
    assert len(trials(path)) == 3


def test_the_store_s_trials_and_attempts_are_not_used_again(path: Path) -> None:
    objects = store_of(read_sweep(path), path.parent).objects
    for number, attempt in ((0, 4), (5, 1), (6, 1), (4000, 1)):  # no 4,000 trials can be lost
        objects.put(f"trials/{number:05d}/attempt", str(attempt).encode())
    data = path.read_bytes()
    path.write_bytes(data[: data.index(path.read_bytes().splitlines()[created(path, 5)])] + bytes(3000))
    repair(path.parent)
    assert [record.reason == LOST for record in trials(path)] == [False] * 5 + [True] * 2
    study = SweepStudy.open(path.parent)
    assert study is not None
    ticket = study.next_ticket()
    assert ticket is not None
    assert (ticket.number, ticket.attempt) == (0, 5)


def read_sweep(path: Path) -> Any:
    study = SweepStudy.open(path.parent)
    assert study is not None
    return study.sweep


def test_the_beginning_of_the_study_comes_from_the_sweep_s_file_and_the_store(path: Path) -> None:
    study = SweepStudy.open(path.parent)
    assert study is not None
    before, known, sweep = trials(path), study.id, study.sweep
    store_of(sweep, path.parent).objects.put("study", json.dumps({"format": 1, "id": known}).encode())
    spoil(path, *range(4))
    said = "\n".join(repair(path.parent))
    assert "text and budget are taken from" in said
    assert "the study's id is lost, and taken from its store" in said
    again = SweepStudy.open(path.parent)
    assert again is not None
    assert (again.id, again.sweep, text(again.records())) == (known, sweep, text(before))


def test_trials_that_were_added_count_once_if_the_sweep_s_text_is_lost(path: Path) -> None:
    from orchestrator.cli.requests import add_trials

    add_trials(path.parent, None, 5)
    keep_sweep(path.parent, read_sweep(path))
    spoil(path, *lines_of(path, '"user_attr":{"sweep"'))
    repair(path.parent)
    assert read_sweep(path).budget.trials == 12


def test_without_any_text_of_the_sweep_nothing_is_changed(path: Path) -> None:
    (path.parent / "sweep.yaml").unlink()
    spoil(path, *lines_of(path, '"user_attr":{"sweep"'))
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"neither study\.journal nor sweep\.yaml has the text of the sweep"):
        repair(path.parent)
    assert (path.read_bytes(), len(list(path.parent.iterdir()))) == (before, 1)


@pytest.mark.parametrize("content", ["a text\n".encode("utf-16"), bytes(5000), b"x\n" * 100])
def test_a_journal_of_which_nothing_is_whole_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match="nothing of it is whole; restore it from a backup"):
        repair(path.parent)
    assert path.read_bytes() == content


def test_a_driver_at_work_keeps_its_journal(path: Path) -> None:
    study = SweepStudy.open(path.parent)
    assert study is not None
    with hold_lease("kept", path.parent, study.lease_records, print):
        whole = path.read_bytes()
        spoil(path, 20)
        before = path.read_bytes()
        with pytest.raises(InputError, match="kept: already driven by process"):
            repair(path.parent)
        assert path.read_bytes() == before
        path.write_bytes(whole)  # so that the driver can end


def test_what_has_no_journal_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no sweep called 'nothing'"):
        repair(tmp_path / "nothing")
    keep_sweep(tmp_path / "far", made_up.sweep("name=far", f"study.storage=sqlite:///{tmp_path / 'study.db'}"))
    with pytest.raises(InputError, match="far: a database keeps its study"):
        repair(tmp_path / "far")
    keep_sweep(tmp_path / "gone", made_up.sweep("name=gone"))
    with pytest.raises(InputError, match=r"study\.journal is missing; restore it"):
        repair(tmp_path / "gone")
