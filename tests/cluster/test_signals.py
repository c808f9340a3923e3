"""Laws of the signals that end a command, on small programs in processes of their own; no Ray is started."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from orchestrator.cluster import signals
from trainers.errors import InputError

ALL = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
#: What runs in the watched block; it prints a line when it is ready for signals.
PROGRAM = """
import os, signal, subprocess, sys, threading, time
from orchestrator.cluster import signals

def ready():
    print("ready", flush=True)

signals.read_grace()
with signals.watch():
    signals.read_grace()
{body}
print("after the block", flush=True)
"""


def start(body: str, *command: str, **settings: str) -> subprocess.Popen[str]:
    """Starts a program with this body, and waits until it says that it is ready."""
    text = PROGRAM.format(body="\n".join(f"    {line}" for line in body.strip().splitlines()))
    process = subprocess.Popen(
        [*command, sys.executable, "-c", text],
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=240)
    return process.returncode, said


@pytest.mark.parametrize(("number", "code"), ALL)
def test_a_signal_ends_the_block_as_ctrl_c_does(number: signal.Signals, code: int) -> None:
    process = start("""
try:
    ready()
    time.sleep(600)
except KeyboardInterrupt:
    print("tidied up")
    raise
""")
    process.send_signal(number)
    assert ended(process) == (code, "tidied up\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 5), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_after_ctrl_c_the_exit_code_is_the_command_s_if_it_has_one(number: signal.Signals, code: int) -> None:
    process = start("""
try:
    ready()
    time.sleep(600)
except KeyboardInterrupt:
    sys.exit(5)
""")
    process.send_signal(number)
    assert ended(process) == (code, "")


def test_an_error_while_it_ends_is_one_line() -> None:
    process = start("""
try:
    ready()
    time.sleep(600)
except KeyboardInterrupt:
    raise ValueError("two\\nlines") from None
""")
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (143, "error: while ending after SIGTERM: two\n")


def test_closed_streams_change_no_exit_code() -> None:
    process = start("""
try:
    ready()
    sys.stdout = sys.stderr = None  # as Python has them if they are closed from the start
    time.sleep(600)
except KeyboardInterrupt:
    raise ValueError("unseen") from None
""")
    process.send_signal(signal.SIGHUP)
    assert ended(process) == (129, "")


def test_no_thread_is_waited_for() -> None:
    process = start("""
threading.Thread(target=time.sleep, args=[600]).start()
ready()
time.sleep(600)
""")
    process.send_signal(signal.SIGHUP)
    assert ended(process) == (129, "")


def test_handlers_of_libraries_are_not_called() -> None:
    process = start("""
signal.signal(signal.SIGTERM, lambda *unused: os._exit(99))
ready()
time.sleep(600)
""")
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 143


@pytest.mark.parametrize(("number", "code"), ALL)
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_ends_it_at_once(number: signal.Signals, code: int, second: signal.Signals) -> None:
    process = start(
        """
try:
    ready()
    time.sleep(600)
finally:
    time.sleep(1)
    ready()
    time.sleep(600)
""",
        GANSWEEP_GRACE="600",
    )
    process.send_signal(number)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(second)
    assert ended(process) == (code, "")


def test_two_signals_at_the_same_moment_are_one() -> None:
    process = start("""
try:
    ready()
    time.sleep(600)
finally:
    time.sleep(1)
    print("tidied up")
""")
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
    code, said = ended(process)
    assert code in (129, 143)
    assert said == "tidied up\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_end_of_the_grace_is_the_end_of_the_process(number: signal.Signals) -> None:
    process = start(
        """
try:
    ready()
    time.sleep(600)
finally:
    print(0 < signals.left() <= 0.5, flush=True)
    time.sleep(600)
