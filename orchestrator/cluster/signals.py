"""Ctrl-C, SIGTERM and SIGHUP: the first of them ends a command as Ctrl-C does, a second one ends it at once.

All threads block these signals, and one thread waits for them. So they arrive whatever the main thread is doing in a
library, and handlers of libraries are never called: Ray's prints its stack and ends the process.

Children inherit what is blocked. So a signal to a group or to all processes does not end Ray's servers: a driver that
calls a server which has ended is ended by Ray, with exit code 1.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from functools import partial, wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from trainers.errors import InputError

Given = ParamSpec("Given")
Result = TypeVar("Result")

#: Seconds that a driver has to end after SIGTERM or SIGHUP.
GRACE = "GANSWEEP_GRACE"
_DEFAULT_GRACE = 8.0
#: Sent to the main thread to wake it, and to the thread that waits for signals to end it.
_WAKE = signal.SIGUSR2
#: Signals within so many seconds are one: `timeout` sends its signal to its child and then to its child's group.
_SAME = 0.25
#: Seconds by which a signal may reach this process later than Ray's processes, their death included.
_SETTLE = 0.5
#: Seconds that an uninterrupted function has after a signal, at most a quarter of the grace.
_LAST_STEP = 2.0


class _Watch:
    """Waits for signals in a thread of its own."""

    def __init__(self) -> None:
        interesting = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        # One that is ignored from the start stays so, as `nohup` wants it.
        self.taken = {each for each in interesting if signal.getsignal(each) is not signal.SIG_IGN}
        self.received: signal.Signals | None = None
        self.noticed = threading.Event()
        """Is set after `received`."""
        self.grace, self.deadline = _DEFAULT_GRACE, math.inf
        self._main, self._done = threading.get_ident(), False
        self._thread = threading.Thread(target=self._wait, name="signals", daemon=True)

    def start(self) -> None:
        self._handler = signal.signal(_WAKE, self._wake)
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*self.taken, _WAKE})
        self._thread.start()  # inherits what is blocked
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {_WAKE})

    def stop(self) -> None:
        self._done = True  # what comes now is too late
        assert self._thread.ident is not None
        signal.pthread_kill(self._thread.ident, _WAKE)
        self._thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        signal.signal(_WAKE, self._handler)

    def _wait(self) -> None:
        waited = {*self.taken, _WAKE}
        if (first := signal.sigwait(waited)) == _WAKE:
            return
        start = time.monotonic()
        if first != signal.SIGINT:
            self.deadline = start + self.grace
            timer = threading.Timer(self.grace, os._exit, [128 + first])
            timer.daemon = True
            timer.start()
        self.received = signal.Signals(first)
        # In this order: whoever notices the signal and ends may count on the main thread's KeyboardInterrupt.
        signal.pthread_kill(self._main, _WAKE)
        self.noticed.set()
        while signal.sigwait(waited) != _WAKE:
            if time.monotonic() - start > _SAME:
                if os.isatty(1):
                    with suppress(OSError):
                        os.write(1, b"\x1b[?25h")  # a live table hides the cursor
                os._exit(128 + first)

    def _wake(self, *unused: object) -> None:
        if self.received is not None and not self._done:
            self._done = True
            raise KeyboardInterrupt


_watch: _Watch | None = None


@contextmanager
def watch() -> Iterator[None]:
    """Raises KeyboardInterrupt in the block, which must be the main thread's, after the first signal.

    After a signal the process ends with the block, and waits for no thread of a library. The exit code is 128 plus the
    number of the signal; after Ctrl-C it is that of the block if it has one. A second signal ends the process at once,
    and so does the end of the grace after SIGTERM or SIGHUP.
    """
    global _watch
    assert _watch is None
    _watch = _Watch()
    _watch.start()
    try:
        yield
    except BaseException as error:
        if _watch.received is not None:
            _end(_watch.received, error)
        raise
    else:
        if _watch.received is not None:
            _end(_watch.received, None)
    finally:
        _watch.stop()
        _watch = None


def _end(received: signal.Signals, error: BaseException | None) -> None:
    code = 128 + received
    if received == signal.SIGINT and isinstance(error, SystemExit) and isinstance(error.code, int):
        code = error.code
    with suppress(OSError, ValueError):  # the terminal may be gone
        if isinstance(error, Exception) and sys.stderr is not None:  # None: it was closed from the start
            text = (str(error).strip() or type(error).__name__).splitlines()[0]
            print(f"error: while ending after {received.name}: {text}", file=sys.stderr)
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    os._exit(code)


def unblock() -> None:
    """In a child, as a function for `preexec_fn`: it can be ended by the signals that this process blocks."""
    if _watch is not None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _watch.taken)


# Where there is no /proc, the guard knows no process of Ray, and those end by SIGTERM or not at all.
if not Path("/proc").exists():
    os.register_at_fork(after_in_child=unblock)


@contextmanager
def postponed() -> Iterator[None]:
    """In the block, a few steps of the main thread that belong together, a signal raises nothing, but after it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {_WAKE})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_background(function: Callable[[], Result]) -> Future[Result]:
    """The result of `function`, which runs in a thread that an interrupted process does not wait for."""
    future: Future[Result] = Future()
    _start(function, future)
    return future


def _start(function: Callable[[], Result], future: Future[Result]) -> None:
    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # whoever asks for the result gets it
            future.set_exception(error)

    threading.Thread(target=run, name="background", daemon=True).start()


def uninterrupted(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """`function` in a thread of its own, so that a signal raises nothing in it but at its calls of `check`.

    After a signal the caller gets KeyboardInterrupt once the function has ended, but it waits only for a few seconds:
    the function may be in a call of Ray, whose servers may have got the signal too, and such a call waits for a minute
    for a dead server. An exception of the function after a signal is taken for its consequence.
    """

    @wraps(function)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        if _watch is None:
            return function(*args, **kwargs)
        future: Future[Result] = Future()
        try:
            _start(partial(function, *args, **kwargs), future)
            return future.result()
        except KeyboardInterrupt:
            wait([future], min(_LAST_STEP, left() / 4))
            raise
        except Exception:
            check_death()
            raise

    return run


def check(patience: float = 0.0) -> None:
    """Raises KeyboardInterrupt if there was a signal, or is one within `patience` seconds."""
    if _watch is not None and _watch.noticed.wait(patience):
        raise KeyboardInterrupt


def check_death() -> None:
    """As `check`, for the death of a process: a signal to both may have reached it first."""
    check(_SETTLE)


def received() -> bool:
    """Whether there was a signal."""
    return _watch is not None and _watch.received is not None


def left() -> float:
    """Seconds until this process ends by force; infinite as long as there was no SIGTERM or SIGHUP."""
    return _watch.deadline - time.monotonic() if _watch is not None else math.inf


def read_grace() -> None:
    """Takes over the grace of the environment. Raises InputError if it is no number of seconds."""
    written = os.environ.get(GRACE, str(_DEFAULT_GRACE))
    try:
        seconds = float(written)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 1e6:
        raise InputError(f"{GRACE}={written}: must be a number of seconds above 0, at most 1e6")
    if _watch is not None:
        _watch.grace = seconds
