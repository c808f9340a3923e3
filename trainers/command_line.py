"""What all commands have in common: output that may fail, and one line on what people and disks do wrong."""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from trainers.errors import InputError, fault_of_file

#: Spellings of characters that not every encoding has; any other one becomes a question mark.
_SPELLINGS = {"±": "+-", "…": "...", "×": "x", "–": "-", "‖": "=", "✓": "+", "✗": "x", "✂": "/"}
_ERRORS = "spelled-out"


def _spelled_out(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)  # the handler is given to writers alone
    return "".join(_SPELLINGS.get(each, "?") for each in error.object[error.start : error.end]), error.end


codecs.register_error(_ERRORS, _spelled_out)


class _Stream(io.FileIO):
    """The file below standard output or standard error. A write that fails ends nobody's work: it is left out.

    A disk under a redirected stream may be full, the reader of a pipe or the terminal may have gone.
    """

    fault: OSError | None = None
    """Why something was left out; None as long as everything was written."""
    progress = False
    """Whether all that is written tells only how work goes on that has its results elsewhere."""

    def write(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:
                select.select([], [self], [])  # somebody made the stream non-blocking, and its reader is slow
        except OSError as error:
            self.fault = self.fault or error
            return len(data)
        return written


@contextmanager
def command_line() -> Iterator[None]:
    """Runs a command in the block; its standard streams may fail.

    An InputError and a fault of a file are one line on standard error and exit code 2. So is output that could not be
    written, if the command has no other result than it and its reader has not gone by itself.
    """
    with _guarded_streams() as output:
        try:
            yield
        except InputError as error:
            _fail(str(error))
        except SystemExit as ended:
            if not ended.code:
                _check(output)
            raise
        except Exception as error:
            if (sentence := fault_of_file(error)) is None:
                raise
            _fail(sentence)
        _check(output)


def prints_progress() -> None:
    """Says that this command has results besides what it prints: its exit code tells of them even if nobody reads."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _Stream):
        raw.progress = True


def _fail(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)


def _check(output: _Stream | None) -> None:
    sys.stdout.flush()
    if output is not None and output.fault and output.fault.errno != errno.EPIPE and not output.progress:
        _fail(f"standard output: {output.fault.strerror}")


@contextmanager
def _guarded_streams() -> Iterator[_Stream | None]:
    """Standard output and error as streams that never fail; the file of standard output, None if it was replaced."""
    _open_closed_ones()
    with ExitStack() as stack:
        if sys.stderr is sys.__stderr__:
            _guarded("stderr", 2, "backslashreplace", stack)
        yield _guarded("stdout", 1, _ERRORS, stack) if sys.stdout is sys.__stdout__ else None


def _guarded(name: str, descriptor: int, errors: str, stack: ExitStack) -> _Stream:
    """Replaces `sys.<name>`, until the end of `stack`, by a stream that never fails; returns its file."""
    old = getattr(sys, name)
    file = _Stream(descriptor, "w", closefd=False)
    new = io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=old.encoding if old is not None else "utf-8",
        errors=errors,
        line_buffering=descriptor == 2 or file.isatty(),
    )
    setattr(sys, name, new)
    stack.callback(setattr, sys, name, old)
    stack.callback(new.flush)
    return file


def _open_closed_ones() -> None:
    """Leads standard streams that are closed nowhere; else the next file to be opened would get what is printed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
