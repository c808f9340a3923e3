"""The tracker in a process of its own: what MLflow computes must not hold up the driver, nor its import the start."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.store import TrialStore, store_of
from orchestrator.study.records import TrialRecord
from orchestrator.study.status import SweepStatus
from search_spaces.sweep import read_kept

if TYPE_CHECKING:
    from orchestrator.tracking.tracker import Grids, Tracker

#: A fork of a process without threads has all modules already; elsewhere than on Linux libraries do not stand it.
_START = "fork" if sys.platform == "linux" else "spawn"


class TrackerError(Exception):
    """The tracker raised; the text is its error's."""


@dataclass(frozen=True)
class GridsOf:
    """The sample grids of a sweep's trials, for whatever process asks."""

    sweep: str
    """Normalised text."""
    folder: Path

    def __call__(self, number: int) -> dict[int, Path]:
        return _store(self).grids(number)


@lru_cache(maxsize=1)
def _store(grids: GridsOf) -> TrialStore:
    return store_of(read_kept(grids.sweep), grids.folder)


class TrackerProcess:
    """A `Tracker` behind a pipe: the same methods, which return when the tracker has, and raise TrackerError if it did.

    To be made before the driver has threads. The process ends with the block, and with the driver if that is killed.
    """

    def __init__(self) -> None:
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
        self._process.terminate()
        self._process.join()
        self._connection.close()

    def open(self, root: Path, sweep: str, study_id: str) -> TrackerProcess:
        """Has the tracker opened anew, for the sweep of this normalised text; in a new process where it has died."""
        if not self._process.is_alive():
            self._connection.close()
            self._begin("spawn")  # the driver has threads by now
        return self._call("open", root, sweep, study_id)

    @contextmanager
    def together(self) -> Iterator[None]:
        """As `Tracker.together`; what a block that raises has written is lost when the tracker is opened anew."""
        self._call("begin")
        yield
        self._call("commit")

    def sync(self, record: TrialRecord, grids: Grids) -> None:
        """As `Tracker.sync`."""
        self._call("sync", record, grids)

    def mark(self, front: Sequence[int]) -> None:
        """As `Tracker.mark`."""
        self._call("mark", list(front))

    def finish(self, status: SweepStatus, report: Path) -> None:
        """As `Tracker.finish`."""
        self._call("finish", status, report)

    def register(self, winner: TrialRecord, checkpoint: Path) -> None:
        """As `Tracker.register`."""
        self._call("register", winner, checkpoint)

    def _call(self, method: str, *arguments: Any) -> TrackerProcess:
        try:
            self._connection.send((method, arguments))
            error = self._connection.recv()
        except (EOFError, OSError):
            raise TrackerError("the tracker's process has died") from None
        if error is not None:
            raise TrackerError(error)
        return self


def _serve(connection: Connection, inherited: Connection | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's, which has more to write then
    if inherited is not None:
        inherited.close()  # or the pipe would outlive the driver
    served = _Served()
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:  # the driver has gone
            return
        try:
            served.call(method, arguments)
        except Exception as error:  # of whatever kind: the driver is told
            connection.send(str(error).strip() or type(error).__name__)
        else:
            connection.send(None)


class _Served:
    """The tracker in its process, and the block of calls that is kept together at the moment."""

    def __init__(self) -> None:
        self._tracker: Tracker | None = None
        self._block = ExitStack()

    def call(self, method: str, arguments: Sequence[Any]) -> None:
        if method == "open":
            from orchestrator.tracking.tracker import Tracker  # seconds to import

            root, sweep, study_id = arguments
            self._tracker = Tracker(root, read_kept(sweep), study_id)
            return
        assert self._tracker is not None
        if method == "begin":
            self._block.enter_context(self._tracker.together())
        elif method == "commit":
            self._block.close()
        else:
            with self._undone_on_error():
                getattr(self._tracker, method)(*arguments)

    @contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            with suppress(Exception):  # MlflowException, in which it wraps the one that is raised
                self._block.__exit__(*sys.exc_info())
            raise
