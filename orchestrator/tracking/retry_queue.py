"""Brings what the study knows to the tracker, from a thread of its own: the sweep never waits for a tracker.

While the tracker is away, the newest state of each trial waits here, and all of it in the study. After any failure
nothing is known of what was written, so the tracker is opened anew and finds out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING

from search_spaces.addresses import masked

if TYPE_CHECKING:
    from orchestrator.tracking.process import TrackerProcess
    from orchestrator.tracking.tracker import Tracker

    AnyTracker = Tracker | TrackerProcess

Job = Callable[["AnyTracker"], None]

#: Seconds that a job waits for newer ones to take its place, so that several events are written in one batch.
LINGER = 0.25
#: Jobs that are written in one go, at most.
TOGETHER = 20
#: Seconds before another try: at first, and at most; each is twice as long as the one before.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0
#: Seconds without any progress after which a sweep that has ended waits no longer.
LAST_WAIT = 60.0


class Relay:
    """A queue of jobs for a tracker, one for each key; a newer one takes an older one's place.

    Jobs that are due are done together, all of them or none, but for those that are put as `alone`.

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
        self._alone: set[object] = set()
        self._busy = self._draining = self._stopped = False
        self._progress = time.monotonic()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def put(self, key: object, job: Job, alone: bool = False) -> None:
        """Queues a job; one that fails is tried again, so that it must do no harm when it is done twice."""
        with self._changed:
            self._jobs[key] = job
            if alone:
                self._alone.add(key)
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
        while taken := self._take(1 if failures else TOGETHER):
            try:
                self._check()
            except Exception:  # the driver finds out itself
                self._stop()
                return
            try:
                tracker = tracker or self._open()
                self._do(tracker, taken)
            except Exception as error:  # of whatever kind: a view of the study must not end the sweep
                if self._stopped:
                    return
                tracker, failures = None, failures + 1
                if not told:
                    self._say(f"tracking: {_reason(error)}; the sweep goes on, and what is missing is written later")
                told = True
                self._end(taken)
                if len(taken) == 1:  # else one by one at once: it may be but one of them that is refused
                    self._pause(min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 16)))
            else:
                failures = 0
                if self._end({}) and told:
                    self._say("tracking: all is written")
                    told = False

    def _do(self, tracker: AnyTracker, jobs: Mapping[object, Job]) -> None:
        with nullcontext() if self._alone.intersection(jobs) else tracker.together():
            for job in jobs.values():
                job(tracker)

    def _take(self, most: int) -> dict[object, Job]:
        """The job that waits longest, and others that are due; none at the end."""
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                due = [key for key in self._jobs if self._draining or self._since[key] + LINGER <= now]
                if due:
                    alone = next((place for place, key in enumerate(due) if key in self._alone), most)
                    self._busy = True
                    taken = {key: self._jobs.pop(key) for key in due[: min(most, max(1, alone))]}
                    for key in taken:
                        del self._since[key]
                    return taken
                self._changed.wait(min(self._since.values()) + LINGER - now if self._since else None)
        return {}

    def _end(self, failed: Mapping[object, Job]) -> bool:
        """Whether nothing is left to be done."""
        with self._changed:
            self._busy = False
            if not failed:
                self._progress = time.monotonic()
            for key, job in failed.items():
                # Behind the others: what MLflow refuses for good must not stop them.
                self._jobs.setdefault(key, job)
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
