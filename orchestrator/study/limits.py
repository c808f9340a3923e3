"""The limits of a sweep: its budget, the requests of people, and the lease of its driver."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from orchestrator.decisions import budget
from orchestrator.decisions.budget import Limit, Spent, TrialUse
from orchestrator.study import requests
from orchestrator.study.lease import Claim, Lease, claims, driver_seconds, last_claim
from orchestrator.study.notes import StudyNotes
from orchestrator.study.requests import Request
from search_spaces.settings import Budget
from search_spaces.sweep import Sweep
from trainers.data.spec import DatasetSpec
from trainers.evaluation.scores import METRICS

_TRIALS_PER_GPU = "trials per GPU"


class Limits:
    """The limits of one sweep, read from the notes on its study.

    `sweep` has the budget in force: that of the file launched last, plus the trials that were added since.
    """

    def __init__(self, sweep: Sweep, notes: StudyNotes, uses: Callable[[], Iterable[TrialUse]]) -> None:
        """`uses` gives what each trial has used so far."""
        self.sweep = self.original = sweep
        self._notes, self._uses = notes, uses
        self.lease: Lease | None = None
        """The lease of this process, if it is the driver."""
        self.refresh()

    def refresh(self) -> None:
        """Reads the notes that others have written since."""
        self._notes.refresh()
        in_force = requests.budget_of(self.original.budget, self._notes.values)
        self.sweep = self.original if in_force == self.original.budget else self._with(in_force)

    def _with(self, budget: Budget) -> Sweep:
        # Copies only if something has changed, since this runs at each event.
        now = self.sweep
        if (now.budget, now.defaults, now.dataset) == (budget, self.original.defaults, self.original.dataset):
            return now
        return self.original.model_copy(update={"budget": budget})

    @property
    def claims(self) -> Sequence[Claim]:
        """The claims of all drivers so far, by epoch."""
        return claims(self._notes.values)

    def check(self) -> None:
        """Raises LeaseLostError if this process was the driver and another one has taken over."""
        if self.lease is not None:
            self.lease.check()

    @property
    def leaving(self) -> Literal["stop", "pause"] | None:
        """What this driver was asked to do; None if nothing."""
        return requests.asked_to_leave(self._notes.values, self.lease.epoch) if self.lease else None

    @property
    def asked(self) -> Literal["stop", "pause"] | None:
        """What the last driver, in this or another process, was asked to do; None if nothing."""
        last = last_claim(self.claims)
        return requests.asked_to_leave(self._notes.values, last.epoch) if last else None

    @property
    def budget_in_file(self) -> Budget:
        """The budget of the file that was launched last."""
        return requests.budget_in_file(self.original.budget, self._notes.values)

    @property
    def trials_added(self) -> int:
        """Trials that were added to that budget."""
        return requests.trials_added(self._notes.values)

    @property
    def trials_per_gpu(self) -> int | None:
        """How many trials share a GPU, as measured; None if nothing was measured."""
        found: int | None = self._notes.get(_TRIALS_PER_GPU)
        return found

    @trials_per_gpu.setter
    def trials_per_gpu(self, trials: int) -> None:
        self._notes.write(_TRIALS_PER_GPU, trials)

    def move_data(self, dataset: DatasetSpec) -> None:
        """Has `dataset` name the place of the images; the study keeps it with its next `upgrade`."""
        self.original = self.original.model_copy(update={"dataset": dataset})

    def change_budget(self, in_file: Budget) -> None:
        """Takes over the budget of a file that differs from the study's sweep in nothing else."""
        self._notes.write(*requests.budget_note(in_file, self._notes.values))
        self.refresh()

    def request(self, request: Request) -> None:
        """Leaves a request for the driver."""
        self._notes.write(*requests.as_note(request))
        self.refresh()

    def spent(self) -> Spent:
        """What the sweep has used so far."""
        metric = METRICS[self.sweep.score.metric]
        return budget.spent(self._uses(), driver_seconds(self.claims), self.sweep.resources, metric)

    def limit(self, spent: Spent | None = None) -> Limit | None:
        """The limit that ends the sweep; None as long as new trials may begin.

        `spent` is what the sweep has used; by default it is counted now.
        """
        return budget.reached_limit(self.sweep.budget, spent or self.spent(), METRICS[self.sweep.score.metric])

    def reason_to_end(self, number: int) -> str | None:
        """Why trial `number` must end at its next rung, whatever it scores; None if it may go on."""
        if self.leaving == "stop" or number in requests.stopped_trials(self._notes.values):
            return requests.STOPPED_BY_USER
        limit = self.limit() if budget.may_end_trials(self.sweep.budget) else None
        return limit.reason if limit is not None and limit.ends_trials else None
