"""What the driver may ask of a tracker, whether it lives in the driver's process or in one of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from orchestrator.study.records import TrialRecord
from orchestrator.study.status import SweepStatus

SampleGrids = Callable[[int], dict[int, Path]]
"""Given a trial's number: its sample grids, as picture files by the number of images trained."""


class TrackerInterface(Protocol):
    """Writes the runs of one study to a tracker.

    Every method may raise. It is then unknown what was written, and a new tracker goes on from what it finds. Every
    call may be repeated: nothing is written twice.
    """

    def together(self) -> AbstractContextManager[None]:
        """Writes what is called in the block in one transaction, if the tracker has a database without a server.

        A server gets the calls one by one. `register` must not be called in the block.
        """

    def sync(self, record: TrialRecord, grids: SampleGrids) -> None:
        """Writes what the run of the trial lacks of `record`; `grids` finds its sample grids."""

    def mark(self, front: Sequence[int]) -> None:
        """Marks the runs of the trials `front` as the Pareto front, and no others: a later trial may dominate one."""

    def finish(self, status: SweepStatus, report: Path) -> None:
        """Ends the sweep's run, with the winner's scores and the file `report`.

        The run of a complete sweep is FINISHED, that of any other KILLED.
        """

    def register(self, winner: TrialRecord, checkpoint: Path) -> None:
        """Makes `checkpoint`, the folder of the winner's best rung, the best version of the sweep's model.

        There is one version for each winner, with a copy of the checkpoint among the artifacts of its run.
        """
