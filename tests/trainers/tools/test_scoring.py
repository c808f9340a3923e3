"""Laws of `gansweep score`: anybody's images get the numbers of a rung, or one sentence on why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from orchestrator.cli.__main__ import main
from orchestrator.cli.images import print_scores
from tests.support import sweeps
from trainers.catalogue import SYSTEMS
from trainers.config import overlay
from trainers.data.catalogue import load_both
from trainers.data.images import ImageData
from trainers.data.spec import DatasetSpec
from trainers.errors import InputError
from trainers.evaluation import classes, lenet
from trainers.evaluation.classes import OfClass
from trainers.evaluation.evaluator import Evaluator
from trainers.evaluation.extractors import Extractor
from trainers.evaluation.reference import reference_of
from trainers.evaluation.scores import METRICS, Score
from trainers.evaluation.spec import ExtractorSpec
from trainers.names import EXTRACTORS
from trainers.run import Run
from trainers.tools.score import Scored, from_folder, score

Digits = tuple[ImageData, ImageData]
Scores = Callable[..., dict[str, Score]]
MINI, LENET = DatasetSpec(name="mnist-mini"), ExtractorSpec(name="lenet")


def write(folder: Path, data: ImageData, count: int, classes: bool = False) -> Path:
    for index, (image, label) in enumerate(zip(data.images[:count], data.labels[:count], strict=True)):
        parent = folder / str(int(label)) if classes else folder
        parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(parent / f"{index:05d}.png")
    return folder


@pytest.fixture
def scored(cache_dir: Path, mnist_mini_lenet: Extractor) -> Scores:
    def run(source: Path, metrics: tuple[str, ...] = (), samples: int = 100) -> dict[str, Score]:
        return score(source, MINI, LENET, metrics, samples, cache_dir).scores

    return run


def test_a_folder_gets_the_numbers_of_its_images(
    tmp_path: Path,
    scored: Scores,
    cache_dir: Path,
    mnist_mini: tuple[ImageData, ImageData],
    mnist_mini_lenet: Extractor,
) -> None:
    train, test = mnist_mini
    found = scored(write(tmp_path / "images", test, 60))
    evaluator = Evaluator(mnist_mini_lenet, reference_of(mnist_mini_lenet, train, cache_dir), ("kid", "fid", "is"), 0)
    assert found == evaluator(test.images[:60], test.labels[:60], conditional=False).scores


def test_class_folders_are_labels(tmp_path: Path, scored: Scores, mnist_mini: tuple[ImageData, ImageData]) -> None:
    _, test = mnist_mini
    assert scored(write(tmp_path / "images", test, 100, classes=True))["accuracy"].value > 0.9


def test_intra_distances_of_class_folders_are_those_of_their_images(
    tmp_path: Path, scored: Scores, cache_dir: Path, mnist_mini: Digits, mnist_mini_lenet: Extractor
) -> None:
    folder, reference = (
        write(tmp_path / "images", mnist_mini[1], 100, classes=True),
        reference_of(mnist_mini_lenet, mnist_mini[0], cache_dir),
    )
    features = mnist_mini_lenet(mnist_mini[1].images[:100]).features
    found = scored(folder, ("intra-kid", "intra-fid"))
    labels = mnist_mini[1].labels[:100]
    assert found["intra-kid"].value == pytest.approx(classes.intra_kid(features, labels, reference)[0], rel=1e-4)
    assert found["intra-fid"].value == pytest.approx(classes.intra_fid(features, labels, reference), rel=1e-4)


def test_training_on_the_images_of_a_folder_is_tested_on_real_ones(
    tmp_path: Path, scored: Scores, mnist_mini: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lenet, "RECIPE", replace(lenet.RECIPE, steps=(60, 60)))
    folder = write(tmp_path / "images", mnist_mini[0], 400, classes=True)
    found = scored(folder, ("tstr",))["tstr"]
    assert found.value > 0.5
    assert (found.n, found.extractor) == (400, classes.TSTR_RECIPE)
    assert found.reference.startswith("mnist-mini-test-")


def test_each_class_has_its_row(tmp_path: Path, cache_dir: Path, mnist_mini: Digits, scored: Scores) -> None:
    folder = write(tmp_path / "images", mnist_mini[1], 100, classes=True)
    found = score(folder, MINI, LENET, ("accuracy",), 0, cache_dir, per_class=True)
    assert found.classes is not None
    assert [row.n for row in found.classes] == mnist_mini[1].labels[:100].bincount(minlength=10).tolist()
    hits = sum((row.accuracy or 0) * row.n for row in found.classes)
    assert hits / 100 == pytest.approx(found.scores["accuracy"].value)
    assert all(row.kid is not None and row.fid is not None for row in found.classes)
    assert score(folder, MINI, LENET, ("accuracy",), 0, cache_dir).classes is None


def test_a_checkpoint_gets_the_scores_of_its_rung(
    tmp_path: Path,
    scored: Scores,
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


def test_what_cannot_be_scored_is_told_in_one_sentence(tmp_path: Path, scored: Scores, mnist_mini: Digits) -> None:
    _, test = mnist_mini
    good = write(tmp_path / "good", test, 30)
    few = write(tmp_path / "classes", test, 100, classes=True)
    for path in sorted((few / "3").iterdir())[1:]:
        path.unlink()
    np.save(tmp_path / "images.npy", np.full((30, 1, 28, 28), np.nan, np.float32))
    cases: list[tuple[Path, tuple[str, ...], str]] = [
        (tmp_path / "nowhere", (), "no such folder; name a folder of pictures or a checkpoint"),
        (tmp_path / "images.npy", (), "images.npy: is a file; name a folder of pictures or a checkpoint"),
        (write(tmp_path / "one", test, 1), (), "1 images; allowed are 2 or more"),
        (write(tmp_path / "few", test, 10), ("is",), "10 images; allowed are 20 or more"),
        (write(tmp_path / "three", test, 3), ("recall",), "3 images; allowed are 4 or more"),
        (few, ("intra-kid",), "intra-kid: class 3 has 1 generated and .* real images; allowed are 2 or more"),
        (good, ("kit",), "--metrics kit: unknown; allowed are kid, fid"),
        (
            good,
            ("accuracy", "kid", "tstr"),
            "--metrics accuracy,tstr: needs the classes that the images of .*good were",
        ),
    ]
    for source, metrics, message in cases:
        with pytest.raises(InputError, match=message):
            scored(source, metrics)


def test_a_folder_without_pictures_is_told_what_a_picture_is(tmp_path: Path, scored: Scores) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "images.npy", np.full((30, 1, 28, 28), np.nan, np.float32))
    for name in ("empty", "arrays"):
        with pytest.raises(InputError, match=rf"{name}: no images; allowed are files ending in .*\.bmp, .*\.png"):
            scored(tmp_path / name)


@pytest.mark.parametrize(
    ("array", "suffix", "message"),
    [
        (np.zeros((30, 28), np.uint8), "png", r"its size differs from that of .*00000\.png: 28x30 and 28x28; scale"),
        (np.zeros((28, 28, 3), np.uint8), "png", "mode RGB, colour; mnist-mini is gray: convert it"),
        (np.zeros((28, 28, 4), np.uint8), "png", r"is transparent in parts \(mode RGBA\); name the colour"),
        (np.zeros((28, 28), np.uint16), "png", "mode I;16 with more than 8 bits per channel; convert it"),
        (np.full((28, 28), np.nan, np.float32), "tif", "mode F with more than 8 bits per channel"),
        (np.zeros((28, 28), np.int32), "tif", "mode I with more than 8 bits per channel"),
        (b"<html>", "png", "not a readable image"),
        (b"", "jpg", "not a readable image"),
    ],
)
def test_a_picture_unlike_the_data_is_named(
    array: NDArray[Any] | bytes, suffix: str, message: str, tmp_path: Path, scored: Scores, mnist_mini: Digits
) -> None:
    path = write(tmp_path / "images", mnist_mini[1], 30) / f"zz.{suffix}"
    if isinstance(array, bytes):
        path.write_bytes(array)
    else:
        Image.fromarray(array).save(path)
    with pytest.raises(InputError, match=f"{path}: {message}"):
        scored(path.parent)


def test_gray_pictures_are_read_as_the_colour_that_training_makes_of_them(tmp_path: Path) -> None:
    for name in ("real/a", "gray", "colour"):
        (tmp_path / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    for place in range(20):
        picture = Image.fromarray(random.integers(256, size=(28, 28), dtype=np.uint8))
        for name in ("gray", "real/a"):
            picture.save(tmp_path / name / f"{place:02}.png")
        picture.convert("RGB").save(tmp_path / "colour" / f"{place:02}.png")
    data = DatasetSpec(name="folder", path=tmp_path / "real", size=28)
    gray, colour = (from_folder(tmp_path / name, data, None, ("kid",), False).images for name in ("gray", "colour"))
    assert torch.equal(gray, colour)
    both = torch.cat([split.images for split in load_both(data)])
    assert {image.numpy().tobytes() for image in both} == {image.numpy().tobytes() for image in gray}


def test_pictures_of_another_size_have_no_score_by_a_classifier(tmp_path: Path, scored: Scores) -> None:
    (tmp_path / "images").mkdir()
    for index in range(3):
        Image.new("L", (32, 32)).save(tmp_path / "images" / f"{index}.png")
    with pytest.raises(InputError, match=r"images are \(1, 32, 32\), but those of mnist-mini \(1, 28, 28\)"):
        scored(tmp_path / "images")


def test_equal_pictures_are_scored(tmp_path: Path, scored: Scores) -> None:
    (tmp_path / "images").mkdir()
    for index in range(20):
        Image.new("L", (28, 28)).save(tmp_path / "images" / f"{index}.png")
    found = scored(tmp_path / "images")
    assert found["is"].value == pytest.approx(1, abs=1e-6)
    assert found["kid"].value > 1
    assert found["kid"].stderr == pytest.approx(0, abs=1e-4 * found["kid"].value)
    assert found["fid"].value > 1


def test_a_class_by_class_table_needs_classes(tmp_path: Path, cache_dir: Path, mnist_mini: Digits) -> None:
    folder = write(tmp_path / "images", mnist_mini[1], 30)
    with pytest.raises(InputError, match="--per-class: needs the classes that the images of"):
        score(folder, MINI, LENET, (), 0, cache_dir, per_class=True)


def test_broken_weights_are_told_before_anything_is_trained(
    tmp_path: Path, mnist_mini: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "images", mnist_mini[1], 30)
    monkeypatch.setattr("trainers.tools.score.load_both", lambda *_: pytest.fail("data were read"))
    (tmp_path / "page.pt").write_text("<!doctype html>")
    for path, sha256, message in (
        ("page.pt", None, "page.pt is an HTML page, not weights"),
        ("images/00000.png", "0" * 64, "has the sha256 .*, not 0000"),
        ("none.pt", None, "none.pt does not exist"),
    ):
        spec = ExtractorSpec(name="inception", weights=tmp_path / path, sha256=sha256)
        with pytest.raises(InputError, match=message):
            score(folder, MINI, spec, (), 0, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path: Path, scored: Scores) -> None:
    folder = tmp_path / "0000000020"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="no checkpoint of this version"):
        scored(folder)
    with pytest.raises(InputError, match="every checkpoint is damaged"):
        scored(tmp_path)


# The command


def test_the_command_prints_the_scores_with_all_that_they_depend_on(
    tmp_path: Path, cache_dir: Path, mnist_mini: Digits, mnist_mini_lenet: Extractor
) -> None:
    sweeps.prepare(tmp_path, cache_dir)
    write(tmp_path / "images", mnist_mini[1], 100, classes=True)
    common = ("score", "images", "--dataset", "mnist-mini", "--metrics", "kid")
    done = sweeps.gansweep(*common, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert set(found) == {"metric", "value", "stderr", "n", "extractor", "reference", "seed"}
    assert (found["metric"], found["n"], found["extractor"]) == ("kid", 100, mnist_mini_lenet.id)
    done = sweeps.gansweep(*common, "--per-class", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert mnist_mini_lenet.id in done.stdout
    assert all(word in done.stdout for word in ("kid", "±", "class", "images", "accuracy", "fid", "on 100 images, by"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "score needs --dataset, one of mnist-mini, mnist, cifar10, folder, shapes32, or --targets, a folder of"),
        (["--dataset", "mnist-mini"], "images: no such folder"),
        (["--dataset", "digits"], "unknown data set 'digits': allowed are mnist-mini"),
        (["--dataset", "mnist-mini", "--extractor", "vgg"], "--name: input should be 'lenet'"),
        (["--dataset", "mnist-mini", "--sha256", "0" * 64], "sha256 is the checksum of `weights`, which are not given"),
        (["--dataset", "mnist-mini", "--dtype", "float16"], "--dtype: input should be 'float32' or 'float64'"),
        (
            ["--targets", "b", "--dataset", "mnist-mini", "--per-class", "--no-verify", "--samples", "10000"],
            "--dataset, --per-class, --samples, --verify: has no meaning with --targets, which compares pixels alone",
        ),
        (["--targets", "b"], "images: no such folder; name a folder of pictures"),
    ],
)
def test_the_command_refuses_options_in_one_line(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _exit_code("score", "images", *options) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert message in shown
    assert shown.count("\n") == 1


def _exit_code(*arguments: str) -> int:
    """Of the command, run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["gansweep", *arguments])
        patch.delenv("GANSWEEP_HOME", raising=False)
        with pytest.raises(SystemExit) as caught:
            main()
    return int(caught.value.code or 0)


