"""What bounds a study from outside: its budget, what people ask of it, and the lease of its driver."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from orchestrator.decisions import budget
from orchestrator.decisions.budget import Limit, Spent, TrialUse
from orchestrator.study import requests as control
from orchestrator.study.formats import read_notes
from orchestrator.study.lease import Claim, Lease, Notes, claims, driver_seconds, holder
from orchestrator.study.requests import Request
from orchestrator.study.storage import fenced
from search_spaces.settings import Budget
from search_spaces.sweep import Sweep
from trainers.evaluation.scores import METRICS

_TRIALS_PER_GPU = "trials per GPU"
#: By these methods of its storage anything is written to a study.
_WRITES = (
    "create_new_study",
    "create_new_trial",
    "delete_study",
    "set_study_system_attr",
    "set_study_user_attr",
    "set_trial_intermediate_value",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_system_attr",
    "set_trial_user_attr",
)


class GovernedStudy:
    """A study that heeds its budget, the requests among its notes, and its driver's lease.

    `sweep` has the budget that holds: that of the file launched last and the trials that were added.
    """

    def __init__(self, sweep: Sweep, study: Any) -> None:
        self.sweep = self._original = sweep
        self._study = study
        self._lease: Lease | None = None
        self.refresh()

    def refresh(self) -> None:
        """Reads what others have noted since."""
        # The study's own property copies all of them, texts of sweeps and finals included, at each event.
        notes = self._study._storage.get_study_user_attrs(self._study._study_id)
        self._notes: Mapping[str, Any] = read_notes(notes, self._original.name)
        holds = control.budget_of(self._original.budget, self._notes)
        if holds != self.sweep.budget:
            self.sweep = self._original.model_copy(update={"budget": holds})

    @property
    def claims(self) -> Sequence[Claim]:
        """The drivers so far, by epoch."""
        return claims(self._notes)

    @property
    def lease_records(self) -> Notes:
        """Where drivers claim this study; to be taken before `drive`, since a lease is written unchecked."""
        write = partial(self._study._storage.set_study_user_attr, self._study._study_id)
        return Notes(lambda: dict(self._study.user_attrs), write)

    def drive(self, lease: Lease) -> None:
        """From now on every write asks `lease` first, and the requests to its holder hold."""
        self._lease = lease
        for name in _WRITES:
            setattr(self._study._storage, name, _checked(getattr(self._study._storage, name), lease.check))
        fenced(self._study, lease.fence)
        self.refresh()

    def check(self) -> None:
        """Raises LeaseLostError where this is no longer the sweep's driver."""
        if self._lease is not None:
            self._lease.check()

    @property
    def leaving(self) -> Literal["stop", "pause"] | None:
        """Whether this driver was asked to stop the sweep or to pause."""
        return control.asked_to_leave(self._notes, self._lease.epoch) if self._lease else None

    @property
    def asked(self) -> Literal["stop", "pause"] | None:
        """The same of the last driver, whoever that was."""
        last = holder(self.claims)
        return control.asked_to_leave(self._notes, last.epoch) if last else None

    @property
    def budget_in_file(self) -> Budget:
        """The budget of the file that was launched last."""
        return control.budget_in_file(self._original.budget, self._notes)

    @property
    def trials_added(self) -> int:
        """Trials that were added to it."""
        return control.trials_added(self._notes)

    @property
    def trials_per_gpu(self) -> int | None:
        """How many trials were found to share a GPU; None where that was not measured."""
        return self._notes.get(_TRIALS_PER_GPU)

    @trials_per_gpu.setter
    def trials_per_gpu(self, trials: int) -> None:
        self._note(_TRIALS_PER_GPU, trials)

    def change_budget(self, in_file: Budget) -> None:
        """Takes a budget over from a file that differs from the study's in nothing else."""
        self._note(*control.budget_note(in_file, self._notes))

    def request(self, request: Request) -> None:
        """Leaves a request to the driver."""
        self._note(*control.as_note(request))

    def spent(self) -> Spent:
        """What the sweep has used so far."""
        metric = METRICS[self.sweep.score.metric]
        return budget.spent(self._uses(), driver_seconds(self.claims), self.sweep.resources, metric)

    def limit(self, spent: Spent | None = None) -> Limit | None:
        """The limit that ends the sweep, which has `spent`, by default what it has so far; None: trials may begin."""
        return budget.used_up(self.sweep.budget, spent or self.spent(), METRICS[self.sweep.score.metric])

    def called_off(self, number: int) -> str | None:
        """Why trial `number` is to end at its next rung whatever it scored; None where it may go on."""
        if self.leaving == "stop" or number in control.stopped_trials(self._notes):
            return control.STOPPED_BY_USER
        limit = self.limit() if budget.may_end_trials(self.sweep.budget) else None
        return limit.reason if limit is not None and limit.urgent else None

    def _note(self, key: str, value: Any) -> None:
        self._study.set_user_attr(key, value)
        self.refresh()

    def _uses(self) -> Iterable[TrialUse]:
        raise NotImplementedError


def _checked(write: Callable[..., Any], check: Callable[[], None]) -> Callable[..., Any]:
    def checked(*arguments: Any, **named: Any) -> Any:
        check()
        return write(*arguments, **named)

    return checked
