"""Killed between any two of its steps, a publisher leaves whole checkpoints: the last finished one, or a later one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.store import Objects, TrialStore
from orchestrator.store.folder import FolderObjects
from tests.support.objects import MemoryObjects, Watched, left_by, value_in
from trainers.checkpoint import prune

#: What a trial does at a rung: goes on, scores the same rung again, or comes to it once more after a restart.
STEPS = st.lists(st.sampled_from(["next", "next", "again", "redo"]), min_size=1, max_size=6)
FIRST = 100


class Killed(BaseException):
    """The process is no more."""


class Life:
    """So many steps, each an operation on objects or on the names of files; then every further one fails."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self, *_: object) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1

    @contextmanager
    def lived(self) -> Iterator[None]:
        """Counts whatever the block does to the names of files."""
        with ExitStack() as stack:
            for name in ("replace", "unlink", "rmdir", "mkdir"):
                stack.enter_context(mock.patch.object(os, name, self._counted(getattr(os, name))))
            yield

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.step()
            return function(*arguments, **options)

        return counted


@pytest.mark.parametrize("same_machine", [True, False], ids=["same machine", "another machine"])
@pytest.mark.parametrize("files", [True, False], ids=["files", "objects"])
def test_after_a_kill_at_any_step_there_is_a_whole_checkpoint(files: bool, same_machine: bool) -> None:
    steps = ["next", "again", "next", "redo", "next"]
    total = lived(steps, 10**6, files, same_machine)
    assert total > 50
    for steps_lived in range(total):
        lived(steps, steps_lived, files, same_machine)


@settings(max_examples=100, deadline=None)
@given(STEPS, st.floats(0, 1, exclude_max=True), st.booleans(), st.booleans())
def test_after_a_kill_at_some_step_of_some_life_there_is_a_whole_checkpoint(
    steps: list[str], share: float, files: bool, same_machine: bool
) -> None:
    total = lived(steps, 10**6, files, same_machine)
    lived(steps, int(share * total), files, same_machine)


def lived(steps: list[str], lifetime: int, files: bool, same_machine: bool) -> int:
    """Publishes until killed, checks what another process finds, and returns how many steps were taken."""
    with TemporaryDirectory() as folder:
        life, root = Life(lifetime), Path(folder)
        objects: Objects = FolderObjects(root / "store") if files else MemoryObjects()
        store = TrialStore(Watched(objects, life.step), root / "one")
        written, published, images = [0.0], [0.0], FIRST - 100
        with suppress(Killed), life.lived():
            store.claim(3, 1)
            for number, step in enumerate(steps):
                images += 100 if step == "next" or not images else 0
                value = written[-1] if step == "again" and number else float(number + 1)
                store.publish(3, 1, _write(images, value, number, written), [FIRST])
                published.append(value)
        after = TrialStore(objects, root / ("one" if same_machine else "two"))
        after.claim(3, 2)
        assert _newest(after) >= (written[-1] if same_machine or files else published[-1])
        if published[-1]:
            with after.at(3, FIRST) as found:
                value_in(found)
        after.publish(3, 2, _write(images + 100, 99.0, 99, written), [FIRST])
        assert _newest(TrialStore(objects, root / "three")) == 99.0
        return lifetime - life.left


def _write(images: int, value: float, number: int, written: list[float]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        found = left_by(images, value, history=(float(number),))(folder)
        written.append(value)
        prune(folder / "checkpoints", [FIRST])
        return found

    return write


def _newest(store: TrialStore) -> float:
    with store.newest(3) as found:
        return 0.0 if found is None else value_in(found)
