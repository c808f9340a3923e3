"""A real sweep over a real S3 server: what a machine loses with its disk, the bucket has."""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from orchestrator.store import store_of
from orchestrator.study.study import SweepStudy
from tests.support import sweeps
from tests.support.servers import ACCESS_KEY, SECRET_KEY, S3Server
from trainers.checkpoint import folder_name

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.usefixtures("mnist_mini_lenet")]

TEXT = sweeps.TINY.replace("trials: 5", "trials: 3").replace("{trials: 0}", "{trials: 1, samples: 150}")


@pytest.fixture
def ray_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ray writes in this test; the names of its sockets allow no long path."""
    with TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


def test_a_sweep_that_lost_its_machine_goes_on_from_the_bucket_and_leaves_no_key_anywhere(
    tmp_path: Path, cache_dir: Path, s3: S3Server, ray_files: Path
) -> None:
    bucket, folder = s3.bucket(f"b-{uuid.uuid4().hex}"), tmp_path / "runs" / "tiny"
    sweeps.prepare(tmp_path, cache_dir, TEXT + f"store: {{path: s3://{bucket}/sweeps, endpoint: '{s3.endpoint}'}}\n")
    driver = sweeps.start("launch", "tiny.yaml", cwd=tmp_path)
    sweeps.wait_for(lambda: sum(len(record.rungs) for record in sweeps.records(folder)) >= 3, driver)
    os.kill(driver.pid, signal.SIGKILL)
    said, _ = driver.communicate()
    before = sweeps.records(folder)
    shutil.rmtree(folder / "scratch")
    resumed = sweeps.gansweep("resume", "tiny", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    after = sweeps.records(folder)
    assert [record.state for record in after if record.state not in ("complete", "pruned")] == []
    assert len(after) == 3
    for old, new in zip(before, after, strict=False):
        assert new.rungs[: len(old.rungs)] == old.rungs, "what was reported was not trained again"
    assert sum(record.final is not None for record in after) == 1

    study = SweepStudy.open(folder)
    assert study is not None
    store = store_of(study.sweep, folder)
    assert not (folder / "store").exists()
    for record in after:
        assert list(store.grids(record.number)) == [rung.images for rung in record.rungs]
        with store.newest(record.number) as found:
            assert found is not None
            assert found.name.startswith(folder_name(record.rungs[-1].images))
    left = [path for path in (folder / "scratch").rglob("*") if path.suffix == ".safetensors"]
    assert left == [], "what the bucket has need not fill the machine"
    assert (folder / "report.html").read_text().count("data:image/png") >= 1
    assert "0 orphans" in sweeps.gansweep("gc", "tiny", "--dry-run", cwd=tmp_path).stdout

    texts = {"output": (said + resumed.stdout + resumed.stderr).encode()}
    logs = [path for path in ray_files.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.name == "raylet.out" for path in logs)
    texts |= {str(path): path.read_bytes() for path in (*tmp_path.rglob("*"), *logs) if path.is_file()}
    texts |= {each.key: store.objects.get(each.key)[0] for each in store.objects.find("")}
    for key in (ACCESS_KEY, SECRET_KEY):
        assert [name for name, text in texts.items() if key.encode() in text] == []
