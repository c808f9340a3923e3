"""Data, extractor or reference that changed under a sweep are refused before a trial is touched; put back, it goes on.

The sweep is real: pictures in three classes, two trials, paused after the first rungs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.cluster.runs import Prepared, preparation
from orchestrator.paths import cache_of
from orchestrator.study.records import TrialRecord
from orchestrator.study.study import SweepStudy
from search_spaces.load import parse_sweep
from tests.support import sweeps
from trainers.data.catalogue import load
from trainers.data.idx import PARTS
from trainers.data.spec import DatasetSpec
from trainers.errors import InputError
from trainers.evaluation import classifier, lenet

NAME = "pictures"
TEXT = """\
system: toh-cgan-1
dataset: {name: folder, path: flowers, size: 32}
search: {g_lr: {log_uniform: [1e-4, 5e-3]}, batch: 20, width: 0.25}
rungs: {every: 0.1, until: 2}
score: {metric: kid, samples: 60}
finals: {trials: 0}
pruner: none
budget: {trials: 2}
"""
CLASSES = {"anemone": 30, "iris": 24, "rose": 19}


def picture(path: Path, seed: int, brightness: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 100, (9, 7, 3))
    Image.fromarray((noise + brightness).astype(np.uint8)).resize((40, 36), Image.Resampling.NEAREST).save(path)


@pytest.fixture(scope="module")
def paused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sweep below `runs`, paused with two trials under way; nobody writes to it."""
    folder = tmp_path_factory.mktemp("paused")
    for index, (name, count) in enumerate(CLASSES.items()):
        for number in range(count):
            picture(folder / "flowers" / name / f"{number}.png", 100 * index + number, 50 * index)
    (folder / f"{NAME}.yaml").write_text(TEXT)
    driver = sweeps.start("launch", f"{NAME}.yaml", cwd=folder)
    sweeps.wait_for(lambda: any(record.rungs for record in sweeps.records(folder / "runs" / NAME)), driver)
    asked = sweeps.in_process("pause", NAME, cwd=folder)
    said, _ = driver.communicate(timeout=300)
    assert (asked.returncode, driver.returncode) == (0, 0), asked.stderr + said
    assert {record.state for record in trials(folder)} <= {"running"}, said
    return folder


@pytest.fixture
def place(paused: Path, tmp_path: Path) -> Path:
    """A copy of it that may be changed."""
    return Path(shutil.copytree(paused, tmp_path / "place"))


@pytest.fixture(scope="module")
def undisturbed(paused: Path, tmp_path_factory: pytest.TempPathFactory) -> list[TrialRecord]:
    """Its trials if nothing changes: a picture is changed, which is refused, and put back."""
    folder = Path(shutil.copytree(paused, tmp_path_factory.mktemp("undisturbed") / "place"))
    before, changed = trials(folder), folder / "flowers/iris/7.png"
    content = changed.read_bytes()
    picture(changed, 999, 50)
    refused = resume(folder)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "the train images are others" in refused.stderr or "the test images are others" in refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
    assert trials(folder) == before
    changed.write_bytes(content)
    assert resume(folder).returncode == 0
    return ended(folder)


def trials(folder: Path) -> list[TrialRecord]:
    return sweeps.records(folder / "runs" / NAME)


def ended(folder: Path) -> list[TrialRecord]:
    found = trials(folder)
    assert [record.state for record in found] == ["complete"] * 2
    assert all(not record.failures for record in found)
    return found


def resume(folder: Path) -> subprocess.CompletedProcess[str]:
    return sweeps.gansweep("resume", NAME, cwd=folder)


def study_in(folder: Path) -> SweepStudy:
    found = SweepStudy.open(folder / "runs" / NAME)
    assert found is not None
    return found


def prepared(folder: Path) -> Prepared:
    """What the driver does before it starts a trial."""
    with chdir(folder):
        return preparation(study_in(folder), cache_of(folder / "runs"))()


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        prepared(folder)
    return str(caught.value)


def scores(records: list[TrialRecord]) -> list[object]:
    return [[(rung.images, rung.scores) for rung in record.rungs] for record in records]


def weights_in_cache(folder: Path) -> Path:
    (found,) = (folder / "runs/cache").glob("lenet-*.safetensors")
    return found


def weights_in_store(folder: Path) -> Path:
    (found,) = (folder / "runs" / NAME / "store/extractors").glob("*.safetensors")
    return found


def replace_cache(folder: Path) -> None:
    """Puts another training's weights into the cache, as another machine makes them."""
    spec = DatasetSpec(name="folder", path=folder / "flowers", size=32)
    train, test = load(spec, "train"), load(spec, "test")
    shutil.rmtree(folder / "runs/cache")
    recipe = lenet.RECIPE.__class__(**{**vars(lenet.RECIPE), "steps": (4, 4)})
    classifier.trained(recipe, train, test, folder / "runs/cache")


