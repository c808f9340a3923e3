"""Laws of damage: a journal is read as it was written, or its damaged line is named with the remedy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from orchestrator.study.journal import DamagedJournalError, Journal
from orchestrator.study.journal_lines import CHECK, VERSION, written
from orchestrator.study.status import read_status
from orchestrator.study.study import SweepStudy
from tests.support import damage, earlier
from trainers.errors import InputError
from trainers.evaluation.scores import Score

#: A rung whose score is of no metric, and a trial of an earlier sweep with a rung that is no number.
ODD = {
    "images": 200,
    "scores": {"kid": vars(Score("+id", 1.0, 0.1, 20, "lenet", "reference", 0))},
    "losses": {},
    "train_seconds": 1.0,
    "score_seconds": 1.0,
}
SOUND = {**ODD, "scores": {}}
PRIOR = '[{"params": {"g_lr": 0.001}, "values": {"8p0": 1.5}}]'
MESSAGE = r"kept/study\.journal, line \d+: .+; `gansweep repair kept --root .+` keeps what is whole"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return damage.journal(tmp_path / "kept")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A journal of an earlier release, without checksums."""
    return earlier.unpack("e8b0d9e", tmp_path) / "study.journal"


def records(path: Path) -> list[dict[str, Any]]:
    return list(Journal(str(path)).read_logs(0))


