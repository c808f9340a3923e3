"""Processes that work together in tests: started once, in one group after another, given functions by name."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from trainers.parallel.group import ALONE, join, listen

HOST = "127.0.0.1"
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Failed:
    """What a process raised instead of an answer."""

    kind: str
    text: str


class Team:
    """`count` processes, of which the first ones form a group."""

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.processes: list[Any] = []
        self.size = 0
        self._pipes: list[Connection] = []
        for rank in range(count):
            ours, theirs = context.Pipe()
            self.processes.append(context.Process(target=_serve, args=(theirs, rank), daemon=True))
            self.processes[-1].start()
            theirs.close()
            self._pipes.append(ours)

    @contextmanager
    def group(self, size: int, timeout_s: float = TIMEOUT_S) -> Iterator[None]:
        """Lets the first `size` processes be a group in the block."""
        self.size = 1
        (port,) = self.all("listen")
        self.size = size
        self.all("join", port, size, timeout_s)
        try:
            yield
        finally:
            self.outcomes("leave")

    def all(self, function: Callable[..., Any] | str, *args: Any) -> list[Any]:
        """What `function(parallel, *args)` gives in each process of the group; AssertionError where one raises."""
        answers = self.outcomes(function, *args)
        assert not [answer for answer in answers if isinstance(answer, Failed)], answers
        return answers

    def outcomes(self, function: Callable[..., Any] | str, *args: Any) -> list[Any]:
        """As `all`, with `Failed` in place of an answer; of a process that is gone it says EOFError."""
        group = self._pipes[: self.size]
        for pipe in group:
            _send(pipe, function, args)
        return [_answer(pipe) for pipe in group]

    def stop(self) -> None:
        """Ends the processes."""
        for process in self.processes:
            process.kill()
            process.join()


def _send(pipe: Connection, function: Callable[..., Any] | str, args: tuple[Any, ...]) -> None:
    with suppress(BrokenPipeError):
        pipe.send_bytes(pickle.dumps((function, args)))


def _answer(pipe: Connection) -> Any:
    try:
        return pickle.loads(pipe.recv_bytes())
    except (EOFError, ConnectionResetError):
        return Failed("EOFError", "")


def _serve(pipe: Connection, rank: int) -> None:
    torch.set_num_threads(1)
    member = _Member(rank)
    while True:
        try:
            function, args = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        try:
            answer = getattr(member, function)(*args) if isinstance(function, str) else function(member.parallel, *args)
        except Exception as error:
            answer = Failed(type(error).__name__, str(error))
        pipe.send_bytes(pickle.dumps(answer))


class _Member:
    def __init__(self, rank: int) -> None:
        self._rank, self.parallel = rank, ALONE

    def listen(self) -> int:
        self._listening = listen(HOST)
        return self._listening.port

    def join(self, port: int, size: int, timeout_s: float) -> None:
        if self._rank == 0:
            self.parallel = self._listening.join(size, "cpu", timeout_s)
        else:
            self.parallel = join(HOST, port, self._rank, size, "cpu", timeout_s)

    def leave(self) -> None:
        self.parallel.leave()
        self.parallel = ALONE
