"""The scripts of deploy/ do what they say, on stand-ins for what they call, and none of its files holds a secret."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.deploy.test_deploy import CHECKERS, DEPLOY, misused
from tests.support.sweeps import REPOSITORY

#: Notes its name and arguments, then does what the test says.
STAND_IN = '#!/bin/bash\necho "{name} $*" >> "$CALLS"\n{body}\n'
MPS_DAEMON = """
if [[ ${1:-} == -d ]]; then touch "$CUDA_MPS_PIPE_DIRECTORY/at-work"; exit; fi
read -r asked
echo "asked $asked" >> "$CALLS"
[[ -e $CUDA_MPS_PIPE_DIRECTORY/at-work ]] || exit 1
if [[ $asked == quit ]]; then rm "$CUDA_MPS_PIPE_DIRECTORY/at-work"; fi
"""


class Desk:
    """A machine whose programs are stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.calls = folder / "bin", folder / "calls"
        self.bin.mkdir()
        self.calls.touch()
        self.environment = {"PATH": f"{self.bin}:{os.environ['PATH']}", "HOME": str(folder), "CALLS": str(self.calls)}

    def put(self, name: str, body: str = "") -> None:
        (self.bin / name).write_text(STAND_IN.format(name=name, body=body))
        (self.bin / name).chmod(0o755)

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(DEPLOY / script), *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300, check=False)

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_mps_starts_once_and_ends_once(desk: Desk, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    desk.environment["CUDA_MPS_PIPE_DIRECTORY"] = str(pipe)
    desk.put("nvidia-cuda-mps-control", MPS_DAEMON)
    assert desk.run("mps.sh", "status").returncode == 1
    assert desk.run("mps.sh", "stop").returncode == 0
    first, second = desk.run("mps.sh", "start"), desk.run("mps.sh", "start")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "already" in second.stdout
    assert desk.called().count("nvidia-cuda-mps-control -d") == 1
    assert pipe.stat().st_mode & 0o777 == 0o700
    assert (pipe / "log").is_dir()
    assert desk.run("mps.sh", "status").returncode == 0
    assert [desk.run("mps.sh", "stop").returncode for _ in range(2)] == [0, 0]
    assert desk.called().count("asked quit") == 1


def test_mps_says_what_is_missing_or_wrong(desk: Desk) -> None:
    without = desk.run("mps.sh", "start")
    assert (without.returncode, "comes with Nvidia's driver" in without.stderr) == (1, True)
    desk.put("nvidia-cuda-mps-control", "[[ ${1:-} == -d ]] || exit 1")
    assert "does not answer" in desk.run("mps.sh", "start").stderr
    assert "expected start, stop, status or env, got 'strat'" in desk.run("mps.sh", "strat").stderr
    assert f"/tmp/nvidia-mps-{os.getuid()}" in desk.run("mps.sh", "env").stdout


def test_leaving_tells_ray_and_waits_no_longer_than_it_is_told(desk: Desk) -> None:
    desk.put("ray")
    desk.put("grep")  # finds a raylet that never ends
    assert desk.run("leave.sh", "1").returncode == 0
    call, *looked = desk.called()
    assert looked
    assert all(line.startswith("grep -qs ^raylet$ /proc/") for line in looked)
    assert "--reason DRAIN_NODE_REASON_PREEMPTION" in call
    assert call.endswith("--deadline-remaining-seconds 1")


#: Runs the step's command here, as each node would.
SRUN = 'while [[ $1 == --* ]]; do shift; done\n"$@"'


@pytest.fixture
def slurm(desk: Desk, tmp_path: Path) -> Desk:
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/activate").touch()
    desk.environment |= {
        "GANSWEEP_VENV": str(tmp_path / "venv"),
        "GANSWEEP_HOME": str(tmp_path / "runs"),
        "GANSWEEP_HEAD": "10.0.0.7",
        "SLURM_JOB_ID": "42",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_GPUS_ON_NODE": "4",
    }
    desk.put("srun", SRUN)
    desk.put("scontrol")
    desk.put("gansweep")
    desk.put("ray")
    return desk


def test_a_slurm_job_runs_the_sweep_on_all_its_nodes(slurm: Desk, tmp_path: Path) -> None:
    done = slurm.run("slurm.sh", "my-sweep.yaml", "digits")
    assert done.returncode == 0, done.stderr
    (symmetric,) = [line.split() for line in slurm.called() if line.startswith("ray symmetric-run")]
    split, driver = symmetric.index("--"), symmetric.index("gansweep")
    assert symmetric[2:split][:4] == ["--address", "10.0.0.7:6379", "--min-nodes", "2"]
    assert misused(["ray", "start", *symmetric[6:split]]) == ""
    assert misused(symmetric[driver:]) == ""
    assert symmetric[driver : driver + 3] == ["gansweep", "launch", "my-sweep.yaml"]
    assert not [line for line in slurm.called() if line.startswith("scontrol")]


@pytest.mark.parametrize(("driver", "ray", "expected"), [(0, 1, 0), (2, 0, 2), (None, 3, 3), (None, 0, 0)])
def test_a_slurm_job_ends_with_the_code_of_its_driver(slurm: Desk, driver: int | None, ray: int, expected: int) -> None:
    slurm.put("gansweep", f"exit {driver}")
    drives = "" if driver is None else 'until [[ $1 == -- ]]; do shift; done\nshift\n"$@"'
    slurm.put("ray", f"[[ $1 == symmetric-run ]] || exit 0\n{drives}\nexit {ray}")
    done = slurm.run("slurm.sh", "my-sweep.yaml", "digits")
    assert done.returncode == expected, done.stderr


def test_a_slurm_job_needs_a_file_and_a_name(slurm: Desk) -> None:
    assert "expected: sbatch" in slurm.run("slurm.sh", "my-sweep.yaml").stderr


def test_a_slurm_job_whose_time_is_up_pauses_its_sweep_and_is_queued_again(slurm: Desk, tmp_path: Path) -> None:
    paused = tmp_path / "paused"
    # The sweep is at work until it is asked to pause.
    slurm.put("ray", f"[[ $1 != symmetric-run ]] || until [[ -e {paused} ]]; do sleep 0.05; done")
    slurm.put("gansweep", f"touch {paused}")
    command = [str(DEPLOY / "slurm.sh"), "my-sweep.yaml", "digits"]
    job = subprocess.Popen(command, env=slurm.environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while not any(line.startswith("ray symmetric-run") for line in slurm.called()):
            assert job.poll() is None
            time.sleep(0.05)
        job.send_signal(signal.SIGUSR1)
        assert job.wait(300) == 0
    finally:
        os.killpg(job.pid, signal.SIGKILL)  # the last resort is asleep still
    pause = f"gansweep pause digits --root {tmp_path / 'runs'}"
    assert slurm.called()[-2:] == [pause, "scontrol requeue 42"]
    assert misused(pause.split()) == ""


def test_the_options_of_slurm_are_options_of_sbatch() -> None:
    given = re.findall(r"^#SBATCH --([a-z-]+)", (DEPLOY / "slurm.sh").read_text(), flags=re.MULTILINE)
    known = {"cpus-per-task", "exclusive", "gpus-per-node", "job-name", "mem", "nodes", "ntasks-per-node"}
    known |= {"open-mode", "output", "requeue", "signal", "time"}
    assert set(given) == known


#: What keys look like, and what stands where a value would: no variable, file or default's mark.
SECRETS = (
    r"\b(AKIA|ASIA)[A-Z0-9]{16}\b",
    r"BEGIN [A-Z ]*PRIVATE KEY",
    r"\b[0-9a-fA-F]{32,}\b",
    r"(?<![\w/+])[A-Za-z0-9+/]{40}(?![\w/+=])",
    r"://[^/\s:@]+:[^/\s:@$]+@",
    r"(?i)(passw(or)?d|secret_access_key|access_key_id|_token)['\"]?[:=] *['\"]?[^\s'\",$?~/][^\s'\",]+",
)


def secrets_in(text: str) -> list[str]:
    return [found[0] for pattern in SECRETS for found in re.finditer(pattern, text)]


@pytest.mark.parametrize("name", CHECKERS)
def test_no_file_holds_a_secret(name: str) -> None:
    assert secrets_in((DEPLOY / name).read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "AWS_SECRET_ACCESS_KEY=hunter2hunter2",
        'RAY_AUTH_TOKEN: "0f1e2d3c"',
        "storage: postgresql://gansweep:hunter2@postgres/gansweep",
        "key AKIAABCDEFGHIJKLMNOP",
        "--master-user-password=hunter2",
        "token is 0123456789abcdef0123456789abcdef",
    ],
)
def test_a_secret_would_be_found(line: str) -> None:
    assert secrets_in(f"before\n{line}\n") != []


def test_git_keeps_the_file_of_secrets_out() -> None:
    ignored = subprocess.run(["git", "check-ignore", "deploy/.env"], cwd=REPOSITORY, capture_output=True, check=False)
    assert ignored.returncode == 0
