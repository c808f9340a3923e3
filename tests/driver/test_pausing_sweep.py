"""Pausing in a real sweep: trials go on elsewhere from their checkpoints, and their curves have no seam."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import sweeps

TEXT = sweeps.TINY.replace("pruner: {name: median, startup: 2}", "sampler: random\npruner: {name: NAME}").replace(
    "until: 2", "until: 3"
)


@pytest.mark.slow
@pytest.mark.usefixtures("mnist_mini_lenet")
def test_a_promoted_trial_has_the_curve_of_one_that_was_never_paused(tmp_path: Path, cache_dir: Path) -> None:
    for name in ("freeze-thaw", "none"):
        sweeps.prepare(tmp_path, cache_dir, TEXT.replace("NAME", name))
        done = sweeps.gansweep("launch", "tiny.yaml", "--name", name, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
    paused, whole = (sweeps.records(tmp_path / "runs" / name) for name in ("freeze-thaw", "none"))
    assert [record.number for record in paused] == list(range(5))
    assert {record.state for record in paused} == {"complete", "pruned"}
    for record, undisturbed in zip(paused, whole, strict=True):
        assert record.params == undisturbed.params
        assert record.rungs
        for rung, other in zip(record.rungs, undisturbed.rungs, strict=False):
            assert (rung.images, rung.scores, rung.diversity) == (other.images, other.scores, other.diversity)
    # More than one slice each: some trial was given up and taken up again.
    attempts = [
        int((tmp_path / f"runs/freeze-thaw/store/trials/{record.number:05d}/attempt").read_text()) for record in paused
    ]
    assert max(attempts) > 2
    assert sum(len(record.rungs) for record in paused) < sum(len(record.rungs) for record in whole)
