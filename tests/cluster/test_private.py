"""Laws of what a driver's own Ray keeps on this machine: its folder, its token, its processes. No Ray is started."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from orchestrator.cluster import guard
from orchestrator.cluster.private import LOCK, PREFIX, place, private_folder, use_private_token
from trainers.errors import InputError

#: A driver that has a folder and a process of its Ray, names both, and goes on until it is killed or told to end.
DRIVER = """
import subprocess, sys
from orchestrator.cluster.private import private_folder
with private_folder() as folder:
    child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, start_new_session=True)
    (folder / "ray" / "session").mkdir(parents=True)
    print(folder, child.pid, flush=True)
    sys.stdin.readline()
print("out of the block", flush=True)
"""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files whose name leaves room for sockets."""
    with TemporaryDirectory(prefix="gs", dir="/tmp") as name:
        monkeypatch.delenv(guard.VARIABLE, raising=False)
        monkeypatch.setenv("TMPDIR", name)
        yield Path(name)


def started() -> tuple[subprocess.Popen[str], Path, int]:
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert driver.stdout is not None
    folder, child = driver.stdout.readline().split()
    return driver, Path(folder), int(child)


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(folder: Path, child: int) -> None:
    wait_for_end(child)
    end = time.monotonic() + 240
    while folder.exists():
        assert time.monotonic() < end, "its folder is left"
        time.sleep(0.05)


def wait_for_end(process: int) -> None:
    end = time.monotonic() + 240
    while lives(process):
        assert time.monotonic() < end, "it is left"
        time.sleep(0.05)


def test_the_folder_is_private_and_named_to_ray(short: Path) -> None:
    with private_folder() as folder:
        assert folder.parent == short
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / LOCK).stat().st_mode) == 0o600
        assert os.environ[guard.VARIABLE] == str(folder)
    assert guard.VARIABLE not in os.environ
    assert list(short.iterdir()) == []


def test_the_end_of_the_block_ends_the_processes_and_removes_the_folder(short: Path) -> None:
    driver, _, child = started()
    assert driver.communicate("\n", timeout=240)[0] == "out of the block\n"
    assert not lives(child)
    assert list(short.iterdir()) == []


def test_without_a_guard_the_driver_does_it_itself(short: Path) -> None:
    driver, folder, child = started()
    (guard_of_it,) = guards(folder)
    os.kill(guard_of_it, signal.SIGKILL)
    assert driver.communicate("\n", timeout=240)[0] == "out of the block\n"
    assert not lives(child)
    assert list(short.iterdir()) == []


def test_an_interrupted_driver_leaves_it_to_a_guard_that_takes_its_time(short: Path) -> None:
    driver, folder, child = started()
    (guard_of_it,) = guards(folder)
    os.kill(guard_of_it, signal.SIGSTOP)
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=240)
    assert lives(child)
    os.kill(guard_of_it, signal.SIGCONT)
    wait_until_gone(folder, child)


@pytest.mark.parametrize("whom", ["driver", "group"])
def test_so_does_the_death_of_the_driver(short: Path, whom: str) -> None:
    driver, folder, child = started()
    if whom == "driver":
        driver.kill()
    else:
        os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    wait_until_gone(folder, child)
    assert list(short.iterdir()) == []


def test_the_next_driver_removes_what_a_dead_one_has_left(short: Path) -> None:
    driver, folder, child = started()
    (guard_of_it,) = guards(folder)
    os.kill(guard_of_it, signal.SIGKILL)
    wait_for_end(guard_of_it)
    driver.kill()
    driver.communicate()
    assert folder.exists()
    assert lives(child)
    with private_folder():
        assert not folder.exists()
        assert not lives(child)


def test_a_process_that_has_named_itself_is_known_by_its_open_files(short: Path) -> None:
    with private_folder() as folder:
        with open(folder / "log", "w") as log:
            named, other = (
                subprocess.Popen([name, "600"], executable="/bin/sleep", env={}, stdout=log)
                for name in ("ray::DashboardAgent", "somebody's")
            )
            elsewhere = subprocess.Popen(["ray::IDLE", "600"], executable="/bin/sleep", env={})
        assert guard.processes(folder) == [named.pid]
    assert named.wait(240) == -signal.SIGKILL
    for each in (other, elsewhere):
        assert each.poll() is None
        each.kill()
        each.wait()


def guards(folder: Path) -> list[int]:
    found = subprocess.run(["pgrep", "-f", f"guard.py {folder}"], capture_output=True, text=True, check=True)
    return [int(line) for line in found.stdout.split()]


