"""The end of a sweep's tracking."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.driver.follower import finish_tracking
from orchestrator.study.lease import LeaseLostError
from orchestrator.study.study import SweepStudy
from tests.support import made_up


@pytest.mark.parametrize("drained", [True, False])
def test_a_driver_that_lost_its_lease_at_its_end_says_so_and_not_what_is_missing(tmp_path: Path, drained: bool) -> None:
    study = SweepStudy.create(tmp_path, made_up.sweep())
    queue: Any = SimpleNamespace(put=lambda *_, **__: None, drain=lambda: drained)
    assert finish_tracking(study, queue, print) is drained

    def lost() -> None:
        raise LeaseLostError("another driver has taken over")

    lease: Any = SimpleNamespace(check=lost)
    study.limits.lease = lease
    with pytest.raises(LeaseLostError):
        finish_tracking(study, queue, print)