def test_the_first_launch_records_them_and_puts_the_extractor_into_the_store(paused: Path) -> None:
    (inputs,) = study_in(paused).inputs.known
    train, test = (load(DatasetSpec(name="folder", path=paused / "flowers", size=32), split) for split in PARTS)
    assert (inputs.train.sha256, inputs.train.count) == (train.sha256, len(train.labels))
    assert inputs.test is not None
    assert (inputs.test.sha256, inputs.test.count) == (test.sha256, len(test.labels))
    told = {
        (each.extractor, each.reference) for r in trials(paused) for rung in r.rungs for each in rung.scores.values()
    }
    assert told == {(inputs.extractor, inputs.reference)}
    assert weights_in_store(paused).name == f"{inputs.weights}.safetensors"
    assert weights_in_store(paused).read_bytes() == weights_in_cache(paused).read_bytes()
    done = sweeps.in_process("gc", NAME, cwd=paused)
    assert "0 orphans" in done.stdout, done.stdout + done.stderr


CHANGES: dict[str, Callable[[Path], object]] = {
    "a picture of the same class": lambda data: picture(data / "rose/3.png", 500, 100),
    "one bit of a picture": lambda data: flip(data / "anemone/12.png"),
    "a picture less": lambda data: (data / "rose/0.png").unlink(),
    "a picture more": lambda data: picture(data / "iris/24.png", 501, 50),
    "a picture in another class": lambda data: (data / "iris/5.png").rename(data / "rose/19.png"),
    "two classes swapped": lambda data: [
        (data / old).rename(data / new) for old, new in (("iris", "x"), ("rose", "iris"), ("x", "rose"))
    ],
    "a class with another name": lambda data: (data / "anemone").rename(data / "tulip"),
    "a class more": lambda data: shutil.copytree(data / "rose", data / "violet"),
}


def flip(path: Path) -> None:
    pixels = np.array(Image.open(path))
    pixels[8:24, 8:24] ^= 1
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("change", CHANGES)
def test_changed_pictures_are_refused_whatever_changed(
    place: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "fit", lambda *_: pytest.fail("an extractor was trained for other data"))
    before = sorted((place / "runs/cache").glob("[lr]e*"))
    CHANGES[change](place / "flowers")
    said = refused(place)
    (inputs,) = study_in(place).inputs.known
    assert said.startswith(f"sweep {NAME}: dataset: the ")
    assert any(f"it has {images}; there are " in said for images in (inputs.train, inputs.test))
    assert "put back what the study has, or give this sweep another --name" in said
    assert sorted((place / "runs/cache").glob("[lr]e*")) == before, "an extractor or a reference of other data"


@pytest.mark.slow
def test_a_changed_file_of_digits_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 8)):
        pixels, labels = rng.integers(0, 256, (count, 28, 28)), rng.integers(0, 10, count)
        for name, values in zip(PARTS[split], (pixels, labels), strict=True):  # type: ignore[index]
            head = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
            (tmp_path / name).write_bytes(head + values.astype(np.uint8).tobytes())
    mnist = {"name": "mnist", "path": str(tmp_path), "verify": False}
    text = sweeps.TINY.replace("dataset: mnist-mini", f"name: digits\ndataset: {json.dumps(mnist)}")
    folder = tmp_path / "runs/digits"
    folder.mkdir(parents=True)
    study = SweepStudy.create(folder, parse_sweep(text))
    study.inputs.record(preparation(study, tmp_path / "cache")().inputs)
    for split, name in (("test", PARTS["test"][1]), ("train", PARTS["train"][0])):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:-1] + bytes([(content[-1] + 1) % 10]))
        with pytest.raises(InputError, match=f"the {split} images are others"):
            preparation(study, tmp_path / "cache")()
        (tmp_path / name).write_bytes(content)
    preparation(study, tmp_path / "cache")()


def test_a_lost_cache_is_filled_from_the_store_and_the_store_from_the_cache(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "fit", lambda *_: pytest.fail("trained again"))
    content = weights_in_cache(place).read_bytes()
    shutil.rmtree(place / "runs/cache")
    (inputs,) = study_in(place).inputs.known
    assert prepared(place).inputs == inputs
    assert weights_in_cache(place).read_bytes() == content
    kept = weights_in_store(place)
    kept.write_bytes(content[:-3])
    prepared(place)
    assert kept.read_bytes() == content
    kept.unlink()
    prepared(place)
    assert kept.read_bytes() == content


