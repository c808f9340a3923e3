"""Runs the server of `gansweep ui`, which ends with the command."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

from orchestrator.cluster import signals
from trainers.errors import InputError

#: Seconds that the server has to end by itself.
_PATIENCE = 5.0


def check_port(port: int) -> None:
    """Raises InputError if no server of this user can listen on `port` of localhost."""
    if not 0 < port < 65536:
        raise InputError(f"--port {port}: must be a number from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: old connections do not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(f"--port {port}: cannot be used: {error.strerror}; name another one") from None


def serve(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs `command` until it ends; returns its exit code. After a signal its processes are ended first."""
    with subprocess.Popen(command, env=environment, preexec_fn=_prepare) as server:
        try:
            return server.wait()
        except KeyboardInterrupt:
            _end(server)
            raise


def _prepare() -> None:
    os.setpgrp()  # the server has processes that its first one does not end
    signals.unblock()


def _end(server: subprocess.Popen[bytes]) -> None:
    for how in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, how)
        with suppress(subprocess.TimeoutExpired):
            server.wait(_PATIENCE)
