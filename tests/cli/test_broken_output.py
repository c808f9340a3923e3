"""Output that cannot be written: no command ends in a traceback, and none says that it printed what it did not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.study.storage import keep_sweep
from orchestrator.study.study import SweepStudy
from tests.support import made_up
from tests.support.sweeps import environment

#: Removes every wish for an encoding: what is left is ASCII.
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}
CALM = ("Traceback", "Exception ignored", "BrokenPipeError")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two complete sweeps; the trials of one are more text than a pipe holds."""
    root = tmp_path_factory.mktemp("outputs") / "runs"
    for name, trials, reason in (("short", 3, "nan"), ("long", 50, "nan " * 1000)):
        sweep = made_up.sweep("pruner=none", f"budget.trials={trials}").model_copy(update={"name": name})
        (root / name).mkdir(parents=True)
        study = SweepStudy.create(root / name, sweep)
        keep_sweep(root / name, study.sweep)
        while (ticket := study.next_ticket()) is not None:
            rungs = made_up.history(3.0, 2.0, 1.0 + ticket.number)
            bad = made_up.rung(2000, 0.0, diverged=reason)
            study.report(ticket.number, rungs if ticket.number < 2 else [rungs[0], bad])
    return root


def run(root: Path, line: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of bash in which `gansweep` is the command; its exit code is that of `gansweep`."""
    script = f'gansweep() {{ "{sys.executable}" -m orchestrator.cli "$@"; }}\n{line}\nexit ${{PIPESTATUS[0]}}'
    found: dict[str, Any] = {**environment(), "GANSWEEP_HOME": str(root), **settings}
    command = ["bash", "-c", script]
    done = subprocess.run(command, env=found, capture_output=True, text=True, timeout=600, check=False)
    for word in CALM:
        assert word not in done.stdout + done.stderr
    return done


@pytest.mark.parametrize("line", ["gansweep status long", "gansweep list systems"])
def test_a_reader_that_has_seen_enough_is_no_fault(root: Path, line: str) -> None:
    done = run(root, f"{line} | head -1")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("line", ["status short", "list datasets --json", "--help"])
def test_output_that_no_disk_takes_ends_a_command_that_has_no_other_result(root: Path, line: str) -> None:
    done = run(root, f"gansweep {line} > /dev/full")
    assert (done.returncode, done.stderr) == (2, "error: standard output: No space left on device\n")


def test_errors_that_nobody_can_read_leave_the_exit_code(root: Path) -> None:
    for streams in ("2> /dev/full", "> /dev/full 2>&1", ">&- 2>&- <&-"):
        done = run(root, f"gansweep status none {streams}")
        assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.slow
def test_a_closed_stream_is_given_to_no_file(root: Path) -> None:
    before = {path: path.read_bytes() for path in (root / "short").iterdir()}
    for streams in ("2>&-", "<&- >&- 2>&-"):
        done = run(root, f"gansweep add-trials short 0 {streams}; gansweep report short {streams}")
        assert "error" not in done.stdout  # what is said on standard error does not come on standard output instead
        assert done.returncode == 0
        assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("settings", [ASCII, {"PYTHONIOENCODING": "latin-1"}])
def test_characters_that_the_encoding_lacks_are_spelled_out(root: Path, settings: dict[str, str]) -> None:
    done = run(root, "gansweep status short | iconv -f latin1 -t utf8; gansweep list datasets; true", **settings)
    sign = "±" if "latin-1" in settings.values() else "+-"
    assert f"kid 1.000 {sign} 0.010" in done.stdout
    assert done.stderr == ""
    found = run(root, "gansweep status short --json", **settings)
    assert json.loads(found.stdout)["state"] == "complete"


def test_a_reader_that_comes_and_goes_late_is_served(root: Path) -> None:
    # A pipe that does not block, as some parents leave it: the writer waits for its reader.
    read, write = os.pipe()
    os.set_blocking(write, False)
    command = [sys.executable, "-m", "orchestrator.cli", "status", "long", "--root", str(root)]
    with subprocess.Popen(command, stdout=write, stderr=subprocess.PIPE, text=True) as process:
        os.close(write)
        with os.fdopen(read) as pipe:
            lines = pipe.read().splitlines()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 0
    assert len(lines) > 50
    assert sum(map(len, lines)) > 100_000


@pytest.mark.parametrize("place", ["/dev/full", "/proc/none/page.html", "FOLDER", "FILE/page.html"])
def test_a_report_that_cannot_be_written_is_one_line_and_leaves_nothing(root: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    path = place.replace("FOLDER", str(tmp_path / "folder")).replace("FILE", str(tmp_path / "file"))
    done = run(root, f"gansweep report short -o {path}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: /")
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_a_report_goes_through_devices_and_links(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link.html").symlink_to("target.html")
    assert run(root, f"gansweep report short -o {tmp_path}/link.html").returncode == 0
    assert (tmp_path / "link.html").is_symlink()
    page = (tmp_path / "target.html").read_text()
    assert page.startswith("<!doctype html>")
    printed = run(
        root, f"gansweep report short -o /dev/stdout > {tmp_path}/printed; gansweep report short -o /dev/null"
    )
    assert printed.returncode == 0
    assert (tmp_path / "printed").read_text() == f"{page}report: /dev/stdout\n"
    assert Path("/dev/null").is_char_device()
