"""The interface of a pruner: data from the sweep file, and a pure rule that judges trials by their scores.

Two questions are asked of a pruner. `judge`: does a trial that has just been scored go on? `policy`: which trial is
trained next, and for how long? A kind answers one of them and inherits the usual answer to the other. Nothing here
reads a clock, a file or the environment: the same scores give the same answers, in a real sweep and in a simulation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from search_spaces.settings import Section
from trainers.evaluation.scores import Score


@dataclass(frozen=True)
class Curve:
    """The scores of one trial by the metric that decides, rung by rung."""

    steps: tuple[int, ...]
    """Images, epochs, or whatever a rung is counted in; increasing."""
    scores: tuple[Score | None, ...]
    """One for each step; None if nothing was measured, because the trial diverged."""

    def best(self, until: float = math.inf) -> Score | None:
        """The best score up to a step, the earliest of equal ones; None if there is none."""
        known = [score for step, score in zip(self.steps, self.scores, strict=True) if score and step <= until]
        return min(known, key=lambda score: score.cost, default=None)

    def cost(self, until: float = math.inf) -> float:
        """The best score up to a step, turned so that less is better; infinite if there is none."""
        best = self.best(until)
        return math.inf if best is None else best.cost


@dataclass(frozen=True)
class Answer:
    """The answer of a pruner for a trial after a rung."""

    kind: Literal["continue", "prune", "measure"]
    reason: str = ""
    """Why the trial is pruned, for people."""
    images: int = 0
    """On how many generated images the last rung must be scored again before the pruner decides."""


CONTINUE = Answer("continue")


def prune(reason: str) -> Answer:
    """The trial ends, because of `reason`."""
    return Answer("prune", reason=reason)


def measure(images: int) -> Answer:
    """The last rung is scored again on `images` images, and the pruner is asked again."""
    return Answer("measure", images=images)


#: The number of a paused trial, a new trial, or nothing at the moment.
Choice = int | Literal["start"] | None


class Policy(Protocol):
    """Decides which trial is trained next. It is told about every start, pause and end of a trial."""

    def started(self, number: int) -> None:
        """Trial `number` has begun."""

    def paused(self, number: int, curve: Curve) -> None:
        """Trial `number` has reached the end of its slice and waits."""

    def resumed(self, number: int) -> None:
        """Trial `number` goes on. `choose` calls this itself for the trial that it chooses."""

    def ended(self, number: int, curve: Curve) -> None:
        """Trial `number` is complete, pruned or failed."""

    def target(self, rungs: Sequence[int], passed: int) -> int:
        """The rung at which a trial that has passed `passed` steps pauses next; at the last rung it is complete."""

    def choose(self, may_start: bool) -> Choice:
        """The next trial; `may_start` says whether the budget allows a new one."""


class NeverPause:
    """Never pauses a trial: each runs to the last rung unless it is pruned."""

    def started(self, number: int) -> None:
        """Keeps nothing."""

    def paused(self, number: int, curve: Curve) -> None:
        """Keeps nothing."""

    def resumed(self, number: int) -> None:
        """Keeps nothing."""

    def ended(self, number: int, curve: Curve) -> None:
        """Keeps nothing."""

    def target(self, rungs: Sequence[int], passed: int) -> int:
        return rungs[-1]

    def choose(self, may_start: bool) -> Choice:
        return "start" if may_start else None


def slice_end(policy: Policy, rungs: Sequence[int], passed: int) -> int:
    """The rung at which a running trial that has passed `passed` steps pauses next."""
    target = 0
    while target <= passed and target < rungs[-1]:
        target = policy.target(rungs, target)
    return target


def replay(
    policy: Policy, rungs: Sequence[int], number: int, curves: Sequence[Curve], paused: bool, ended: bool
) -> None:
    """Tells `policy` all events of trial `number`, so that a restarted driver decides as the last one did.

    `curves` are those after each rung that the trial has passed; `paused` says whether it was paused last.
    """
    policy.started(number)
    end = slice_end(policy, rungs, 0)
    for curve in curves:
        passed = curve.steps[-1]
        if passed < end or end >= rungs[-1]:
            continue
        policy.paused(number, curve)
        if paused and not ended and passed == curves[-1].steps[-1]:
            break
        policy.resumed(number)
        end = slice_end(policy, rungs, passed)
    if ended:
        policy.ended(number, curves[-1] if curves else Curve((), ()))


class Pruner(Section):
    """The base of all kinds of pruners. Its fields are the keys of the section `pruner` in a sweep file.

    A new kind is a subclass in a file of this folder and a line in the table PRUNERS.
    """

    name: str
    pauses: ClassVar[bool] = False
    """Whether trials are paused and may go on later."""
    one_objective: ClassVar[bool] = False
    """Whether it can prune a sweep with one objective only."""

    @property
    def title(self) -> str:
        """Its name in messages."""
        return self.name

    def judge(self, curve: Curve, complete: Iterable[Curve], most_images: int) -> Answer:
        """Whether the trial of `curve`, which has just been scored before its last rung, goes on.

        `complete` are the curves of the complete trials. A score may be measured again on at most `most_images` images.
        """
        return CONTINUE

    def policy(self) -> Policy:
        """A new policy, which has been told nothing yet."""
        return NeverPause()

    def optuna_pruner(self, rungs: Sequence[int]) -> tuple[str, dict[str, Any]] | None:
        """Class, as "package.module:Name", and arguments of the Optuna pruner that judges instead; None for our own."""
        return None


class Unpruned(Pruner):
    """Every trial runs to the last rung."""

    name: Literal["none"] = "none"
