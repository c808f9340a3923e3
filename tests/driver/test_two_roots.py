"""Two real launches at once, from two roots, of one name into one store: one runs, the other one leaves nothing."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from orchestrator.paths import sweep_names
from orchestrator.store import store_of
from orchestrator.store.ownership import OWNER
from orchestrator.study.study import SweepStudy
from tests.support import sweeps
from tests.support.servers import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mnist_mini_lenet")]


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_of_two_launches_into_one_store_one_runs(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, cache_dir: Path
) -> None:
    if kind == "folder":
        place = f"{{path: {tmp_path / 'shared'}}}"
    else:
        server: S3Server = request.getfixturevalue("s3")
        bucket = server.bucket(f"b-{uuid.uuid4().hex}")
        place = f"{{path: s3://{bucket}/sweeps, endpoint: '{server.endpoint}'}}"
    text = sweeps.TINY.replace("trials: 5", "trials: 2") + f"store: {place}\n"
    roots = [tmp_path / "one", tmp_path / "two"]
    for root in roots:
        sweeps.prepare(root, cache_dir, text)
    drivers = [sweeps.start("launch", "tiny.yaml", cwd=root) for root in roots]
    said = [driver.communicate(timeout=900)[0] for driver in drivers]
    assert sorted(driver.returncode for driver in drivers) == [0, 2], said
    first, second = (roots, said) if drivers[0].returncode == 0 else (roots[::-1], said[::-1])
    root, refusal = first[0], second[1]
    assert "belongs to another sweep" in refusal
    assert "use another --name or store.path" in refusal
    assert "Traceback" not in refusal
    assert sweep_names(first[1] / "runs") == []

    study = SweepStudy.open(root / "runs" / "tiny")
    assert study is not None
    objects = store_of(study.sweep, study.folder).objects
    before = {each.key for each in objects.find("")}
    assert json.loads(objects.get(OWNER)[0])["id"] == study.id
    assert "0 orphans" in sweeps.in_process("gc", "tiny", cwd=root).stdout
    assert sweeps.in_process("gc", "tiny", cwd=first[1]).returncode == 2
    assert {each.key for each in objects.find("")} == before

    # As an earlier release would have left it.
    objects.delete([OWNER])
    assert sweeps.in_process("launch", "tiny.yaml", cwd=first[1]).returncode == 2
    done = sweeps.in_process("resume", "tiny", cwd=root)
    assert done.returncode == 0, done.stderr
    assert {each.key for each in objects.find("")} == before