""",
        GANSWEEP_GRACE="0.5",
    )
    process.send_signal(number)
    assert ended(process) == (128 + number, "True\n")


@pytest.mark.skipif(shutil.which("nohup") is None, reason="there is no nohup")
def test_what_is_ignored_from_the_start_stays_ignored() -> None:
    process = start("ready()\ntime.sleep(600)", "nohup")
    os.killpg(process.pid, signal.SIGHUP)
    os.killpg(process.pid, signal.SIGTERM)
    assert ended(process)[0] == 143, "SIGHUP would have made it 129"


def test_children_inherit_what_is_blocked_unless_they_are_to_end_by_signals() -> None:
    process = start("""
look = [sys.executable, "-c", "import signal; print(sorted(map(int, signal.pthread_sigmask(0, set()))))"]
ready()
subprocess.run(look, preexec_fn=lambda: None)
subprocess.run(look, preexec_fn=signals.unblock)
""")
    blocked = sorted(map(int, (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)))
    assert ended(process) == (0, f"{blocked}\n[]\nafter the block\n")


@pytest.mark.parametrize("check", ["pass", "signals.check()", "signals.check_death(); print('not here')"])
def test_an_uninterrupted_function_is_ended_by_its_checks_alone(check: str) -> None:
    process = start(
        """
@signals.uninterrupted
def work():
    ready()
    while not signals.received():
        time.sleep(0.01)
    time.sleep(0.1)
    print("still here")
    {check}
try:
    work()
    print("not here")
finally:
    print("tidied up")
""".replace("{check}", check)
    )
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (143, "still here\ntidied up\n")


def test_an_error_of_an_uninterrupted_function_after_a_signal_is_its_consequence() -> None:
    process = start("""
@signals.uninterrupted
def work():
    ready()
    while not signals.received():
        time.sleep(0.01)
    raise RuntimeError("Ray is gone")
try:
    work()
except KeyboardInterrupt:
    print("tidied up")
""")
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (143, "tidied up\n")


@pytest.mark.parametrize(("number", "code"), ALL)
def test_an_uninterrupted_function_that_comes_to_no_check_is_left_behind(number: signal.Signals, code: int) -> None:
    process = start(
        """
@signals.uninterrupted
def work():
    ready()
    time.sleep(300)
try:
    work()
finally:
    print("tidied up")
""",
        GANSWEEP_GRACE="4",
    )
    process.send_signal(number)
    assert ended(process) == (code, "tidied up\n")


def test_steps_that_belong_together_are_not_interrupted() -> None:
    process = start("""
try:
    with signals.postponed():
        ready()
        while not signals.received():
            time.sleep(0.01)
        time.sleep(0.1)
        print("still here")
    print("not here")
finally:
    print("tidied up")
""")
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (143, "still here\ntidied up\n")


def test_an_uninterrupted_function_has_its_result_and_its_errors() -> None:
    @signals.uninterrupted
    def divided(one: int, by: int) -> float:
        return one / by

    for watched in (nullcontext(), signals.watch()):
        with watched:
            assert divided(1, by=2) == 0.5
            with pytest.raises(ZeroDivisionError):
                divided(1, by=0)


def test_without_a_signal_nothing_changes() -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    handlers = [signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGINT, signal.SIGTERM)]
    with signals.watch():
        signals.uninterrupted(signals.check)()
        assert signals.left() == float("inf")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == blocked
    assert [signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize("written", ["soon", "-1", "0", "nan", "inf", "2e6", "8 s", ""])
def test_a_grace_that_is_no_number_of_seconds_is_refused(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(signals.GRACE, written)
    with pytest.raises(InputError, match=f"^GANSWEEP_GRACE={written}: must be a number of seconds"):
        signals.read_grace()


def test_a_launch_with_a_wrong_grace_starts_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "orchestrator.cli", "launch", "quickstart", "--root", str(tmp_path / "runs")]
    done = subprocess.run(
        command, env={**os.environ, "GANSWEEP_GRACE": "soon"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "error: GANSWEEP_GRACE=soon: must be a number of seconds above 0, at most 1e6\n"
    assert not (tmp_path / "runs").exists()
