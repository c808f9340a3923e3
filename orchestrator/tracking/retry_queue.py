"""Writes to the tracker from a thread of its own, so that the sweep never waits for it.

While the tracker is unavailable, only the newest state of each trial waits here: the study has everything else. After a
failure it is unknown what was written, so the tracker is opened again and looks up what is there.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext

from orchestrator.tracking.interface import TrackerInterface
from search_spaces.addresses import reason
from trainers.errors import InputError

Job = Callable[[TrackerInterface], None]

LINGER = 0.25
"""Seconds that a job waits for a newer one of its key, so that several events become one job, and jobs a batch."""
TOGETHER = 20
"""The most jobs in one transaction."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0
"""Seconds before the first and before any later try; each pause is twice as long as the one before."""
LAST_WAIT = 60.0
"""Seconds without progress after which `drain` gives up."""


class RetryQueue:
    """A queue of jobs for a tracker, one for each key: a newer job replaces an older one of the same key.

    Jobs that are due run in one transaction, except those put with `alone`. If it fails, they are repeated one by one.

    `say` prints a line when the tracker fails, and another one when everything is written again. `check` raises if this
    process may write no more, which ends the queue. Use as a context manager; leaving it drops the jobs that remain.
    """

    def __init__(
        self,
        open_tracker: Callable[[], TrackerInterface],
        say: Callable[[str], None],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._open, self._say, self._check = open_tracker, say, check
        self._jobs: dict[object, Job] = {}
        self._since: dict[object, float] = {}
        self._alone: set[object] = set()
        self._busy = self._draining = self._stopped = self._refused = False
        self._drains = 0
        self._progress = time.monotonic()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)

    def __enter__(self) -> RetryQueue:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def put(self, key: object, job: Job, alone: bool = False) -> None:
        """Queues a job. A job that fails is repeated, so running it twice must have the same effect as once."""
        with self._changed:
            self._jobs[key] = job
            if alone:
                self._alone.add(key)
            self._since.setdefault(key, time.monotonic())
            self._changed.notify_all()

    def drain(self, wait: float = LAST_WAIT, most: float = math.inf) -> bool:
        """Waits until the queue is empty, at most `wait` seconds after the last job that succeeded and `most` in all.

        What has failed is tried again at once. Gives up if the tracker raises InputError when it is opened: waiting
        does not help. Returns whether the queue is empty.
        """
        with self._changed:
            start = time.monotonic()
            self._progress, self._draining, self._refused = start, True, False
            self._drains += 1
            self._changed.notify_all()
            try:
                while self._jobs or self._busy:
                    left = min(self._progress + wait, start + most) - time.monotonic()
                    if left <= 0 or self._stopped or self._refused:
                        return False
                    self._changed.wait(left)
            finally:
                self._draining = False
        return True

    def _work(self) -> None:
        tracker: TrackerInterface | None = None
        failures, failing = 0, False
        while taken := self._take(1 if failures else TOGETHER):
            try:
                self._check()
            except Exception:  # the driver makes the same check and reports it
                self._stop()
                return
            try:
                tracker = tracker or self._open()
                self._do(tracker, taken)
            except Exception as error:  # of any kind: a tracker that fails must not end the sweep
                if self._stopped:
                    return
                refused = tracker is None and isinstance(error, InputError)
                tracker, failures = None, failures + 1
                if not failing:
                    self._say(f"tracking: {reason(error)}; the sweep goes on, and what is missing is written later")
                failing = True
                self._end(taken, refused)
                if len(taken) == 1:  # several are repeated one by one without a pause: perhaps only one is refused
                    self._pause(min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 16)))
            else:
                failures = 0
                if self._end({}) and failing:
                    self._say("tracking: all is written")
                    failing = False

    def _do(self, tracker: TrackerInterface, jobs: Mapping[object, Job]) -> None:
        with nullcontext() if self._alone.intersection(jobs) else tracker.together():
            for job in jobs.values():
                job(tracker)

    def _take(self, most: int) -> dict[object, Job]:
        """Waits for due jobs and takes the oldest `most` of them; none after `_stop`."""
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

    def _end(self, failed: Mapping[object, Job], refused: bool = False) -> bool:
        """Puts `failed` jobs back; returns whether the queue is empty."""
        with self._changed:
            self._busy, self._refused = False, refused
            if not failed:
                self._progress = time.monotonic()
            for key, job in failed.items():
                # At the end of the queue: a job that MLflow always refuses must not stop the others.
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
            before = self._drains
            self._changed.wait_for(lambda: self._stopped or self._drains > before, seconds)
