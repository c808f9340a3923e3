"""Brings what the study knows to the tracker, from a thread of its own: the sweep never waits for a tracker.

While the tracker is away, the newest state of each trial waits here, and all of it in the study. After any failure
nothing is known of what was written, so the tracker is opened anew and finds out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from search_spaces.buckets import masked

if TYPE_CHECKING:
    from orchestrator.tracking import Tracker
    from orchestrator.tracking_process import TrackerProcess

    AnyTracker = Tracker | TrackerProcess

Job = Callable[["AnyTracker"], None]

#: Seconds that a job waits for newer ones to take its place, so that several events are written in one batch.
LINGER = 1.0
#: Seconds before another try: at first, and at most; each is twice as long as the one before.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0
#: Seconds without any progress after which a sweep that has ended waits no longer.
LAST_WAIT = 60.0


class Relay:
    """A queue of jobs for a tracker, one for each key; a newer one takes an older one's place.

    `say` is told once when the tracker goes away and once when it is back; `check` raises where this process may write
    no more. Use as a context manager; leaving it drops what is still to be done.
    """

    def __init__(
        self,
        open_tracker: Callable[[], AnyTracker],
        say: Callable[[str], None],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._open, self._say, self._check = open_tracker, say, check
        self._jobs: dict[object, Job] = {}
        self._since: dict[object, float] = {}
        self._busy = self._draining = self._stopped = False
        self._progress = time.monotonic()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def put(self, key: object, job: Job) -> None:
        """Queues a job; one that fails is tried again, so that it must do no harm when it is done twice."""
        with self._changed:
            self._jobs[key] = job
            self._since.setdefault(key, time.monotonic())
            self._changed.notify_all()

    def drain(self, wait: float = LAST_WAIT) -> bool:
        """Waits until all is done, but no longer than `wait` seconds since the last job that was; whether all is."""
        with self._changed:
            self._progress, self._draining = time.monotonic(), True
            self._changed.notify_all()
            try:
                while self._jobs or self._busy:
                    left = self._progress + wait - time.monotonic()
                    if left <= 0 or self._stopped:
                        return False
                    self._changed.wait(left)
            finally:
                self._draining = False
        return True

    def _work(self) -> None:
        tracker: AnyTracker | None = None
        failures, told = 0, False
        while (taken := self._take()) is not None:
            key, job = taken
            try:
                self._check()
            except Exception:  # the driver finds out itself
                self._stop()
                return
            try:
                tracker = tracker or self._open()
                job(tracker)
            except Exception as error:  # of whatever kind: a view of the study must not end the sweep
                if self._stopped:
                    return
                tracker, failures = None, failures + 1
                if not told:
                    self._say(f"tracking: {_reason(error)}; the sweep goes on, and what is missing is written later")
                told = True
                self._end(key, job)
                self._pause(min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 16)))
            else:
                failures = 0
                if self._end(key, None) and told:
                    self._say("tracking: all is written")
                    told = False

    def _take(self) -> tuple[object, Job] | None:
        """The job that waits longest; None at the end."""
        with self._changed:
            while not self._stopped:
                key = next(iter(self._jobs), None)
                left = self._since[key] + LINGER - time.monotonic() if self._jobs else None
                if left is not None and (left <= 0 or self._draining):
                    self._busy = True
                    del self._since[key]
                    return key, self._jobs.pop(key)
                self._changed.wait(left)
        return None

    def _end(self, key: object, failed: Job | None) -> bool:
        """Whether nothing is left to be done."""
        with self._changed:
            self._busy = False
            if failed is None:
                self._progress = time.monotonic()
            else:
                # Behind the others: what MLflow refuses for good must not stop them.
                self._jobs.setdefault(key, failed)
                self._since.setdefault(key, time.monotonic())
            self._changed.notify_all()
            return not self._jobs

    def _stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, seconds)


def _reason(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return masked(text.splitlines()[0])[:200]