@pytest.mark.parametrize("store", ["deleted", "damaged"])
@pytest.mark.parametrize("cache", ["deleted", "damaged", "of another machine"])
def test_an_extractor_that_is_lost_everywhere_is_refused_and_not_trained_again(
    place: Path, store: str, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, cached = weights_in_store(place), weights_in_cache(place)
    content = kept.read_bytes()
    kept.unlink() if store == "deleted" else kept.write_bytes(content + b"\0")
    if cache == "deleted":
        shutil.rmtree(place / "runs/cache")
    elif cache == "damaged":
        cached.write_bytes(content[:-1])
    else:
        replace_cache(place)
    monkeypatch.setattr(classifier, "fit", lambda *_: pytest.fail("trained again"))
    (inputs,) = study_in(place).inputs.known
    said = refused(place)
    assert f"the weights with sha256 {inputs.weights} are lost" in said
    assert "put their file back" in said
    kept.write_bytes(content)
    assert prepared(place).inputs == inputs


@pytest.mark.slow
def test_changed_pictures_are_refused_and_the_sweep_goes_on_once_they_are_back(undisturbed: list[TrialRecord]) -> None:
    assert [record.state for record in undisturbed] == ["complete"] * 2


@pytest.mark.slow
def test_with_the_cache_of_another_machine_the_scores_are_the_same_to_the_last_bit(
    place: Path, undisturbed: list[TrialRecord]
) -> None:
    replace_cache(place)
    done = resume(place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert scores(ended(place)) == scores(undisturbed)
    assert len(list((place / "runs/cache").glob("lenet-*.safetensors"))) == 2
    checkpoint = f"runs/{NAME}/store/trials/00000"
    data = ("--dataset", "folder", "--data", "flowers", "--samples", "60", "--metrics", "kid", "--json")
    replace_cache(place)
    (found,) = json.loads(sweeps.gansweep("score", checkpoint, *data, cwd=place).stdout)
    assert found["extractor"] == undisturbed[0].rungs[-1].scores["kid"].extractor
    assert found["value"] == pytest.approx(undisturbed[0].rungs[-1].scores["kid"].value)


@pytest.mark.slow
def test_the_same_pictures_elsewhere_are_taken_and_kept_and_others_are_refused(
    place: Path, undisturbed: list[TrialRecord]
) -> None:
    shutil.copytree(place / "flowers", place / "garden")
    (place / "flowers").rename(place / "weeds")
    (place / "weeds/rose/2.png").unlink()
    launch = ("launch", f"{NAME}.yaml", "--set")
    before = (place / "runs" / NAME / "study.journal").read_bytes()
    other = sweeps.gansweep(*launch, "dataset.path=weeds", cwd=place)
    assert other.returncode == 2
    assert "images are others than those of the study" in other.stderr
    assert (place / "runs" / NAME / "study.journal").read_bytes() == before
    driver = sweeps.start(*launch, "dataset.path=garden", cwd=place)
    sweeps.wait_for(lambda: str(study_in(place).sweep.dataset.path) == "garden", driver)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    done = resume(place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert scores(ended(place)) == scores(undisturbed)
    assert "path: garden" in (place / "runs" / NAME / "sweep.yaml").read_text()
    # A complete sweep is no exception.
    assert sweeps.gansweep(*launch, "dataset.path=weeds", cwd=place).returncode == 2


@pytest.mark.slow
def test_a_process_that_finds_other_data_than_its_driver_ends_the_sweep_and_names_its_node(place: Path) -> None:
    passed = sum(len(record.rungs) for record in trials(place))
    driver = sweeps.start("resume", NAME, cwd=place)
    sweeps.wait_for(lambda: sum(len(record.rungs) for record in trials(place)) > passed, driver)
    content = (place / "flowers/iris/7.png").read_bytes()
    picture(place / "flowers/iris/7.png", 999, 50)
    listed = subprocess.run(["pgrep", "-s", str(driver.pid), "-f", "ray::.*Trainable"], capture_output=True, check=True)
    os.kill(int(listed.stdout.split()[0]), signal.SIGKILL)
    said, _ = driver.communicate(timeout=300)
    assert driver.returncode == 2, said
    last = said.strip().splitlines()[-1]
    (node,) = {node for record in trials(place) for node in record.nodes}
    assert f"node {node.rpartition('/')[0]}" in last
    assert "images are others than those of the study" in last
    assert last.endswith("give all nodes the same data and weights")
    assert {record.state for record in trials(place)} == {"running"}
    (place / "flowers/iris/7.png").write_bytes(content)
    done = resume(place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [record.state for record in trials(place)] == ["complete"] * 2


@pytest.mark.slow
def test_a_final_on_other_data_is_refused_and_scored_once_they_are_back(place: Path) -> None:
    shutil.rmtree(place / "runs" / NAME)
    text = TEXT.replace("{trials: 0}", "{trials: 1, samples: 60}").replace("budget: {trials: 2}", "budget: {trials: 1}")
    (place / f"{NAME}.yaml").write_text(text)
    driver = sweeps.start("launch", f"{NAME}.yaml", cwd=place)
    sweeps.wait_for(lambda: any(record.rungs for record in trials(place)), driver)
    content = (place / "flowers/rose/7.png").read_bytes()
    picture(place / "flowers/rose/7.png", 999, 100)
    said, _ = driver.communicate(timeout=300)
    assert driver.returncode == 2, said
    assert "node " in said.strip().splitlines()[-1]
    (record,) = trials(place)
    assert (record.state, record.final, record.final_fault) == ("complete", None, None)
    (place / "flowers/rose/7.png").write_bytes(content)
    done = resume(place)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = trials(place)
    assert record.final is not None