def changed(path: Path, line: int, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the record in a line (from 1) of a journal without checksums."""
    lines = path.read_bytes().splitlines()
    record = json.loads(lines[line - 1])
    change(record)
    lines[line - 1] = json.dumps(record, separators=(",", ":")).encode()
    path.write_bytes(b"\n".join(lines) + b"\n")


def first(path: Path, **wanted: Any) -> int:
    """The number of the first line whose record has these values."""
    found = enumerate(map(json.loads, path.read_bytes().splitlines()), 1)
    return next(number for number, record in found if wanted.items() <= record.items())


def fault(path: Path) -> str | None:
    """What reading the study says; None if nothing."""
    try:
        read_status(path.parent)
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize("seed", range(90))
def test_whatever_happens_to_it_a_journal_is_read_as_it_was_written_or_not_at_all(path: Path, seed: int) -> None:
    before = records(path)
    path.write_bytes(damage.damaged(path.read_bytes(), seed))
    if (said := fault(path)) is not None:
        assert re.search(MESSAGE, said)
    else:
        assert (found := records(path)) == before[: len(found)]


@pytest.mark.parametrize("seed", range(30))
def test_a_damaged_journal_of_an_earlier_release_is_named_or_read_without_an_error(old: Path, seed: int) -> None:
    old.write_bytes(damage.damaged(old.read_bytes(), seed))
    said = fault(old)
    assert said is None or re.search(MESSAGE, said) or "no sweep called" in said


def test_each_single_bit_counts(path: Path) -> None:
    before, data = records(path), path.read_bytes()
    line = len(data.splitlines()[3]) + 1
    start = sum(len(each) + 1 for each in data.splitlines()[:3])
    for place in range(start, start + line, 3):  # all of them take seconds
        for bit in range(8):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            with pytest.raises(DamagedJournalError, match=r"line [45]: "):
                records(path)
    path.write_bytes(data)
    assert records(path) == before


def test_a_flipped_bit_of_the_last_end_of_a_line_is_no_line_that_was_cut_off(path: Path) -> None:
    before, data = records(path), path.read_bytes()
    for bit in range(8):
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1 << bit]))
        with pytest.raises(DamagedJournalError):
            records(path)
    path.write_bytes(data[:-1])
    assert records(path) == before[:-1]


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda text: text.encode("utf-16"), 1),
        (lambda text: text.replace("\n", " ").encode(), 1),
        (lambda text: text.encode() + bytes(4096), "last"),
        (lambda text: text.encode() + b"another program's text", "last"),
        (lambda text: b"\n" + text.encode(), 1),
    ],
    ids=["utf-16", "one line", "zeros at the end", "text at the end", "empty line"],
)
def test_the_line_is_named(path: Path, make: Callable[[str], bytes], line: int | str) -> None:
    data = make(path.read_text())
    number = data.count(b"\n") + 1 if line == "last" else line
    path.write_bytes(data)
    with pytest.raises(DamagedJournalError, match=rf"study\.journal, line {number}: "):
        read_status(path.parent)
    assert path.read_bytes() == data


def test_windows_line_ends_are_no_damage(path: Path, old: Path) -> None:
    for each in (path, old):
        before = records(each)
        each.write_bytes(each.read_bytes().replace(b"\n", b"\r\n"))
        assert records(each) == before
        Journal(str(each)).append_logs([{"op_code": 2, "worker_id": "a-1", "study_id": 0, "user_attr": {"x": 1}}])
        assert len(records(each)) == len(before) + 1


def test_a_record_of_another_study_is_no_record_of_this_one(path: Path, tmp_path: Path) -> None:
    lines, others = path.read_bytes().splitlines(), damage.journal(tmp_path / "other").read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:12], others[12], *lines[13:]]) + b"\n")
    with pytest.raises(DamagedJournalError, match="line 13: is a record of another journal"):
        records(path)


def test_nothing_is_written_to_a_damaged_journal(path: Path) -> None:
    study = SweepStudy.open(path.parent)
    assert study is not None
    data = damage.damaged(path.read_bytes(), 9)  # a flipped bit
    path.write_bytes(data)
    fresh = Journal(str(path))
    with pytest.raises(DamagedJournalError, match=MESSAGE):
        fresh.append_logs([{"op_code": 2, "worker_id": "a-1", "study_id": 0, "user_attr": {"x": 1}}])
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    ("wanted", "change", "fault"),
    [
        ({"op_code": 4}, lambda r: r.update(study_id=1), "study_id: Input should be 0"),
        ({"op_code": 4}, lambda r: r.update(datetime_start="soon"), "datetime_start: Value error"),
        ({"op_code": 8}, lambda r: r.update(trial_id=99), "names trial 99, which does not exist yet"),
        ({"op_code": 8}, lambda r: r.update(op_code=12), "op_code"),
        ({"op_code": 8}, lambda r: r.update(user_attr={}), "user_attr: "),
        ({"op_code": 8}, lambda r: r.update(user_attr={"attempt": "1"}), "has a note attempt that cannot be read"),
        ({"op_code": 8}, lambda r: r.update(user_attr={"rung:200": {"images": 200}}), "has a note rung:200 that"),
        ({"op_code": 8}, lambda r: r.pop("worker_id"), "worker_id: Field required"),
        ({"op_code": 7}, lambda r: r.update(intermediate_value="good"), "intermediate_value: "),
        ({"op_code": 5}, lambda r: r.update(param_value_internal=1e9), "has a parameter that cannot be read"),
        ({"op_code": 5}, lambda r: r.update(distribution="{}"), "has a parameter that cannot be read"),
        ({"op_code": 6}, lambda r: r.update(state=9), "state: "),
        ({"op_code": 6, "state": 1}, lambda r: r.pop("datetime_complete"), "datetime_complete is missing"),
        ({"op_code": 6}, lambda r: r.update(values=["1"]), "values.0: "),
        ({"op_code": 2}, lambda r: r.update(user_attr={"sweep": "name: ["}), "has a note sweep that cannot be read"),
        ({"op_code": 2}, lambda r: r.update(user_attr={"lease:1": {"epoch": 1}}), "has a note lease:1 that"),
        ({"op_code": 8}, lambda r: r.update(user_attr={"rung:200": ODD}), "has a note rung:200 that"),
        ({"op_code": 8}, lambda r: r.update(user_attr={"rung:8%": SOUND}), "has a note rung:8% that"),
        ({"op_code": 8}, lambda r: r.update(user_attr={"rung:201": SOUND}), "has a note rung:201 that"),
        ({"op_code": 8}, lambda r: r.update(user_attr={"rung:0200": SOUND}), "has a note rung:0200 that"),
        ({"op_code": 8}, lambda r: r.update(user_attr={"verdict:2x": True}), "has a note verdict:2x that"),
        ({"op_code": 8}, lambda r: r.update(user_attr={"verdict:\u0662": True}), "that cannot be read"),
        ({"op_code": 2}, lambda r: r.update(user_attr={"lessons:0": "[1]"}), "has a note lessons:0 that"),
        ({"op_code": 2}, lambda r: r.update(user_attr={"lessons:0": PRIOR}), "has a note lessons:0 that"),
        ({"op_code": 0}, lambda r: r.update(directions="minimize"), "directions: "),
    ],
)
def test_a_record_without_a_checksum_is_examined(old: Path, wanted: Any, change: Any, fault: str) -> None:
    line = first(old, **wanted)
    changed(old, line, change)
    with pytest.raises(DamagedJournalError) as caught:
        read_status(old.parent)
    assert f"line {line}: " in str(caught.value)
    assert fault in str(caught.value)


def test_copied_and_moved_lines_without_checksums_are_noticed(old: Path) -> None:
    lines = old.read_bytes().splitlines()
    created = first(old, op_code=4)
    old.write_bytes(b"\n".join([*lines, lines[created - 1]]) + b"\n")
    with pytest.raises(DamagedJournalError, match=rf"line {len(lines) + 1}: is a copy of an earlier line"):
        records(old)
    ended = first(old, op_code=6)
    note = first(old, op_code=8, trial_id=json.loads(lines[ended - 1])["trial_id"])
    old.write_bytes(b"\n".join([*lines[: note - 1], *lines[note:ended], lines[note - 1], *lines[ended:]]) + b"\n")
    with pytest.raises(DamagedJournalError, match=rf"line {ended}: names trial \d+, which has ended before"):
        records(old)


def test_after_the_lines_of_an_earlier_release_come_lines_with_checksums(old: Path) -> None:
    before, data = records(old), old.read_bytes()
    study = SweepStudy.open(old.parent)
    assert study is not None
    study.limits.trials_per_gpu = 2
    assert old.read_bytes().startswith(data)
    last = json.loads(old.read_bytes().splitlines()[-1])
    assert last[CHECK].split(" ")[2] == str(len(before) + 1)
    assert read_status(old.parent).counts["paused"] == 5


def test_other_programs_that_use_optuna_read_it_and_write_to_it(path: Path) -> None:
    theirs = JournalStorage(JournalFileBackend(str(path)))
    (study,) = theirs.get_all_studies()
    assert [trial.state for trial in theirs.get_all_trials(study._study_id)].count(TrialState.COMPLETE) == 2
    theirs.set_study_system_attr(study._study_id, "dashboard:note", "seen")
    ours = SweepStudy.open(path.parent)
    assert ours is not None
    ours.limits.trials_per_gpu = 3
    assert ours._storage.get_study_system_attrs(study._study_id) == {"dashboard:note": "seen"}
    assert len(records(path)) == len(path.read_bytes().splitlines())


def test_a_line_of_a_newer_program_is_no_damage(path: Path) -> None:
    before = b'{"op_code":99,"worker_id":"a-1","check":"%d 0123abcd 1 ' % (VERSION + 1)
    with open(path, "ab") as file:
        file.write(b'%s%08x"}\n' % (before, crc32(before)))
    with pytest.raises(InputError, match=r"has version 3, and this program reads up to 2; install a newer") as caught:
        read_status(path.parent)
    assert "gansweep repair" not in str(caught.value)


def test_a_journal_that_became_shorter_ends_its_reader(path: Path) -> None:
    journal = Journal(str(path))
    count = len(list(journal.read_logs(0)))
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(InputError, match="has become shorter"):
        journal.read_logs(count)


def test_it_is_read_from_any_record_on(path: Path) -> None:
    every, journal = records(path), Journal(str(path))
    for start in (0, 3, 3, len(every), 5, 0):
        assert list(journal.read_logs(start)) == every[start:]


def test_readers_beside_writers_see_no_damage(path: Path) -> None:
    program = """
import sys
from orchestrator.study.journal import Journal
journal = Journal(sys.argv[1])
for index in range(60):
    with open(sys.argv[1], "ab") as file:
        file.write(b'{"op_code":2,"worker_id":"cut')  # as a writer that dies
    journal.append_logs([{"op_code": 2, "worker_id": "a-1", "study_id": 0, "user_attr": {"x": "y" * index}}])
"""
    start = len(records(path))
    journal, seen = Journal(str(path)), 0
    with subprocess.Popen([sys.executable, "-c", program, str(path)]) as writer:
        while writer.poll() is None:
            seen += len(list(journal.read_logs(seen)))
    assert writer.returncode == 0
    assert seen + len(list(journal.read_logs(seen))) == start + 60


def test_a_checksum_costs_no_more_than_its_bytes(path: Path) -> None:
    plain = written([{"op_code": 2, "worker_id": "a-1"}], 0, 0)
    assert len(plain) - len(b'{"op_code":2,"worker_id":"a-1"}\n') <= 40