def test_options_reach_the_extractor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ExtractorSpec] = []

    def stand_in(source: Path, dataset: DatasetSpec, extractor: ExtractorSpec, *_: object) -> Scored:
        seen.append(extractor)
        return Scored({}, None)

    monkeypatch.setattr("trainers.tools.score.score", stand_in)
    options = ["--extractor", "inception-pt", "--weights", "w.pt", "--sha256", "a" * 64, "--dtype", "float64"]
    assert _exit_code("score", str(tmp_path), "--dataset", "mnist-mini", *options) == 0
    assert seen == [ExtractorSpec(name="inception-pt", weights=Path("w.pt"), sha256="a" * 64, dtype="float64")]


def _found(*scores: Score, rows: tuple[OfClass, ...] | None = None) -> Scored:
    return Scored({score.metric: score for score in scores}, rows)


def test_scores_of_unlike_origin_say_which_is_whose(capsys: pytest.CaptureFixture[str]) -> None:
    kid = Score("kid", 1.25, 0.5, 40, "lenet-x", "d-train-y", 0)
    tstr = Score("tstr", 0.75, 0.01, 40, classes.TSTR_RECIPE, "d-test-z", 0)
    print_scores(_found(kid, tstr), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["         kid 1.25 ± 0.50", "        tstr 0.750 ± 0.010"]
    assert lines[2:] == [
        "kid: on 40 images, by lenet-x against d-train-y",
        f"tstr: on 40 images, by {classes.TSTR_RECIPE} against d-test-z",
    ]


def test_the_table_of_classes_leaves_no_gap_unmarked(capsys: pytest.CaptureFixture[str]) -> None:
    rows = (OfClass(0, 12, 0.5, 1.5, 0.25, 3.0), OfClass(1, 1, None, None, None, None))
    found = _found(Score("fid", 2.0, None, 13, "e", "r", 0), rows=rows)
    print_scores(found, as_json=False)
    cells = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert ["0", "12", "0.5", "1.50", "±", "0.25", "3"] in cells
    assert ["1", "1", "-", "-", "-"] in cells
    print_scores(found, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"scores": [asdict(found.scores["fid"])], "classes": [asdict(row) for row in rows]}


def test_a_score_that_is_not_finite_stays_valid_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_scores(_found(Score("fid", float("inf"), float("nan"), 13, "e", "r", 0)), as_json=True)
    (shown,) = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (shown["value"], shown["stderr"]) == ("inf", "nan")


def test_the_readme_names_every_metric_and_extractor() -> None:
    text = (sweeps.REPOSITORY / "README.md").read_text().partition("## Scoring any images")[2].partition("\n## ")[0]
    assert [name for name in (*METRICS, *EXTRACTORS) if f"`{name}`" not in text] == []
