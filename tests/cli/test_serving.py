"""Laws of the server of `gansweep ui`: its port is checked before it starts, and it ends with the command."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.cli.serving import check_port
from tests.support import sweeps
from tests.support.servers import free_ports
from trainers.errors import InputError

#: As `ui` does it, with a server that has a process of its own which knows nothing of its parent, as MLflow's has.
COMMAND = """
import os, sys
from orchestrator.cli.serving import serve
from orchestrator.cluster import signals
server = "import subprocess, sys; " + {first!r} + "subprocess.run([sys.executable, '-c', " + repr({second!r}) + "])"
with signals.watch():
    sys.exit(serve([sys.executable, "-c", server], os.environ))
"""
ANSWERS = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {ANSWERS}"


@pytest.mark.parametrize("second", [ANSWERS, DEAF])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_to_the_command_alone_ends_all_processes_of_the_server(
    number: signal.Signals, code: int, second: str
) -> None:
    text = COMMAND.format(first="", second=second)
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        process = int(command.stdout.readline())
        command.send_signal(number)
        assert command.wait(240) == code
    end = time.monotonic() + 240
    while Path(f"/proc/{process}").exists() and "Z" not in Path(f"/proc/{process}/stat").read_text().split()[2]:
        assert time.monotonic() < end, "it outlives the command"
        time.sleep(0.05)


def test_the_exit_code_is_the_server_s() -> None:
    text = COMMAND.format(first="sys.exit(7); ", second="")
    assert subprocess.run([sys.executable, "-c", text], check=False).returncode == 7


@pytest.mark.parametrize("port", [0, -1, 65536, 70000, 10**12])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(InputError, match=f"^--port {port}: must be a number from 1 to 65535$"):
        check_port(port)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_on_which_another_server_listens_is_refused(host: str, tmp_path: Path) -> None:
    with socket.create_server((host, 0)) as other:
        port = other.getsockname()[1]
        done = sweeps.in_process("ui", "--port", str(port), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"error: --port {port}: cannot be used: Address already in use; name another one\n"


def test_a_port_that_needs_rights_is_refused() -> None:
    first = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if first.exists() and int(first.read_text()) <= 80:
        pytest.skip("this system lets everybody use every port")
    program = """
import os
from orchestrator.cli.serving import check_port
if os.geteuid() == 0:
    os.setuid(65534)
check_port(80)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.endswith("InputError: --port 80: cannot be used: Permission denied; name another one\n")


def test_a_free_port_is_taken() -> None:
    check_port(free_ports(1)[0])
