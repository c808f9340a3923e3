"""The tracker in a process of its own, so that the driver never waits for MLflow's computations or its import."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from orchestrator.store import TrialStore, store_of
from orchestrator.study.records import TrialRecord
from orchestrator.study.status import SweepStatus
from orchestrator.tracking.interface import SampleGrids, TrackerInterface
from search_spaces.sweep import read_kept
from trainers.errors import InputError

#: A forked process has all modules already. Forking is safe while there are no threads, and only on Linux: on macOS
#: system libraries fail after it.
_START = "fork" if sys.platform == "linux" else "spawn"
#: Seconds after the driver's death in which a call must end. A server that does not answer would hold it for minutes.
_LAST_CALL = 5.0


#: A method of the tracker and its arguments.
_Call = tuple[str, tuple[Any, ...]]


class TrackerError(Exception):
    """The tracker in the other process raised an error, whose text this one has."""


@dataclass(frozen=True)
class StoredGrids:
    """Finds the sample grids of a sweep's trials in its store; can be sent to another process."""

    sweep: str
    """The sweep's normalised text."""
    folder: Path
    required: bool = False
    """Whether an unavailable store is an error. Otherwise its grids are left out, and looked for again later."""

    def __call__(self, number: int) -> dict[int, Path]:
        return _store(self).grids(number, self.required)


@lru_cache(maxsize=1)
def _store(grids: StoredGrids) -> TrialStore:
    return store_of(read_kept(grids.sweep), grids.folder)


class TrackerProcess:
    """A `Tracker` in another process, called through a pipe. Its methods wait for the answer.

    They raise TrackerError for any error, but `open` raises InputError if the tracker does.

    Create it before the driver has threads, since it is forked. The process ends with the `with` block, and if the
    driver is killed.
    """

    def __init__(self) -> None:
        self._waiting: list[_Call] | None = None
        """The calls of the block `together` under way; None outside."""
        self._begin(_START)

    def _begin(self, how: str) -> None:
        context: Any = multiprocessing.get_context(how)
        self._connection, theirs = context.Pipe()
        mine = self._connection if how == "fork" else None
        self._process = context.Process(target=_serve, args=(theirs, mine), name="tracking", daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> TrackerProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()  # SIGTERM is ignored
        self._process.join()
        self._connection.close()

    def open(self, root: Path, sweep: str, study_id: str) -> TrackerProcess:
        """Opens the tracker again, for the sweep of this normalised text; in a new process if the old one has died."""
        if not self._process.is_alive():
            self._connection.close()
            self._begin("spawn")  # the driver has threads by now
        return self._call("open", root, sweep, study_id)

    @contextmanager
    def together(self) -> Iterator[None]:
        # The calls are sent at the block's end, as one: a driver that is stopped within the block would otherwise leave
        # a transaction open, which locks the database for everybody. If the block raises, nothing is sent.
        self._waiting = []
        try:
            yield
            calls = self._waiting
        finally:
            self._waiting = None
        self._call("together", calls)

    def sync(self, record: TrialRecord, grids: SampleGrids) -> None:
        self._call("sync", record, grids)

    def mark(self, front: Sequence[int]) -> None:
        self._call("mark", list(front))

    def finish(self, status: SweepStatus, report: Path) -> None:
        self._call("finish", status, report)

    def register(self, winner: TrialRecord, checkpoint: Path) -> None:
        self._call("register", winner, checkpoint)

    def _call(self, method: str, *arguments: Any) -> TrackerProcess:
        if self._waiting is not None:
            self._waiting.append((method, arguments))
            return self
        try:
            self._connection.send((method, arguments))
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise TrackerError("the tracker's process has died") from None
        if answer is not None:
            kind, text = answer
            raise kind(text)
        return self


def _serve(connection: Connection, inherited: Connection | None) -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # the driver still writes through this process, and ends it
    threading.Thread(target=_end_with_driver, name="driver", daemon=True).start()
    if inherited is not None:
        inherited.close()  # a forked copy of the driver's end would keep the pipe open after the driver's death
    served = _Served()
    while True:
        try:
            method, arguments = connection.recv()
        except (EOFError, OSError):  # the driver has ended, perhaps in the middle of a message or before an answer
            return
        answer = None
        try:
            served.call(method, arguments)
        except Exception as error:  # of any kind: the driver raises one with its text
            kind = InputError if method == "open" and isinstance(error, InputError) else TrackerError
            answer = kind, str(error).strip() or type(error).__name__
        with suppress(OSError):  # the next `recv` notices that too
            connection.send(answer)


def _end_with_driver() -> None:
    """Ends this process if the driver dies. `_serve` notices that too, unless it waits for a server."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    time.sleep(_LAST_CALL)
    os._exit(1)


class _Served:
    """The tracker in its process."""

    def __init__(self) -> None:
        self._tracker: TrackerInterface | None = None

    def call(self, method: str, arguments: Sequence[Any]) -> None:
        if method == "open":
            from orchestrator.tracking.tracker import Tracker  # takes seconds

            root, sweep, study_id = arguments
            self._tracker = Tracker(root, read_kept(sweep), study_id)
            return
        assert self._tracker is not None
        if method == "together":
            (calls,) = arguments
            with self._tracker.together():
                for each, own in calls:
                    getattr(self._tracker, each)(*own)
        else:
            getattr(self._tracker, method)(*arguments)
