"""A sweep as a job of a Ray cluster: the driver runs on the cluster, and the submitting process may end."""

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

from orchestrator.cluster.nodes import CLIENT, check_client, check_shared, refuse_secrets
from search_spaces.addresses import reason
from search_spaces.sweep import Sweep, read_kept
from trainers.errors import InputError

_PREFIX = "gansweep-"
_FILE, _SWEEP = "sweep.yaml", "sweep"
#: Seconds between two requests for the state of a job.
_POLL = 1.0
#: States of a job that has not ended.
_UNDER_WAY = ("PENDING", "RUNNING")


@dataclass(frozen=True)
class Submitted:
    """A job that drives a sweep."""

    id: str
    new: bool
    """Whether it was submitted now, or was running already."""


def run(sweep: Sweep, address: str, root: Path | None, say: Callable[[str], object], wait: bool = True) -> bool:
    """Submits `sweep` to the cluster at `address`, and prints the job's output with `say` until it ends, or Ctrl-C.

    Without `wait` it returns after submitting. Returns False if the job failed or was stopped. Raises InputError as
    `server` and `submit`.
    """
    with server(address) as jobs:
        job = jobs.submit(sweep, root)
        say(f"job {job.id} {'submitted' if job.new else 'is running already'}; Ctrl-C leaves it running")
        try:
            outcome = jobs.follow(job.id, say) if wait else "SUCCEEDED"
        except KeyboardInterrupt:
            return True
    if outcome != "SUCCEEDED":
        say(f"job {job.id} {outcome.lower()}; the same command continues the sweep")
    return outcome == "SUCCEEDED"


def submit(sweep: Sweep, address: str, root: Path | None = None) -> Submitted:
    """Submits a job that launches `sweep` to the cluster whose dashboard is at `address`, http://HOST:8265.

    `root` is the folder of sweeps on the cluster: by default $GANSWEEP_HOME there, else a folder in the job's
    working directory, which Ray deletes.

    A sweep has one job at a time: while it runs, nothing is submitted. After it has ended for any reason, the next job
    continues the sweep. Raises InputError if the cluster does not answer or refuses the job, if `root` is a relative
    path, or if the sweep's study or store is not shared by the machines of the cluster.
    """
    refuse_secrets(address)
    if not re.fullmatch(r"https?://\S+", address):
        text = "jobs go to http://HOST:8265, the cluster's dashboard, or through ray://HOST:10001"
        raise InputError(f"--address {address}: {text}")
    check_shared(sweep)
    if root is not None and not root.is_absolute():
        raise InputError(f"--root {root}: on another machine the folder must be an absolute path")
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
            if name in _jobs_of(sweep, client):  # somebody else submitted it at the same time
                return Submitted(name, new=False)
            raise InputError(f"--address {address}: the cluster refused the job: {reason(error)}") from None
    return Submitted(name, new=True)


def poll(address: str, job: str, seen: int) -> tuple[str, str]:
    """The state of a job, and its output without the first `seen` characters."""
    client = _client(address)
    status = str(client.get_job_status(job).value)  # first the state: if the job has ended, its output is complete
    return status, str(client.get_job_logs(job))[seen:]


@dataclass(frozen=True)
class Server:
    """The job server of a cluster: functions that call it, directly or through a Ray client."""

    submit: Callable[[Sweep, Path | None], Submitted]
    poll: Callable[[str, int], tuple[str, str]]

    def follow(self, job: str, say: Callable[[str], object]) -> str:
        """Prints the output of a job with `say` until it ends; returns SUCCEEDED, FAILED or STOPPED."""
        seen = 0
        while True:
            status, text = self.poll(job, seen)
            if text:
                say(text.rstrip("\n"))
                seen += len(text)
            if status not in _UNDER_WAY:
                return status
            time.sleep(_POLL)


@contextmanager
def server(address: str) -> Iterator[Server]:
    """The job server at http://HOST:8265, or that of the cluster whose client server is at ray://HOST:10001.

    Through a Ray client the head of the cluster is asked to call its own job server. Tune itself is never used through
    a client, since it would run on another machine than the driver. Raises InputError, within 10 s, if an extra of Ray
    is missing or nothing answers.
    """
    if not address.startswith(CLIENT):
        yield Server(lambda sweep, root: submit(sweep, address, root), partial(poll, address))
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
            lambda sweep, root: ask(_submit_text, sweep.as_written(), there, root), lambda *job: ask(poll, there, *job)
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
    for name in ("job.sdk", "dashboard_sdk"):  # they print each step
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
    logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.WARNING)
    try:
        return JobSubmissionClient(address)
    except AuthenticationError:
        text = "the cluster needs its token: set RAY_AUTH_TOKEN, or put it into ~/.ray/auth_token, as the head has it"
        raise InputError(f"--address {address}: {text}") from None
    except (ConnectionError, RuntimeError) as error:
        raise InputError(f"--address {address}: no job server answers there: {reason(error)}") from None


def _use_token() -> None:
    """Makes Ray send the token of this machine, if it has one and ray is imported after this, as Ray's commands do."""
    places = [os.environ.get("RAY_AUTH_TOKEN_PATH"), Path.home() / ".ray" / "auth_token"]
    if os.environ.get("RAY_AUTH_TOKEN") or any(place and Path(place).is_file() for place in places):
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _jobs_of(sweep: Sweep, client: Any) -> dict[str, str]:
    """The states of the sweep's jobs by their ids, oldest first."""
    mine = [job for job in client.list_jobs() if job.submission_id and (job.metadata or {}).get(_SWEEP) == sweep.name]
    return {job.submission_id: str(job.status.value) for job in sorted(mine, key=lambda job: job.start_time or 0)}
