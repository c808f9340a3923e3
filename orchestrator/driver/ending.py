"""How a driver ends after Ctrl-C, SIGTERM or SIGHUP: the lease is given back first, the report is written last.

The order counts, since whoever sent the signal may kill the process seconds later.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from functools import partial

from orchestrator.cluster import signals
from orchestrator.paths import REPORT
from orchestrator.report import write_report
from orchestrator.store import store_of
from orchestrator.study.status import status_of
from orchestrator.study.study import SweepStudy
from orchestrator.tracking.retry_queue import RetryQueue

#: Seconds of the grace that are kept for the report, and for the end of the process.
_REPORT, _END = 3.0, 0.5
#: Seconds without progress after which MLflow is not waited for. Ray's library aborts a process that has lost its
#: cluster for 60 s.
_PATIENCE = 20.0


@contextmanager
def lease_first(study: SweepStudy) -> Iterator[None]:
    """Gives the lease of `study` back as soon as the block is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        _give_back(study)
        raise


def leave(study: SweepStudy, queue: RetryQueue) -> bool:
    """Gives MLflow and the store what waits for them, as far as there is time, and writes the report.

    Returns whether MLflow has all. Another driver may be at work already: nothing is written to the study, the queue
    checks the lease, and the store the attempts.
    """
    _give_back(study)
    publishing = signals.in_background(partial(store_of(study.sweep, study.folder).drain, wait=False))
    tracked = queue.drain(_PATIENCE, signals.left() - _REPORT)
    status, report = status_of(study), study.folder / REPORT
    write_report(status, study, report)
    queue.put("end", lambda tracker: tracker.finish(status, report))
    tracked = tracked and queue.drain(_PATIENCE, signals.left() - _END)
    wait([publishing], min(signals.left() - _END, _PATIENCE))
    return tracked


def _give_back(study: SweepStudy) -> None:
    assert study.limits.lease is not None
    study.limits.lease.end("interrupted")
