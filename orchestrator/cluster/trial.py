"""One trial of a sweep in its own process: trains, scores and publishes checkpoints, without knowing the study."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cluster.runs import Origin, new_run
from orchestrator.store import store_of
from orchestrator.study.inputs import Inputs
from search_spaces.sweep import Sweep
from trainers.parallel.group import ALONE
from trainers.rungs import Rung, worth_keeping

if TYPE_CHECKING:
    from orchestrator.cluster.workers import Team


class SweepTrial:
    """A trial that continues from its newest checkpoint in the store, if it has one.

    `inputs` are those of its study; None if there is no study. Raises StaleAttemptError if a later attempt has claimed
    the trial, OtherInputsError if this node has other inputs.
    """

    def __init__(
        self,
        sweep: Sweep,
        folder: Path,
        cache: Path,
        number: int,
        params: dict[str, Any],
        attempt: int,
        team: Team | None = None,
        inputs: Inputs | None = None,
    ) -> None:
        self._store, self._team = store_of(sweep, folder), team
        self._number, self._attempt = number, attempt
        self._store.claim(number, attempt)
        origin = Origin(inputs, folder) if inputs else None
        with self._all("begin", sweep.normalised(), cache, params, origin):
            self._begin(sweep, cache, params, origin)

    def _begin(self, sweep: Sweep, cache: Path, params: dict[str, Any], origin: Origin | None) -> None:
        self.run = new_run(sweep, cache, params, self._team.parallel if self._team else ALONE, origin)
        passed_over: list[str] = []
        with self._store.newest(self._number, passed_over.append) as found:
            since = f"goes on from {found.name}" if found else "no checkpoint is whole: begins anew"
            self.damaged = [f"{since}; {text}" for text in dict.fromkeys(passed_over)]
            """A sentence for each checkpoint that could not be used."""
            self._loaded_only = found is not None
            """Whether the history was loaded and `advance` has not returned it yet."""
            if found is not None:
                self.run.load(found)
        self.run.share()

    def advance(self) -> list[Rung]:
        """Trains to the next rung, or scores the last one on more images if that was requested; returns all rungs.

        If a checkpoint was loaded, the first call trains nothing and returns its rungs: perhaps the study lacks some of
        them, and perhaps it decides to end the trial after them.
        """
        if not self._loaded_only:
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
        self._loaded_only = False
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
        """Has the other workers of the trial, if there are any, call `method` while the block runs."""
        return self._team.together(method, *arguments) if self._team else nullcontext()
