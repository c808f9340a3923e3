"""One trial of a sweep as a run in a process of its own, without study or cluster."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cluster.runs import new_run
from orchestrator.store import store_of
from search_spaces.sweep import Sweep
from trainers.parallel.group import ALONE
from trainers.rungs import Rung, worth_keeping

if TYPE_CHECKING:
    from orchestrator.cluster.workers import Team


class SweepTrial:
    """A trial that goes on from its newest checkpoint in the store, if it has one."""

    def __init__(
        self,
        sweep: Sweep,
        folder: Path,
        cache: Path,
        number: int,
        params: dict[str, Any],
        attempt: int,
        team: Team | None = None,
    ) -> None:
        self._store, self._team = store_of(sweep, folder), team
        self._number, self._attempt = number, attempt
        self._store.claim(number, attempt)
        with self._all("begin", sweep.normalised(), cache, params):
            self._begin(sweep, cache, params)

    def _begin(self, sweep: Sweep, cache: Path, params: dict[str, Any]) -> None:
        self.run = new_run(sweep, cache, params, self._team.parallel if self._team else ALONE)
        passed_over: list[str] = []
        with self._store.newest(self._number, passed_over.append) as found:
            since = f"goes on from {found.name}" if found else "no checkpoint is whole: begins anew"
            self.damaged = [f"{since}; {text}" for text in dict.fromkeys(passed_over)]
            """What is to be told of checkpoints that could not be used."""
            self._untold = found is not None
            if found is not None:
                self.run.load(found)
        self.run.share()

    def advance(self) -> list[Rung]:
        """Passes one more rung, or scores the last one on more images where that was asked; returns all so far.

        After a restart the first call trains nothing: what the checkpoint knows may never have reached the study,
        and the study may want no more of this trial.
        """
        if not self._untold:
            if not self._measured_again():
                with self._all("follow", self.run.target):
                    self.run.next_rung()
            keep = self._store.keep
            self._store.publish(
                self._number,
                self._attempt,
                lambda folder: self.run.save(folder, keep.last, keep.best),
                worth_keeping(self.run.history, self.run.evaluator.metrics[0], keep.best),
                final=self.run.finished,
            )
        self._untold = False
        return self.run.history

    def _measured_again(self) -> bool:
        if not self.run.history:
            return False
        samples = self._store.requested(self._number, self.run.history[-1].images)
        if samples is None or not self.run.may_measure(samples):
            return False
        with self._all("follow_measure", samples):
            return self.run.measure_again(samples)

    def _all(self, method: str, *arguments: Any) -> AbstractContextManager[None]:
        """The other workers of the trial, if it has any, do their part of what the block does."""
        return self._team.together(method, *arguments) if self._team else nullcontext()
