"""Runs one hostile input, in this process or through the command, and says which laws were broken.

The laws: an end within ten seconds, an exit code of the documented ones, no traceback, valid JSON if `--json` was asked
for, and no secret in any output or file.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NoReturn
from unittest.mock import patch

from orchestrator.cli.__main__ import main
from tests.fuzz.mutations import MARKER
from trainers.errors import InputError

#: Seconds within which every input is answered.
LIMIT = 10.0
EXIT_CODES = (0, 1, 2, 3)
#: Larger files are inputs without content.
MOST_BYTES = 100 << 20
#: Variables with secrets, which must not appear anywhere either.
SECRETS = dict.fromkeys(("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD"), MARKER)


class HangError(BaseException):
    """An input was not answered in time. Not an Exception: nothing may catch it."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises HangError in the block after `seconds`."""

    def end(*_: object) -> NoReturn:
        raise HangError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def violations(call: Callable[[], object], folder: Path, own: set[Path], as_json: bool) -> list[str]:
    """The laws that `call` breaks in this process.

    It may raise InputError, or SystemExit with a documented code. `own` are the input's files below `folder`, which may
    have its secret.
    """
    out, err, broken, code = io.StringIO(), io.StringIO(), [], 0
    with patch.dict(os.environ, SECRETS), redirect_stdout(out), redirect_stderr(err):
        try:
            with limited(LIMIT):
                call()
        except InputError as error:
            code = 2
            print(f"error: {error}", file=sys.stderr)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except HangError:
            broken.append(f"no answer within {LIMIT:g} s")
        except Exception as error:  # whatever it is, it would be a traceback
            broken.append(f"{type(error).__name__}: {str(error)[:200]}")
    as_json = as_json and not broken
    return broken + list(_of_output(code, out.getvalue(), err.getvalue(), as_json)) + list(_of_files(folder, own))


def violations_of_command(arguments: Sequence[str], folder: Path, own: set[Path]) -> list[str]:
    """As `violations`, of the command in a process of its own."""
    command = [sys.executable, "-m", "orchestrator.cli", *arguments]
    environment = {**os.environ, **SECRETS}
    try:
        done = subprocess.run(command, capture_output=True, timeout=LIMIT, env=environment, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return [f"no answer within {LIMIT:g} s"]
    out, err = (text.decode(errors="backslashreplace") for text in (done.stdout, done.stderr))
    return list(_of_output(done.returncode, out, err, "--json" in arguments)) + list(_of_files(folder, own))


def run_command_line(arguments: Sequence[str]) -> None:
    """The command in this process. Raises SystemExit."""
    with patch.object(sys, "argv", ["gansweep", *arguments]):
        main()


def _of_output(code: int, out: str, err: str, as_json: bool) -> Iterator[str]:
    if code not in EXIT_CODES:
        yield f"exit code {code}"
    if "Traceback (most recent call last)" in out + err:
        yield f"a traceback: {err.strip().splitlines()[-1][:200] if err.strip() else ''}"
    if MARKER in out + err:
        yield "a secret in the output"
    if code == 2 and not err.strip():
        yield "exit code 2 without a message"
    if as_json and code == 0:
        try:
            json.loads(out, parse_constant=_no_constant)
        except ValueError as error:
            yield f"no JSON: {error}"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _of_files(folder: Path, own: set[Path]) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path in own or not path.is_file() or path.is_symlink() or path.stat().st_size > MOST_BYTES:
            continue
        if MARKER.encode() in path.read_bytes():
            yield f"a secret in {path.relative_to(folder)}"
