"""Laws of `gansweep score`: anybody's images get the numbers of a rung, or one sentence on why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests import sweeps
from trainers import SYSTEMS
from trainers.config import overlay
from trainers.data import DatasetSpec, ImageData
from trainers.errors import InputError
from trainers.evaluation.extractors import Extractor, ExtractorSpec
from trainers.evaluation.reference import reference_of
from trainers.evaluation.scores import Evaluator, Score
from trainers.run import Run
from trainers.scoring import score

Digits = tuple[ImageData, ImageData]
Scored = Callable[..., dict[str, Score]]
MINI, LENET = DatasetSpec(name="mnist-mini"), ExtractorSpec(name="lenet")


def write(folder: Path, data: ImageData, count: int, classes: bool = False) -> Path:
    for index, (image, label) in enumerate(zip(data.images[:count], data.labels[:count], strict=True)):
        parent = folder / str(int(label)) if classes else folder
        parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(parent / f"{index:05d}.png")
    return folder


@pytest.fixture
def scored(cache_dir: Path, mnist_mini_lenet: Extractor) -> Scored:
    def run(source: Path, metrics: tuple[str, ...] = (), samples: int = 100) -> dict[str, Score]:
        return score(source, MINI, LENET, metrics, samples, cache_dir)

    return run


def test_a_folder_gets_the_numbers_of_its_images(
    tmp_path: Path,
    scored: Scored,
    cache_dir: Path,
    mnist_mini: tuple[ImageData, ImageData],
    mnist_mini_lenet: Extractor,
) -> None:
    train, test = mnist_mini
    found = scored(write(tmp_path / "images", test, 60))
    evaluator = Evaluator(mnist_mini_lenet, reference_of(mnist_mini_lenet, train, cache_dir), ("kid", "fid", "is"), 0)
    assert found == evaluator(test.images[:60], test.labels[:60], conditional=False).scores


def test_class_folders_are_labels(tmp_path: Path, scored: Scored, mnist_mini: tuple[ImageData, ImageData]) -> None:
    _, test = mnist_mini
    assert scored(write(tmp_path / "images", test, 100, classes=True))["accuracy"].value > 0.9


def test_a_checkpoint_gets_the_scores_of_its_rung(
    tmp_path: Path,
    scored: Scored,
    cache_dir: Path,
    mnist_mini: tuple[ImageData, ImageData],
    mnist_mini_lenet: Extractor,
) -> None:
    train, _ = mnist_mini
    system = SYSTEMS["narman-cgan"]
    config = overlay(system.defaults, {"width": 0.1, "batch": 10, "kimg": 0.02, "ema_decay": 0.5})
    evaluator = Evaluator(mnist_mini_lenet, reference_of(mnist_mini_lenet, train, cache_dir), ("kid", "accuracy"), 0)
    run = Run("narman-cgan", system, config, train, evaluator, [20], 100)
    rung = run.next_rung()
    run.save(tmp_path)
    for source in (tmp_path, tmp_path / "checkpoints", tmp_path / "checkpoints" / "0000000020"):
        assert scored(source, ("kid", "accuracy")) == rung.scores


def test_what_cannot_be_scored_is_told_in_one_sentence(
    tmp_path: Path, scored: Scored, mnist_mini: tuple[ImageData, ImageData]
) -> None:
    _, test = mnist_mini
    (tmp_path / "empty").mkdir()
    good = write(tmp_path / "good", test, 30)

    def spoilt(name: str, array: NDArray[Any]) -> Path:
        folder = shutil.copytree(good, tmp_path / name)
        Image.fromarray(array).save(folder / "zz.png")
        return folder

    cases = [
        (tmp_path / "nowhere", (), "no such folder"),
        (tmp_path / "empty", (), "no images"),
        (spoilt("mixed", np.zeros((30, 28), np.uint8)), (), "its size differs .* 28x30 and 28x28"),
        (spoilt("colour", np.zeros((28, 28, 3), np.uint8)), (), "mode RGB; mnist-mini is L, gray with 8 bits"),
        (spoilt("deep", np.zeros((28, 28), np.uint16)), (), "mode I;16"),
        (write(tmp_path / "one", test, 1), (), "1 images; allowed are 2 or more"),
        (write(tmp_path / "few", test, 10), ("is",), "10 images; allowed are 20 or more"),
        (good, ("kit",), "--metrics kit: unknown"),
        (good, ("accuracy",), "--metrics accuracy: needs the classes"),
    ]
    for source, metrics, message in cases:
        with pytest.raises(InputError, match=message):
            scored(source, metrics)
    (good / "zz.png").write_text("<html>")
    with pytest.raises(InputError, match=r"zz.png: not a readable image"):
        scored(good)


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path: Path, scored: Scored) -> None:
    folder = tmp_path / "0000000020"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="no checkpoint of this version"):
        scored(folder)
    with pytest.raises(InputError, match="every checkpoint is damaged"):
        scored(tmp_path)


def test_the_command_prints_the_scores_with_all_that_they_depend_on(
    tmp_path: Path, cache_dir: Path, mnist_mini: tuple[ImageData, ImageData], mnist_mini_lenet: Extractor
) -> None:
    sweeps.prepare(tmp_path, cache_dir)
    write(tmp_path / "images", mnist_mini[1], 40)
    done = sweeps.gansweep("score", "images", "--dataset", "mnist-mini", "--json", "--metrics", "kid", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert set(found) == {"metric", "value", "stderr", "n", "extractor", "reference", "seed"}
    assert (found["metric"], found["n"]) == ("kid", 40)
    refused = sweeps.gansweep("score", "nowhere", "--dataset", "mnist-mini", cwd=tmp_path)
    assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
