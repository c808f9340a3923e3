"""Laws of how many trainings share a device."""

from __future__ import annotations

import pytest

from trainers.catalogue import SYSTEMS
from trainers.config import overlay
from trainers.tools import gpu_sharing as sharing
from trainers.tools.gpu_sharing import Shared, best, measured


@pytest.mark.parametrize(
    ("speeds", "wanted"),
    [
        ({1: 100.0}, 1),
        ({1: 100.0, 2: 190.0, 4: 350.0, 8: 600.0}, 8),
        ({1: 100.0, 2: 190.0, 4: 195.0, 8: 199.0}, 2),
        ({1: 100.0, 2: 90.0, 4: 80.0}, 1),
        ({1: 100.0, 2: 150.0, 4: 170.0, 8: 100.0}, 4),
    ],
)
def test_as_many_share_as_pay_and_no_more(speeds: dict[int, float], wanted: int) -> None:
    assert best([Shared(count, speed, 0) for count, speed in speeds.items()]) == wanted


def test_processes_train_at_the_same_time_and_tell_their_speed() -> None:
    config = overlay(SYSTEMS["narman-cgan"].defaults, {"width": 0.1, "batch": 10})
    found = list(measured("narman-cgan", config, 10, (1,), seconds=0.2))
    assert [each.trainings for each in found] == [1]
    assert found[0].images_per_s > 0
    assert found[0].memory == 0, "on a CPU there is no device memory"


def test_a_process_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "PATIENCE", 60.0)
    with pytest.raises(RuntimeError, match="has died"):
        list(measured("no-such-system", SYSTEMS["narman-cgan"].defaults, 10, (1,), seconds=0.1))
