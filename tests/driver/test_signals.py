"""A real sweep after SIGTERM and SIGHUP, to the driver alone and to all processes, at any time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from orchestrator.paths import REPORT
from orchestrator.study.lease import Claim, clock
from orchestrator.study.study import SweepStudy
from search_spaces.load import SweepFile
from tests.support import sweeps

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("mnist_mini_lenet")]

TRIALS, RUNGS = 3, 12
TEXT = (
    sweeps.TINY.replace("pruner: {name: median, startup: 2}", "pruner: none")
    .replace("trials: 5", f"trials: {TRIALS}")
    .replace("until: 2", f"until: {RUNGS / 2:g}")
)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for the temporary files of a sweep, short enough for Ray's sockets."""
    with TemporaryDirectory(prefix="gs", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield Path(name)


def start(tmp_path: Path, cache: Path, temporary: Path, text: str = TEXT, **settings: str) -> subprocess.Popen[str]:
    sweeps.prepare(tmp_path, cache, text)
    return sweeps.start("launch", "tiny.yaml", cwd=tmp_path, settings={"TMPDIR": str(temporary), **settings})


def wait_for_a_rung(tmp_path: Path, driver: subprocess.Popen[str]) -> None:
    sweeps.wait_for(lambda: any(record.rungs for record in sweeps.records(tmp_path / "runs" / "tiny")), driver)


def said_until(driver: subprocess.Popen[str], words: str) -> str:
    """What the driver prints up to the line that has `words`."""
    assert driver.stdout is not None
    said = ""
    for line in driver.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(said)


def session(leader: int) -> list[int]:
    found = subprocess.run(["pgrep", "-s", str(leader)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def driver_alone(driver: subprocess.Popen[str], number: signal.Signals) -> None:
    driver.send_signal(number)


def group(driver: subprocess.Popen[str], number: signal.Signals) -> None:
    """Ray's servers are in the driver's process group."""
    os.killpg(driver.pid, number)


def everybody(driver: subprocess.Popen[str], number: signal.Signals) -> None:
    """As a batch system does it; trials are in groups of their own."""
    for process in session(driver.pid):
        os.kill(process, number)


def check_end(driver: subprocess.Popen[str], code: int, temporary: Path) -> str:
    """The driver has ended with this code, quietly, and nothing is left of its Ray; returns what it said."""
    said, _ = driver.communicate(timeout=600)
    assert driver.returncode == code, said
    for words in ("Traceback", "***", "[failure_signal_handler"):  # the last two are of Ray's dump
        assert words not in said
    sweeps.wait_for_the_last_process(driver)
    assert not list(temporary.glob("gansweep-*"))
    return said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "whom"),
    [
        (signal.SIGTERM, 143, everybody),
        (signal.SIGTERM, 143, driver_alone),
        (signal.SIGTERM, 143, group),
        (signal.SIGHUP, 129, driver_alone),
        (signal.SIGHUP, 129, group),
        (signal.SIGINT, 130, driver_alone),
    ],
)
def test_a_signal_ends_a_sweep_cleanly_and_resume_goes_on(
    number: signal.Signals,
    code: int,
    whom: Callable[[subprocess.Popen[str], signal.Signals], None],
    tmp_path: Path,
    cache_dir: Path,
    temporary: Path,
) -> None:
    driver = start(tmp_path, cache_dir, temporary, GANSWEEP_GRACE="300")
    wait_for_a_rung(tmp_path, driver)
    whom(driver, number)
    said = check_end(driver, code, temporary)
    assert said.rstrip().splitlines()[-1].startswith("stopped; `gansweep resume tiny ")
    folder = tmp_path / "runs" / "tiny"
    study = SweepStudy.open(folder)
    assert study is not None
    assert [claim.state for claim in study.limits.claims] == ["interrupted"]
    before = study.records()
    assert not any(record.failures for record in before), said
    assert "trial" in (folder / REPORT).read_text()

    resumed = sweeps.gansweep("resume", "tiny", cwd=tmp_path, settings={"TMPDIR": str(temporary)})
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    after = sweeps.records(folder)
    assert [record.state for record in after] == ["complete"] * TRIALS
    for old, new in zip(before, after, strict=False):
        assert new.rungs[: len(old.rungs)] == old.rungs
        assert [rung.images for rung in new.rungs] == [500 * (index + 1) for index in range(RUNGS)]
    assert not list(temporary.glob("gansweep-*"))


@pytest.mark.parametrize(
    "words",
    [
        "sweep tiny: budget",  # Ray, tracker and extractor are being started
        pytest.param("extractor ", marks=pytest.mark.slow),  # the first trials are
    ],
)
def test_a_signal_while_the_sweep_begins_leaves_nothing(
    words: str, tmp_path: Path, cache_dir: Path, temporary: Path
) -> None:
    driver = start(tmp_path, cache_dir, temporary, GANSWEEP_GRACE="300")
    said_until(driver, words)
    group(driver, signal.SIGTERM)
    assert "stopped; `gansweep resume tiny" in check_end(driver, 143, temporary)
    assert not any(record.failures for record in sweeps.records(tmp_path / "runs" / "tiny"))


@pytest.mark.slow
def test_a_signal_while_the_extractor_is_trained_is_not_waited_for(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "nothing").mkdir()
    text = TEXT.replace("score: {", "score: {extractor: {name: cnn}, ")
    driver = start(tmp_path, tmp_path / "nothing", temporary, text, GANSWEEP_GRACE="300")
    said_until(driver, "sweep tiny: budget")
    # With the folder of its process Ray is there, and what is missing now is the extractor.
    sweeps.wait_for(lambda: bool(list(temporary.glob("gansweep-*/ray/session_latest/sockets/raylet"))), driver)
    driver.send_signal(signal.SIGTERM)
    check_end(driver, 143, temporary)


def test_a_signal_while_the_driver_waits_for_a_lease(tmp_path: Path, cache_dir: Path, temporary: Path) -> None:
    sweeps.prepare(tmp_path, cache_dir, TEXT)
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir()
    study = SweepStudy.create(folder, SweepFile.read(tmp_path / "tiny.yaml").sweep())
    elsewhere = Claim(1, "elsewhere:1:abc", "another machine", 600.0, clock(), 0.0)
    study.lease_records.renew(elsewhere)
    driver = start(tmp_path, cache_dir, temporary)
    said_until(driver, "waiting up to 600 s")
    driver.send_signal(signal.SIGHUP)
    check_end(driver, 129, temporary)
    study.refresh()
    assert list(study.limits.claims) == [elsewhere], "the claim of the other machine is as it was"


@pytest.mark.slow
@pytest.mark.parametrize("grace", ["0.1", "300"])
def test_a_driver_that_must_end_at_once_leaves_no_process(
    grace: str, tmp_path: Path, cache_dir: Path, temporary: Path
) -> None:
    driver = start(tmp_path, cache_dir, temporary, GANSWEEP_GRACE=grace)
    wait_for_a_rung(tmp_path, driver)
    driver.send_signal(signal.SIGTERM)
    if grace == "300":
        time.sleep(0.5)  # signals of one moment are one
        driver.send_signal(signal.SIGTERM)
    driver.communicate(timeout=600)
    assert driver.returncode == 143
    sweeps.wait_for_the_last_process(driver)
    # It could not wait for its guard.
    wait_until(lambda: not list(temporary.glob("gansweep-*")), "its folder is left")


@pytest.mark.slow
def test_a_driver_whose_ray_is_dead_already_ends_cleanly(tmp_path: Path, cache_dir: Path, temporary: Path) -> None:
    """A signal to all processes ends Ray's servers too, perhaps while the driver waits for an answer of them."""
    driver = start(tmp_path, cache_dir, temporary)
    wait_for_a_rung(tmp_path, driver)
    servers = subprocess.run(["pgrep", "-s", str(driver.pid), "gcs_server"], capture_output=True, text=True, check=True)
    os.kill(int(servers.stdout), signal.SIGKILL)
    time.sleep(10)  # by now the driver asks it, and would wait for a minute
    assert driver.poll() is None
    driver.send_signal(signal.SIGTERM)
    assert "stopped; `gansweep resume tiny" in check_end(driver, 143, temporary)
    study = SweepStudy.open(tmp_path / "runs" / "tiny")
    assert study is not None
    assert [claim.state for claim in study.limits.claims] == ["interrupted"]
    assert (study.folder / REPORT).exists()


@pytest.mark.slow
def test_a_signal_to_everybody_but_the_driver_ends_nothing(tmp_path: Path, cache_dir: Path, temporary: Path) -> None:
    """One that reaches Ray's servers first must not end them: Ray ends a driver that calls a dead server."""
    driver = start(tmp_path, cache_dir, temporary)
    wait_for_a_rung(tmp_path, driver)
    others = [process for process in session(driver.pid) if process != driver.pid]
    assert len(others) > 4
    for process, number in product(others, (signal.SIGTERM, signal.SIGHUP)):
        os.kill(process, number)
    check_end(driver, 0, temporary)
    assert [record.failures for record in sweeps.records(tmp_path / "runs" / "tiny")] == [()] * TRIALS


def wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    end = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.1)