def test_it_removes_nothing_else(short: Path) -> None:
    driver, _, child = started()
    (short / f"{PREFIX}of-somebody").mkdir(0o700)
    (short / f"{PREFIX}open").mkdir()
    (short / f"{PREFIX}open").chmod(0o755)
    (short / f"{PREFIX}open" / LOCK).touch()
    (short / f"{PREFIX}file").touch()
    target = short / "target"
    target.mkdir(0o700)
    (target / LOCK).touch()
    (short / f"{PREFIX}link").symlink_to(target)
    linked = short / f"{PREFIX}linked"
    linked.mkdir(0o700)
    (linked / LOCK).symlink_to(target / LOCK)
    before = sorted(short.rglob("*"))
    with private_folder():
        pass
    assert sorted(short.rglob("*")) == before
    assert lives(child), "its driver is alive"
    driver.communicate("\n", timeout=240)


def test_a_folder_that_another_driver_is_removing_is_left_to_it(short: Path) -> None:
    left = short / f"{PREFIX}left"
    left.mkdir(0o700)
    with open(left / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with private_folder():
            assert left.exists()
    with private_folder():
        assert not left.exists()


@pytest.mark.parametrize("variable", ["TMPDIR", guard.VARIABLE])
def test_a_name_too_long_for_sockets_is_replaced_by_a_short_one(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / "ü" / ("scratch" * 12)
    long.mkdir(parents=True)
    monkeypatch.delenv(guard.VARIABLE, raising=False)
    monkeypatch.setenv(variable, str(long))
    with private_folder() as folder:
        assert folder.parent == Path("/tmp")
    assert not folder.exists()
    found, notice = place()
    assert found == Path("/tmp")
    assert notice == f"{variable}: {long} is too long for Ray's sockets: Ray's temporary files are in /tmp"
    assert list(long.iterdir()) == []


def test_each_length_of_a_name_leads_to_sockets_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(guard.VARIABLE, raising=False)
    with TemporaryDirectory(prefix="g", dir="/tmp") as name:
        chosen = []
        for length in range(1, 30):
            folder = Path(name) / ("x" * length)
            folder.mkdir()
            monkeypatch.setenv("TMPDIR", str(folder))
            chosen.append(place()[0] == folder)
            socket = (
                f"{place()[0]}/{PREFIX}12345678/ray/session_2026-01-01_00-00-00_123456_4194304/sockets/plasma_store"
            )
            assert len(os.fsencode(socket)) <= 107
        assert chosen == sorted(chosen, reverse=True)
        assert chosen[0]
        assert not chosen[-1]


@pytest.mark.parametrize("variable", ["TMPDIR", guard.VARIABLE])
@pytest.mark.parametrize("kind", ["missing", "file", "read-only"])
def test_a_folder_that_cannot_be_used_is_refused(
    variable: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"missing": tmp_path / "missing", "file": tmp_path / "file", "read-only": Path("/proc/self")}[kind]
    if kind == "file":
        wanted.touch()
    monkeypatch.delenv(guard.VARIABLE, raising=False)
    monkeypatch.setenv(variable, str(wanted))
    with pytest.raises(InputError, match=f"^{variable}: {wanted} cannot be used: .*; name a folder") as caught:
        place()
    assert "\n" not in str(caught.value)


def test_a_launch_without_a_usable_folder_starts_nothing(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    command = [sys.executable, "-m", "orchestrator.cli", "launch", "quickstart", "--root", str(tmp_path / "runs")]
    environment = {**os.environ, "TMPDIR": str(missing)}
    environment.pop(guard.VARIABLE, None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    reason = "No such file or directory; name a folder that can be written"
    assert done.stderr == f"error: TMPDIR: {missing} cannot be used: {reason}\n"
    assert not (tmp_path / "runs").exists()


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(guard.VARIABLE, "")
    monkeypatch.setenv("TMPDIR", "")
    assert place() == (Path("/tmp"), None)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_token_is_only_in_the_environment_and_stays_the_same(home: Path) -> None:
    use_private_token()
    token = os.environ["RAY_AUTH_TOKEN"]
    assert len(token) == 64
    use_private_token()
    assert os.environ["RAY_AUTH_TOKEN"] == token
    assert list(home.iterdir()) == []


def test_a_token_of_the_user_is_used_and_becomes_private(home: Path) -> None:
    file = home / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text("of the user")
    file.chmod(0o644)
    use_private_token()
    assert os.environ["RAY_AUTH_TOKEN"] == ""
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("variable", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_a_token_that_the_environment_names_is_left_alone(
    variable: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "given")
    before = dict(os.environ)
    use_private_token()
    assert dict(os.environ) == before
