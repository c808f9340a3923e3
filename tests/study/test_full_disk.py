"""A study whose file fails names it, and goes on as if nothing had happened once the file can be written again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli.app import open_study
from orchestrator.study.status import status_of
from orchestrator.study.study import SweepStudy
from tests.support import made_up
from tests.support.sweeps import REPOSITORY
from trainers.errors import fault_of_file

#: Drives a made-up sweep. No file may grow beyond the limit, as on a disk that is full; 0 for no limit.
CODE = f"""
import pathlib, resource, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from orchestrator.study.lease import hold_lease
from orchestrator.study.study import SweepStudy
from tests.support import made_up
from trainers.errors import fault_of_file
folder, limit, url = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] or None
study = SweepStudy.open(folder, url)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
try:
    with hold_lease(study.sweep.name, folder, study.lease_records) as lease:
        study.drive(lease)
        while (ticket := study.next_ticket()) is not None:
            for count in (1, 2, 3):
                study.report(ticket.number, made_up.history(3.0, 2.0, 1.0 + ticket.number)[:count])
except Exception as error:
    print(fault_of_file(error))
"""


def create(folder: Path, url: str | None) -> SweepStudy:
    folder.mkdir()
    return SweepStudy.create(folder, made_up.sweep("pruner=none", *([f"study.storage={url}"] if url else [])))


def drive(folder: Path, limit: int, url: str | None) -> str:
    """What a driver says about the file that failed; empty if none did."""
    command = [sys.executable, "-c", CODE, str(folder), str(limit), url or ""]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("database", [False, True], ids=["journal", "sqlite"])
def test_after_space_is_made_a_study_goes_on_to_its_exact_number_of_trials(tmp_path: Path, database: bool) -> None:
    folder, file = tmp_path / "made-up", tmp_path / ("study.db" if database else "made-up/study.journal")
    url = f"sqlite:///{file}" if database else None
    create(folder, url)
    for more in (0, 1) if database else (3_000, 7_000):
        said = drive(folder, file.stat().st_size + more, url)
        assert said.startswith(f"{file}: "), said
    assert 0 < len(open_study(folder, url).records()) < 5
    assert drive(folder, 0, url) == ""
    found = status_of(open_study(folder, url))
    assert (found.state, found.counts["complete"], len(found.records)) == ("complete", 5, 5)


@pytest.mark.parametrize("url", [None, "sqlite:///{}/study.db"])
def test_a_study_whose_file_was_deleted_under_it_names_the_file(tmp_path: Path, url: str | None) -> None:
    file = tmp_path / ("study.db" if url else "made-up/study.journal")
    study = create(tmp_path / "made-up", url and url.format(tmp_path))
    assert study.next_ticket() is not None
    file.unlink()
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        study.next_ticket()
    sentence = fault_of_file(caught.value)
    assert sentence is not None
    assert sentence.startswith(f"{file}: ")
    assert "\n" not in sentence


def test_a_mistake_of_the_program_is_no_fault_of_a_file(tmp_path: Path) -> None:
    for error in (OSError("neither a number nor a name"), ConnectionResetError(104, "Connection reset by peer")):
        assert fault_of_file(error) is None
    with pytest.raises(TypeError) as caught:
        read_or_mistake(tmp_path / "none")
    assert isinstance(caught.value.__context__, OSError)
    assert fault_of_file(caught.value) is None
    wrapped = RuntimeError("of a library")
    wrapped.__cause__ = FileNotFoundError(2, "No such file or directory", "/nowhere/file")
    assert fault_of_file(wrapped) == "/nowhere/file: No such file or directory"


def read_or_mistake(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        return "no file: " + error  # type: ignore[operator]  # the mistake
