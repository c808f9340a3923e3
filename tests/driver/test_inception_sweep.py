"""A sweep that is scored and pruned through the official network's interface, and what it says without the network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from orchestrator.paths import mlflow_uri
from tests.support import sweeps
from tests.support.random_inception import write_random_inception
from trainers.data.files import digest
from trainers.data.shapes import draw
from trainers.evaluation import inception, weights
from trainers.evaluation.resize import resize

SWEEP = """\
system: monir-dcgan
dataset: {{name: folder, path: pictures}}
search:
  g_lr: {{log_uniform: [5e-5, 5e-3]}}
  width: 0.125
  batch: 16
rungs: [0.048, 0.096]
score:
  samples: 12
  doublings: 0
  extractor: {extractor}
sampler: random
pruner: {{name: median, startup: 1}}
finals: {{trials: 1, samples: 12}}
budget: {{trials: 6}}
"""
OFFLINE = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pictures, and weights in a file of the official kind."""
    place = tmp_path_factory.mktemp("inception")
    images, labels = draw(48, 7)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = place / "pictures" / f"class{label}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
    write_random_inception(place / "random.pt", resize(torch.from_numpy(images[:8]), inception.SIZE))
    return place


@pytest.mark.slow
def test_rungs_and_pruning_use_the_weights_of_the_file(folder: Path) -> None:
    sha256 = digest(folder / "random.pt")
    extractor = f"{{name: inception, weights: random.pt, sha256: {sha256}}}"
    (folder / "sweep.yaml").write_text(SWEEP.format(extractor=extractor))
    done = sweeps.gansweep("launch", "sweep.yaml", cwd=folder, timeout=1700)
    assert done.returncode == 0, done.stdout + done.stderr
    records = sweeps.records(folder / "runs" / "sweep")
    assert len(records) == 6
    assert {record.state for record in records} == {"complete", "pruned"}
    assert all("kid" in (record.reason or "") for record in records if record.state == "pruned")
    client = MlflowClient(mlflow_uri(folder / "runs"))
    runs = client.search_runs([client.get_experiment_by_name("sweep").experiment_id])
    tracked = {run.data.tags["gansweep.trial"]: run.data.metrics for run in runs if "gansweep.trial" in run.data.tags}
    for record in records:
        last = record.rungs[-1].scores
        assert set(last) == {"kid", "fid"}
        assert {score.extractor for score in last.values()} == {f"inception-custom-{sha256[:12]}-float32-bicubic299"}
        for name, score in last.items():
            assert tracked[str(record.number)][name] == pytest.approx(score.value)


@pytest.mark.parametrize("extractor", ["inception", "{name: inception, weights: absent.pt}"])
def test_without_weights_nothing_starts_and_the_message_says_where_they_belong(
    folder: Path, extractor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    (folder / "without.yaml").write_text(SWEEP.format(extractor=extractor))
    done = sweeps.gansweep("launch", "without.yaml", cwd=folder)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    place = "absent.pt" if "absent" in extractor else f"runs/cache/{weights.NAME}"
    assert place in done.stderr
    if extractor == "inception":
        assert weights.URL in done.stderr
    assert not (folder / "runs" / "without").exists()
