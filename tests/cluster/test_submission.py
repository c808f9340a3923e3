"""A sweep as a job of a real Ray head with its job server: submitted twice, killed, submitted again."""

from __future__ import annotations

import http.client
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from orchestrator.cluster.jobs import submit
from orchestrator.paths import REPORT
from orchestrator.study.study import SweepStudy
from search_spaces.load import SweepFile
from tests.support import sweeps
from tests.support.servers import free_ports
from trainers.errors import InputError

TRIALS = 4
TEXT = sweeps.TINY.replace("pruner: {name: median, startup: 2}", "sampler: random\npruner: none").replace(
    "trials: 5", f"trials: {TRIALS}"
)
SHARED = "study: {shared: true}\nstore: {shared: true}\n"


@dataclass
class Head:
    """A running head."""

    dashboard: str
    client: str
    """Of its client server, ray://HOST:PORT."""


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:
    """`ray start --head` with its dashboard, on this machine alone."""
    gcs, dashboard, agent, client = free_ports(4)
    with TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        settings = {"RAY_TMPDIR": folder, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
        settings["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        # A job's `python` is the one on the head's path, where this program is installed.
        settings["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=2"]
        command += [f"--port={gcs}", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"]
        command += [f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
        command += [f"--ray-client-server-port={client}"]
        with open(Path(folder) / "head.log", "wb") as log:
            process = subprocess.Popen(command, env=dict(os.environ), stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until_it_answers(f"http://127.0.0.1:{dashboard}/api/version", process)
            wait_until_it_answers(f"http://127.0.0.1:{client}", process)  # it knows no HTTP
            yield Head(f"http://127.0.0.1:{dashboard}", f"ray://127.0.0.1:{client}")
        finally:
            process.terminate()
            process.wait(300)
            for log in Path(folder).glob("ray/session_latest/logs/ray_client_server*.err"):
                print(log.name, log.read_text()[-3000:])
            for job in jobs_of(process.pid):
                os.kill(job, signal.SIGKILL)


def jobs_of(session: int) -> list[int]:
    """Processes that are left of the head's session."""
    found = subprocess.run(["pgrep", "-s", str(session)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 300
    while True:
        assert process.poll() is None, "the head has ended"
        assert time.monotonic() < end, "the head's job server does not answer"
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except (urllib.error.HTTPError, http.client.HTTPException):  # it wants the token, or another protocol
            return
        except OSError:
            time.sleep(0.3)
        else:
            return


def drivers(root: Path) -> list[int]:
    """Processes that drive sweeps below `root`."""
    found = subprocess.run(
        ["pgrep", "-f", f"orchestrator.cli launch .*{root}"], capture_output=True, text=True, check=False
    )
    return [int(line) for line in found.stdout.split() if int(line) != os.getpid()]


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("mnist_mini_lenet")
def test_a_job_whose_driver_is_killed_goes_on_when_it_is_submitted_again(
    tmp_path: Path, cache_dir: Path, head: Head
) -> None:
    root = tmp_path / "runs"
    folder = root / "tiny"
    sweeps.prepare(tmp_path, cache_dir, TEXT + SHARED)
    command = ["submit", "tiny.yaml", "--address", head.dashboard, "--root", str(root)]
    first = sweeps.start(*command, cwd=tmp_path)
    sweeps.wait_for(lambda: sum(len(record.rungs) for record in sweeps.records(folder)) >= 3, first, timeout=600)
    again = sweeps.gansweep(*command, "--no-wait", cwd=tmp_path)
    assert again.returncode == 0
    assert "job gansweep-tiny-job1 is running already" in again.stdout, again.stdout + again.stderr
    for driver in drivers(root):
        os.kill(driver, signal.SIGKILL)
    said, _ = first.communicate(timeout=600)
    assert first.returncode == 1, said
    assert "job gansweep-tiny-job1 submitted" in said
    assert "the same command continues the sweep" in said
    before = sweeps.records(folder)

    resumed = sweeps.gansweep(*command, cwd=tmp_path, timeout=800)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "job gansweep-tiny-job2 submitted" in resumed.stdout
    assert f"tiny: complete; {TRIALS} complete" in resumed.stdout
    records = sweeps.records(folder)
    assert [record.state for record in records] == ["complete"] * TRIALS
    for old, new in zip(before, records, strict=False):
        assert new.rungs[: len(old.rungs)] == old.rungs


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("mnist_mini_lenet")
def test_a_job_that_is_stopped_ends_its_driver_cleanly(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", "300")
    monkeypatch.setenv("GANSWEEP_GRACE", "300")
    head: Head = request.getfixturevalue("head")  # after the settings, which its jobs inherit
    root = tmp_path / "runs"
    folder = root / "tiny"
    sweeps.prepare(tmp_path, cache_dir, TEXT.replace("until: 2", "until: 50") + SHARED)
    command = ["submit", "tiny.yaml", "--address", head.dashboard, "--root", str(root)]
    first = subprocess.Popen(
        [sys.executable, "-m", sweeps.COMMAND, *command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    sweeps.wait_for(lambda: any(record.rungs for record in sweeps.records(folder)), first)
    (driver,) = drivers(root)[-1:]
    stop = [str(Path(sys.executable).with_name("ray")), "job", "stop", "--address", head.dashboard, "--no-wait"]
    settings = {**os.environ, "RAY_AUTH_MODE": "token"}
    done = subprocess.run([*stop, "gansweep-tiny-job1"], env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said, _ = first.communicate(timeout=600)
    assert "job gansweep-tiny-job1 stopped; the same command continues the sweep" in said
    assert "stopped; `gansweep resume tiny" in said
    for words in ("Traceback", "*** SIG"):
        assert words not in said
    study = SweepStudy.open(folder)
    assert study is not None
    assert study.limits.claims[-1].state == "interrupted"
    assert not any(record.failures for record in study.records())
    assert (folder / REPORT).exists()
    assert driver not in drivers(root)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("mnist_mini_lenet")
def test_a_sweep_is_launched_from_elsewhere_by_way_of_a_ray_client(tmp_path: Path, cache_dir: Path, head: Head) -> None:
    root = tmp_path / "runs"
    sweeps.prepare(tmp_path, cache_dir, TEXT.replace(f"trials: {TRIALS}", "trials: 2") + SHARED)
    command = ["launch", "tiny.yaml", "--address", head.client, "--root", str(root)]
    done = sweeps.gansweep(*command, cwd=tmp_path, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "job gansweep-tiny-job1 submitted" in done.stdout
    assert "tiny: complete; 2 complete" in done.stdout
    assert [record.state for record in sweeps.records(root / "tiny")] == ["complete"] * 2
    (tmp_path / "tiny.yaml").write_text(TEXT)
    refused = sweeps.gansweep(*command, cwd=tmp_path, timeout=600)
    assert refused.returncode == 2
    assert "study.storage: a journal file is for one machine" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_sweep_of_one_machine_s_own_study_is_not_submitted(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TEXT)
    with pytest.raises(InputError, match=r"study\.storage: a journal file is for one machine"):
        submit(SweepFile.read(tmp_path / "tiny.yaml").sweep(), "http://127.0.0.1:8265")


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:8265", "head"])
def test_jobs_are_submitted_to_a_dashboard_alone(tmp_path: Path, address: str) -> None:
    (tmp_path / "tiny.yaml").write_text(TEXT + SHARED)
    with pytest.raises(InputError, match="jobs go to http://HOST:8265"):
        submit(SweepFile.read(tmp_path / "tiny.yaml").sweep(), address)


def test_a_dashboard_that_does_not_answer_is_told(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TEXT + SHARED)
    done = sweeps.gansweep("submit", "tiny.yaml", "--address", f"http://127.0.0.1:{free_ports(1)[0]}", cwd=tmp_path)
    assert done.returncode == 2
    assert "no job server answers there" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_on_the_cluster_is_absolute(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TEXT + SHARED)
    with pytest.raises(InputError, match="must be an absolute path"):
        submit(SweepFile.read(tmp_path / "tiny.yaml").sweep(), "http://127.0.0.1:1", Path("runs"))
