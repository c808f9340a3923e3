"""A sweep of made-up trials whose checkpoints are in its store, as a driver that died has left it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orchestrator.driver.ownership import take_store
from orchestrator.store import TrialStore, store_of
from orchestrator.study.lease import hold_lease
from orchestrator.study.study import SweepStudy
from search_spaces.sweep import Sweep
from tests.support import made_up
from trainers import checkpoint
from trainers.data.samples import save_png
from trainers.rungs import Rung

KIDS = ((0.5, 0.4), (0.6,), (0.7, 0.2))
"""The KIDs of three trials at their rungs of 1, 2, ... kimg."""


def left_sweep(
    root: Path, sweep: Sweep, kids: Sequence[Sequence[float]] = KIDS, owned: bool = True
) -> tuple[SweepStudy, TrialStore]:
    """A study below `root` and its store; with `owned` the store says whose it is, as one of an earlier release not."""
    folder = root / sweep.name
    folder.mkdir(parents=True)
    study = SweepStudy.create(folder, sweep)
    store = store_of(study.sweep, folder)
    with hold_lease(sweep.name, folder, study.lease_records) as lease:
        study.drive(lease)
        if owned:
            take_store(study)
        for trial in kids:
            ticket = study.next_ticket()
            assert ticket is not None
            store.claim(ticket.number, ticket.attempt)
            for count in range(1, len(trial) + 1):
                history = made_up.history(*trial[:count])
                save(store, study, ticket.number, history)
                study.report(ticket.number, history)
    return study, store


def save(store: TrialStore, study: SweepStudy, number: int, history: Sequence[Rung], **other: Any) -> None:
    """Publishes the checkpoint of a trial after `history`; `other` has a system, or fields of the configuration."""
    system, config = study.sweep.configure(study.record(number).params)
    publish(store, number, history, other.pop("system", system), config.model_dump(mode="json") | other)


def publish(store: TrialStore, number: int, history: Sequence[Rung], system: str, config: dict[str, Any]) -> None:
    """Publishes a checkpoint with all that tells whose it is, and a picture."""
    images = history[-1].images
    store.publish(number, 1, _written(checkpoint.folder_name(images), history, system, config), [images])


def _written(name: str, history: Sequence[Rung], system: str, config: dict[str, Any]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        save_png(np.zeros((2, 2, 3), np.uint8), folder / "samples" / f"{name}.png")
        manifest = {"system": system, "history": [rung.to_json() for rung in history]}
        checkpoint.write(folder / "checkpoints" / name, {"value": torch.zeros(3)}, {"config": config}, manifest)
        return folder / "checkpoints" / name

    return write
