"""A sweep as a job of a Ray cluster: the driver runs there, and whoever submits it may go away."""

from __future__ import annotations

import logging
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orchestrator.cluster.nodes import CLIENT, check_client, check_shared
from search_spaces.sweep import Sweep, read_kept
from trainers.errors import InputError

_PREFIX = "gansweep-"
_FILE, _SWEEP = "sweep.yaml", "sweep"
#: Seconds between two looks at a job.
_LOOK = 1.0
#: Of a job that is at work or soon will be.
_UNDER_WAY = ("PENDING", "RUNNING")


@dataclass(frozen=True)
class Submitted:
    """A job of a sweep."""

    id: str
    new: bool
    """Whether it was submitted now; else it was at work already."""


def run(sweep: Sweep, address: str, root: Path | None, say: Callable[[str], object], wait: bool = True) -> bool:
    """Has the cluster at `address` drive `sweep`, and shows what the job prints until it ends, or until Ctrl-C.

    Whether it did not fail. Arguments and errors as of `server` and `submit`.
    """
    with server(address) as jobs:
        job = jobs.submit(sweep, root)
        say(f"job {job.id} {'submitted' if job.new else 'is at work already'}; Ctrl-C leaves it at work")
        try:
            outcome = jobs.follow(job.id, say) if wait else "SUCCEEDED"
        except KeyboardInterrupt:
            return True
    if outcome != "SUCCEEDED":
        say(f"job {job.id} {outcome.lower()}; the same command goes on with the sweep")
    return outcome == "SUCCEEDED"


def submit(sweep: Sweep, address: str, root: Path | None = None) -> Submitted:
    """Has the cluster whose dashboard is at `address`, http://HOST:8265, drive `sweep`.

    `root` is the folder of sweeps on the cluster, by default $GANSWEEP_HOME there, else one that ends with the job.

    There is one job of a sweep at a time: while one is at work, nothing is submitted. After it has ended, however that
    was, the next one goes on with the same sweep, since launching one that exists does. Raises InputError where the
    cluster does not answer, or where the sweep's study or store would be one machine's own.
    """
    if not re.fullmatch(r"https?://\S+", address):
        text = "a job is submitted to http://HOST:8265, the cluster's dashboard, or through ray://HOST:10001"
        raise InputError(f"--address {address}: {text}")
    check_shared(sweep)
    if root is not None and not root.is_absolute():
        raise InputError(f"--root {root}: on another machine a folder must be given from / on")
    client = _client(address)
    jobs = _jobs_of(sweep, client)
    if under_way := [name for name, status in jobs.items() if status in _UNDER_WAY]:
        return Submitted(under_way[-1], new=False)
    name = f"{_PREFIX}{sweep.name}-job{len(jobs) + 1}"
    with TemporaryDirectory() as folder:
        (Path(folder) / _FILE).write_text(sweep.as_written())
        command = ["python", "-m", "orchestrator.cli", "launch", _FILE, "--address", "auto"]
        command += [] if root is None else ["--root", str(root)]
        try:
            client.submit_job(
                entrypoint=shlex.join(command),
                submission_id=name,
                runtime_env={"working_dir": folder},
                metadata={_SWEEP: sweep.name},
            )
        except RuntimeError as error:
            if name in _jobs_of(sweep, client):  # another one was as quick
                return Submitted(name, new=False)
            raise InputError(f"--address {address}: the cluster refused the job: {_reason(error)}") from None
    return Submitted(name, new=True)


def look(address: str, job: str, told: int) -> tuple[str, str]:
    """The state of a job, and what it has printed behind the first `told` characters."""
    client = _client(address)
    status = str(client.get_job_status(job).value)  # before its output, which is whole then where it has ended
    return status, str(client.get_job_logs(job))[told:]


@dataclass(frozen=True)
class Server:
    """A cluster's job server, and how it is reached."""

    submit: Callable[[Sweep, Path | None], Submitted]
    look: Callable[[str, int], tuple[str, str]]

    def follow(self, job: str, say: Callable[[str], object]) -> str:
        """Passes on what a job prints until it ends; returns its status: SUCCEEDED, FAILED or STOPPED."""
        told = 0
        while True:
            status, text = self.look(job, told)
            if text:
                say(text.rstrip("\n"))
                told += len(text)
            if status not in _UNDER_WAY:
                return status
            time.sleep(_LOOK)


@contextmanager
def server(address: str) -> Iterator[Server]:
    """The job server at http://HOST:8265, or that of the cluster whose client server is at ray://HOST:10001.

    Through a Ray client only the head is asked to do the same: a driver stays where its study is, which Tune through a
    client would not. Raises InputError, within 10 s, where that needs Ray's extra or where nothing answers.
    """
    if not address.startswith(CLIENT):
        yield Server(lambda sweep, root: submit(sweep, address, root), partial(look, address))
        return
    check_client(address)
    _use_token()
    import ray
    from ray.exceptions import RayTaskError

    with ray.init(address, log_to_driver=False, logging_level=logging.ERROR) as context:
        if not context.dashboard_url:
            raise InputError(f'--address {address}: the cluster has no job server: its head needs "ray[default]"')
        there = f"http://{context.dashboard_url}"
        on_head = ray.remote(num_cpus=0, resources={"node:__internal_head__": 0.001})

        def ask(function: Callable[..., Any], *arguments: Any) -> Any:
            try:
                return ray.get(on_head(function).remote(*arguments))
            except RayTaskError as error:
                if isinstance(error.cause, InputError):
                    raise InputError(str(error.cause)) from None
                raise

        yield Server(
            lambda sweep, root: ask(_submit_text, sweep.as_written(), there, root), lambda *job: ask(look, there, *job)
        )


def _submit_text(sweep: str, address: str, root: Path | None) -> Submitted:
    return submit(read_kept(sweep), address, root)


def _client(address: str) -> Any:
    _use_token()
    try:
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise InputError(f'submit needs Ray\'s job client: pip install "ray[default]" ({error})') from None
    for name in ("job.sdk", "dashboard_sdk"):  # they tell of each step
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
    logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.WARNING)
    try:
        return JobSubmissionClient(address)
    except AuthenticationError:
        text = "the cluster wants its token: set RAY_AUTH_TOKEN, or put it into ~/.ray/auth_token, as the head has it"
        raise InputError(f"--address {address}: {text}") from None
    except (ConnectionError, RuntimeError) as error:
        raise InputError(f"--address {address}: no job server answers there: {_reason(error)}") from None


def _use_token() -> None:
    """Has a Ray that is imported after this show the token that this machine has, as Ray's own commands do."""
    places = [os.environ.get("RAY_AUTH_TOKEN_PATH"), Path.home() / ".ray" / "auth_token"]
    if os.environ.get("RAY_AUTH_TOKEN") or any(place and Path(place).is_file() for place in places):
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _jobs_of(sweep: Sweep, client: Any) -> dict[str, str]:
    """Ids and states of the sweep's jobs, oldest first."""
    mine = [job for job in client.list_jobs() if job.submission_id and (job.metadata or {}).get(_SWEEP) == sweep.name]
    return {job.submission_id: str(job.status.value) for job in sorted(mine, key=lambda job: job.start_time or 0)}


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