#: Runs the command of its arguments in a terminal, and closes it when a trial has passed a rung.
TERMINAL = """
import os, pty, sys
process, terminal = pty.fork()
if process == 0:
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
shown = b""
while b"0.5" not in shown:
    shown += os.read(terminal, 65536)
os.close(terminal)
print(process, os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""


@pytest.mark.slow
def test_a_terminal_that_is_closed_ends_the_sweep_cleanly(tmp_path: Path, cache_dir: Path, temporary: Path) -> None:
    sweeps.prepare(tmp_path, cache_dir, TEXT)
    done = subprocess.run(
        [sys.executable, "-c", TERMINAL, "-m", sweeps.COMMAND, "launch", "tiny.yaml"],
        cwd=tmp_path,
        env={**sweeps.environment(), "TMPDIR": str(temporary), "GANSWEEP_GRACE": "300", "TERM": "xterm"},
        capture_output=True,
        text=True,
        check=True,
    )
    process, code = map(int, done.stdout.split())
    assert code == 129
    wait_until(lambda: not session(process), "processes are left")
    assert not list(temporary.glob("gansweep-*"))
    study = SweepStudy.open(tmp_path / "runs" / "tiny")
    assert study is not None
    assert study.limits.claims[-1].state == "interrupted"
    assert not any(record.failures for record in study.records())
    assert (study.folder / REPORT).exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nohup") is None, reason="there is no nohup")
def test_under_nohup_a_sweep_outlives_its_terminal(tmp_path: Path, cache_dir: Path, temporary: Path) -> None:
    sweeps.prepare(tmp_path, cache_dir, TEXT)
    program = "import os, sys; os.execvp('nohup', ['nohup', sys.executable, '-m', 'orchestrator.cli', *sys.argv[1:]])"
    (tmp_path / "under_nohup.py").write_text(program)
    driver = sweeps.start(
        "launch",
        "tiny.yaml",
        cwd=tmp_path,
        module="under_nohup",
        settings={"TMPDIR": str(temporary), "PYTHONPATH": f"{tmp_path}:{sweeps.REPOSITORY}"},
    )
    wait_for_a_rung(tmp_path, driver)
    group(driver, signal.SIGHUP)
    said, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, said
    assert [record.state for record in sweeps.records(tmp_path / "runs" / "tiny")] == ["complete"] * TRIALS


@pytest.mark.slow
def test_what_an_interrupted_end_did_not_write_is_written_by_the_next_launch(
    tmp_path: Path, cache_dir: Path, temporary: Path
) -> None:
    sweeps.prepare(tmp_path, cache_dir, TEXT)
    done = sweeps.gansweep("launch", "tiny.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "tiny"
    study = SweepStudy.open(folder)
    assert study is not None
    study.lease_records.renew(replace(study.limits.claims[-1], state="interrupted"))
    (folder / REPORT).unlink()
    again = sweeps.gansweep("launch", "tiny.yaml", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (folder / REPORT).exists()
    assert "is complete" in sweeps.in_process("launch", "tiny.yaml", cwd=tmp_path).stdout


def test_other_commands_end_quietly(tmp_path: Path) -> None:
    options = ["--set", "batch=50", "--kimg", "100", "--every", "0.5", "--out", str(tmp_path / "out")]
    command = sweeps.start("train", "narman-cgan", *options, cwd=tmp_path)
    said = said_until(command, "kimg done")
    command.send_signal(signal.SIGTERM)
    rest, _ = command.communicate(timeout=600)
    assert command.returncode == 143, said + rest
    assert "Traceback" not in rest
