"""Laws of the journal: what was acknowledged is there, whatever befell its writers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import JournalStorage

from orchestrator.study import journal
from orchestrator.study.journal import Journal
from trainers.errors import InputError

RECORDS = [{"op_code": index, "text": "ä\n" * index} for index in range(6)]


def written(path: Path) -> list[dict[str, object]]:
    return list(Journal(str(path)).read_logs(0))


@given(cut=st.integers(min_value=0, max_value=200), more=st.lists(st.text(max_size=5), min_size=1, max_size=3))
def test_a_line_that_was_cut_anywhere_costs_itself_alone(cut: int, more: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.journal"
        Journal(str(path)).append_logs(RECORDS)
        content = path.read_bytes()[:-cut] if cut else path.read_bytes()
        path.write_bytes(content)
        whole = content.count(b"\n")
        assert written(path) == RECORDS[:whole]
        added = [{"op_code": 9, "text": text} for text in more]
        Journal(str(path)).append_logs(added)
        assert written(path) == RECORDS[:whole] + added


def test_a_long_line_without_an_end_is_cut_off_whole(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    Journal(str(path)).append_logs(RECORDS[:1])
    with open(path, "ab") as file:
        file.write(b'{"op_code":8,"text":"' + b"x" * 10_000)
    Journal(str(path)).append_logs(RECORDS[1:2])
    assert written(path) == RECORDS[:2]


def test_of_a_full_disk_nothing_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    Journal(str(path)).append_logs(RECORDS)
    before = path.read_bytes()
    # Files may grow by ten bytes more: the line is written in part, as on a disk that is full.
    program = f"""
import resource, signal
from orchestrator.study.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 10}, {len(before) + 10}))
try:
    Journal({str(path)!r}).append_logs([{{"op_code": 9, "text": "longer than ten bytes"}}])
except OSError as error:
    print(error.errno)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip(), "the disk was not full"
    assert path.read_bytes() == before


def _holder(path: Path) -> subprocess.Popen[str]:
    program = "import fcntl, sys, time; f = open(sys.argv[1], 'r+b'); fcntl.flock(f, 2); print(1, flush=True)"
    process = subprocess.Popen(
        [sys.executable, "-c", program + "; time.sleep(600)", str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_dead_writer_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.journal"
    Journal(str(path)).append_logs(RECORDS[:1])
    monkeypatch.setattr(journal, "PATIENCE", 0.2)
    with _holder(path) as holder:
        with pytest.raises(InputError, match=r"study\.journal: another process has kept it locked"):
            Journal(str(path)).append_logs(RECORDS[1:2])
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        Journal(str(path)).append_logs(RECORDS[1:2])
    assert written(path) == RECORDS[:2]


def test_writers_side_by_side_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    Journal(str(path)).append_logs([])
    program = """
import sys
from orchestrator.study.journal import Journal
journal = Journal(sys.argv[1])
for index in range(50):
    journal.append_logs([{"op_code": 9, "writer": int(sys.argv[2]), "index": index}])
"""
    writers = [subprocess.Popen([sys.executable, "-c", program, str(path), str(number)]) for number in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    found = written(path)
    for number in range(3):
        assert [line["index"] for line in found if line["writer"] == number] == list(range(50))


def test_optuna_s_own_backend_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = optuna.create_study(storage=JournalStorage(Journal(str(path))), study_name="one")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    theirs = JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    assert len(optuna.load_study(study_name="one", storage=theirs).trials) == 3
    assert all(json.loads(line) for line in path.read_text().splitlines())
