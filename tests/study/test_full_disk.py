"""A study whose file fails names it, and goes on as if nothing had happened once the file can be written again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli.app import open_study
from orchestrator.study.requests import Request
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


@pytest.mark.parametrize("database", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["journal", "sqlite"])
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


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A root with a sweep on a disk that may only be read."""
    root = tmp_path / "runs"
    root.mkdir()
    create(root / "made-up", None).next_ticket()
    for options in (["--bind"], ["-o", "remount,bind,ro"]):
        if subprocess.run(["mount", *options, str(root), str(root)], check=False).returncode:
            pytest.skip("only root may mount a disk")
    yield root
    subprocess.run(["umount", "--lazy", str(root)], check=True)


def test_on_a_disk_that_may_only_be_read_a_study_is_read_and_a_write_names_its_file(read_only: Path) -> None:
    study = open_study(read_only / "made-up")
    assert [record.state for record in status_of(study).records] == ["running"]
    with pytest.raises(OSError, match="Read-only file system") as caught:
        study.limits.request(Request("add-trials", trials=1))
    assert fault_of_file(caught.value) == f"{study.folder}/study.journal: Read-only file system"


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
