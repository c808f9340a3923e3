"""Laws of the queue between a sweep and its tracker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from orchestrator.tracking import retry_queue
from orchestrator.tracking.retry_queue import RetryQueue
from trainers.errors import InputError


@pytest.fixture(autouse=True)
def _soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_queue, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(retry_queue, "LONGEST_PAUSE", 0.02)


class Tracker:
    """Remembers what it was given; refuses everything while it is away, and always what is poisonous."""

    def __init__(self) -> None:
        self.done: list[object] = []
        self.tried: list[object] = []
        self.opened = 0
        self.together_now = False
        self.away = False
        self.poison: object = None

    def open(self) -> Any:
        self.opened += 1
        return self

    @contextmanager
    def together(self) -> Iterator[None]:
        """All that is done in the block, or nothing of it."""
        before = list(self.done)
        self.together_now = True
        try:
            yield
        except ConnectionError:
            self.done = before
            raise
        finally:
            self.together_now = False

    def job(self, key: object) -> Callable[[Any], None]:
        def write(tracker: Tracker) -> None:
            tracker.tried.append(key)
            if tracker.away or key == tracker.poison:
                raise ConnectionError(f"no answer about {key}")
            tracker.done.append(key)

        return write


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_jobs_are_done_in_their_order_and_a_newer_one_takes_the_place_of_an_older_one() -> None:
    tracker = Tracker()
    with RetryQueue(tracker.open, print) as queue:  # they linger
        for key, version in ((1, "a"), (2, "b"), (1, "c"), (3, "d"), (2, "e")):
            queue.put(key, tracker.job(version))
        assert queue.drain(120)
    assert tracker.done == ["c", "e", "d"]
    assert tracker.opened == 1


def test_an_outage_is_told_once_and_nothing_is_lost_in_it() -> None:
    tracker, said = Tracker(), list[str]()
    tracker.away = True
    with RetryQueue(tracker.open, said.append) as queue:
        for key in range(3):
            queue.put(key, tracker.job(key))
        wait_until(lambda: len(tracker.tried) > 3)
        assert not queue.drain(0)
        assert len(said) == 1
        tracker.away = False
        assert queue.drain(120)
    assert sorted(tracker.done) == [0, 1, 2]  # type: ignore[type-var]
    assert [line.partition(";")[0] for line in said] == [f"tracking: no answer about {tracker.tried[0]}", said[1]]
    assert said[1] == "tracking: all is written"
    assert tracker.opened > 2  # after each failure nothing is known


def test_what_is_refused_for_good_does_not_stop_the_others() -> None:
    tracker, said = Tracker(), list[str]()
    tracker.poison = 1
    with RetryQueue(tracker.open, said.append) as queue:
        for key in range(4):
            queue.put(key, tracker.job(key))
        wait_until(lambda: len(tracker.done) == 3 and tracker.tried.count(1) > 1)
        assert not queue.drain(0)
    assert sorted(tracker.done) == [0, 2, 3]  # type: ignore[type-var]
    assert len(said) == 1


def test_a_job_that_fails_gives_way_to_a_newer_one_of_its_key() -> None:
    tracker = Tracker()
    failing, replaced = threading.Event(), threading.Event()

    def fail(_: Any) -> None:
        failing.set()
        replaced.wait(120)
        raise ConnectionError

    with RetryQueue(tracker.open, lambda text: None) as queue:
        queue.put(1, fail)
        draining = threading.Thread(target=queue.drain, args=(120,))
        draining.start()
        assert failing.wait(120)
        queue.put(1, tracker.job("newer"))
        replaced.set()
        draining.join()
        assert queue.drain(120)
    assert tracker.done == ["newer"]


def test_a_drain_ends_in_its_time_even_if_jobs_succeed() -> None:
    tracker = Tracker()
    with RetryQueue(tracker.open, print) as queue:

        def work(_: Any) -> None:
            queue.put("next", work)  # there is always another one

        queue.put("next", work)
        assert not queue.drain(wait=120, most=0.5)


def test_a_drain_gives_up_if_the_tracker_cannot_be_opened_for_good() -> None:
    lines: list[str] = []

    def refuse() -> Any:
        raise InputError("is damaged")

    with RetryQueue(refuse, lines.append) as queue:
        queue.put(1, Tracker().job(1))
        assert not queue.drain(600)
    assert lines == ["tracking: is damaged; the sweep goes on, and what is missing is written later"]


def test_a_job_that_is_refused_is_no_reason_to_give_up() -> None:
    tracker, tries = Tracker(), list[int]()

    def refuse(_: Any) -> None:
        tries.append(len(tries))
        if len(tries) < 5:
            raise InputError("is damaged")

    with RetryQueue(tracker.open, lambda line: None) as queue:
        queue.put(1, refuse)
        queue.put(2, tracker.job(2))
        assert queue.drain(600)
    assert tracker.done == [2]


def test_a_drain_does_not_wait_for_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_queue, "FIRST_PAUSE", 600)
    monkeypatch.setattr(retry_queue, "LONGEST_PAUSE", 600)
    tracker, told, damaged = Tracker(), threading.Event(), [True]

    def open_tracker() -> Any:
        if damaged:
            raise InputError("is damaged")
        return tracker

    with RetryQueue(open_tracker, lambda line: told.set()) as queue:
        queue.put(1, tracker.job(1))
        assert told.wait(60)
        assert not queue.drain(120)
        damaged.clear()
        assert queue.drain(120)
    assert tracker.done == [1]


def test_leaving_does_not_wait_for_a_tracker_that_is_away() -> None:
    tracker = Tracker()
    tracker.away = True
    with RetryQueue(tracker.open, lambda text: None) as queue:
        queue.put(1, tracker.job(1))
    assert not queue.drain(120)


def test_jobs_that_are_due_are_done_together_but_for_one_that_must_be_alone() -> None:
    tracker, seen = Tracker(), dict[int, bool]()
    with RetryQueue(tracker.open, print) as queue:
        for key in range(4):
            queue.put(key, lambda tracker, key=key: seen.update({key: tracker.together_now}), alone=key == 2)
        assert queue.drain(120)
    assert seen == {0: True, 1: True, 2: False, 3: True}
