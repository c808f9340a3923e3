"""`python -m trainers` trains without cluster, study or tracker, goes on where it stopped, and explains bad input."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.support.class_folders import write_classes
from trainers import checkpoint
from trainers.__main__ import main
from trainers.data.catalogue import load
from trainers.data.spec import DatasetSpec
from trainers.evaluation import lenet
from trainers.evaluation.extractors import Extractor

ROOT = Path(__file__).resolve().parents[2]
BLOCKED = ("ray", "optuna", "mlflow", "boto3")
BLOCK = f"""
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Block())
"""
SMALL = ["--kimg", "2", "--every", "1", "--samples", "200", "--set", "width=0.25"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which cluster, study, tracker and store cannot be imported."""
    folder = tmp_path_factory.mktemp("blocked")
    (folder / "sitecustomize.py").write_text(BLOCK)
    threads = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **threads, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}


def _python(arguments: list[str], environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=folder, capture_output=True, text=True, timeout=900
    )


@pytest.fixture(scope="module")
def options(cache_dir: Path, mnist_mini_lenet: Extractor, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments of a small run whose classifier is trained already."""
    out = tmp_path_factory.mktemp("train") / "out"
    return ["narman-cgan", *SMALL, "--cache", str(cache_dir), "--out", str(out)]


@pytest.fixture(scope="module")
def trained(options: list[str], alone: dict[str, str]) -> Path:
    """The folder of a finished run."""
    out = Path(options[-1])
    ended = _python(["-m", "trainers", *options], alone, out.parent)
    assert ended.returncode == 0, ended.stderr
    scored = [line for line in ended.stdout.splitlines() if "kid" in line and "fid" in line and "loss_g" in line]
    assert [line.split()[0] for line in scored] == ["1", "2"]
    return out


@pytest.mark.parametrize("module", BLOCKED)
def test_the_block_blocks(module: str, alone: dict[str, str], tmp_path: Path) -> None:
    ended = _python(["-c", f"import {module}"], alone, tmp_path)
    assert f"ImportError: {module} is blocked" in ended.stderr


def test_it_trains_scores_and_saves_without_cluster_study_tracker_or_store(trained: Path) -> None:
    names = [checkpoint.folder_name(1000), checkpoint.folder_name(2000)]
    assert sorted(path.name for path in (trained / "checkpoints").iterdir()) == names
    _, header, manifest = checkpoint.read(trained / "checkpoints" / names[-1])
    assert header["config"]["width"] == 0.25
    assert header["iteration"] * header["config"]["batch"] == 2000
    assert [rung["images"] for rung in manifest["history"]] == [1000, 2000]
    assert all(rung["scores"]["kid"]["n"] == 200 for rung in manifest["history"])
    for name in names:
        with Image.open(trained / "samples" / f"{name}.png") as picture:
            assert picture.size == (10 * 28 * 2, 10 * 28 * 2)


def _everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_command_again_trains_nothing_more(
    options: list[str], trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _everything(trained)
    assert main(options) == 0
    assert "2 of 2 kimg done" in capsys.readouterr().out
    assert _everything(trained) == before


def test_other_settings_in_the_same_folder_end_with_code_2_and_one_message(
    options: list[str], trained: Path, alone: dict[str, str]
) -> None:
    before = _everything(trained)
    ended = _python(["-m", "trainers", *options, "--set", "g_lr=1e-3"], alone, trained.parent)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("error: ") == 1
    assert str(trained) in ended.stderr
    assert "Traceback" not in ended.stderr
    assert _everything(trained) == before


def _first_half(trained: Path, out: Path) -> Path:
    """A run that was stopped after its first rung."""
    name = checkpoint.folder_name(1000)
    shutil.copytree(trained / "checkpoints" / name, out / "checkpoints" / name)
    return out


def test_the_same_command_goes_on_from_the_last_whole_checkpoint(
    options: list[str], trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = _first_half(trained, tmp_path)
    assert main([*options, "--out", str(out)]) == 0
    assert "1 of 2 kimg done" in capsys.readouterr().out
    last = Path("checkpoints") / checkpoint.folder_name(2000)
    whole, continued = (checkpoint.read(folder / last) for folder in (trained, out))
    assert continued[0].keys() == whole[0].keys()
    assert [rung["images"] for rung in continued[2]["history"]] == [1000, 2000]


@pytest.mark.parametrize("other", [["--samples", "100"], ["--metrics", "is"]], ids=lambda part: part[0][2:])
def test_other_ways_of_scoring_are_not_mixed_into_one_history(
    other: list[str], options: list[str], trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = _first_half(trained, tmp_path)
    assert main([*options, *other, "--out", str(out)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["toh-dcgan-9"], "toh-dcgan-9"),
        (["narman-cgan", "--set", "g_lrr=1e-3"], "--set: g_lrr: unknown key"),
        (["narman-cgan", "--set", "g_lr=5"], "--set: g_lr: "),
        (["narman-cgan", "--set", "g_lr"], "--set g_lr"),
        (["narman-cgan", "--set", "g_lr=[1"], "--set"),
        (["narman-cgan", "--set", "kimg=5"], "--set"),
        (["narman-cgan", "--set", "smoothing=fixed", "--set", "loss=wasserstein"], "smoothing"),
        (["narman-cgan", "--kimg", "nan"], "kimg"),
        (["narman-cgan", "--kimg", "0"], "kimg"),
        (["narman-cgan", "--every", "0.75"], "--every 0.75"),
        (["narman-cgan", "--every", "0"], "--every 0"),
        (["narman-cgan", "--every", "nan"], "--every nan"),
        (["narman-cgan", "--every", "inf"], "--every inf"),
        (["narman-cgan", "--metrics", "kid,swd"], "--metrics swd"),
        (["narman-cgan", "--extractor", "resnet"], "resnet"),
        (["narman-cgan", "--samples", "0"], "--samples 0"),
        (["narman-cgan", "--samples", "1"], "--samples 1"),
        (["narman-cgan", "--samples", "-3"], "--samples -3"),
        (["narman-cgan", "--dataset", "imagenet"], "imagenet"),
        (["narman-cgan", "--dataset", "shapes32"], "--dataset shapes32"),
        (["narman-cgan", "--data", "."], "path"),
        (["narman-cgan", "--size", "32"], "size has no meaning here"),
        (["narman-cgan", "--dataset", "folder", "--size", "3"], "--size: input should be greater than or equal to 4"),
        (["narman-cgan", "--metrics", "kid,tstr"], "tstr trains a classifier for each value"),
        (["narman-cgan", "--metrics", "is", "--extractor", "inception"], "is needs a classifier's logits; inception"),
        (["narman-dcgan", "--metrics", "accuracy"], "accuracy needs a conditional system, which narman-dcgan is not"),
    ],
    ids=lambda part: "-".join(part).replace("/", "") if isinstance(part, list) else None,
)
def test_bad_input_ends_with_code_2_and_a_message_that_names_it(
    arguments: list[str],
    named: str,
    cache_dir: Path,
    mnist_mini_lenet: Extractor,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    system, *rest = arguments
    where = ["--cache", str(cache_dir), "--out", str(tmp_path / "out")]
    assert main([system, *SMALL, *where, *rest]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("error: ") == 1
    assert named in message
    assert not (tmp_path / "out").exists()


def test_few_samples_are_scored_or_refused_but_never_crash(
    cache_dir: Path, mnist_mini_lenet: Extractor, tmp_path: Path
) -> None:
    arguments = ["narman-cgan", *SMALL, "--kimg", "0.2", "--every", "0.1", "--samples", "5"]
    assert main([*arguments, "--cache", str(cache_dir), "--out", str(tmp_path)]) in (0, 2)


def test_an_out_that_is_a_file_is_an_input_error(
    cache_dir: Path, mnist_mini_lenet: Extractor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["narman-cgan", *SMALL, "--cache", str(cache_dir), "--out", str(tmp_path / "file")]) == 2
    assert "--out" in capsys.readouterr().err


def test_a_batch_larger_than_the_data_is_an_input_error(
    cache_dir: Path, mnist_mini_lenet: Extractor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in "ab":
        (tmp_path / "data" / "train" / label).mkdir(parents=True)
        (tmp_path / "data" / "test" / label).mkdir(parents=True)
        for index in range(2):
            for split in ("train", "test"):
                picture = Image.new("RGB", (32, 32), (index * 99, 0, 0))
                picture.save(tmp_path / "data" / split / label / f"{index}.png")
    arguments = ["monir-dcgan", *SMALL, "--set", "batch=50", "--set", "sampling=shuffled", "--dataset", "folder"]
    where = ["--data", str(tmp_path / "data"), "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    assert main([*arguments, *where]) == 2
    assert "batch 50" in capsys.readouterr().err
    # Bad input is found before any work on it.
    assert not (tmp_path / "cache").exists()


def test_pictures_are_read_at_the_size_of_the_system_or_at_the_one_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lenet, "RECIPE", replace(lenet.RECIPE, steps=(10, 10)))  # its scores do not matter here
    data = write_classes(tmp_path / "data", ["a", "b"], 12, 90)
    small = ["--kimg", "0.01", "--every", "0.01", "--samples", "20", "--set", "width=0.05", "--set", "batch=10"]
    for options, size in (([], 64), (["--size", "40"], 40)):
        out = tmp_path / str(size)
        where = ["--data", str(data), "--cache", str(tmp_path / "cache"), "--out", str(out)]
        assert main(["narman-dcgan-64", "--dataset", "folder", "--fit", *small, *where, *options]) == 0
        _, _, manifest = checkpoint.read(out / "checkpoints" / checkpoint.folder_name(10))
        assert manifest["data"] == load(DatasetSpec(name="folder", path=data, size=size), "train").sha256


def test_a_size_that_the_system_does_not_make_is_refused_with_both_remedies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_classes(tmp_path / "data", [""], 12, 9)
    assert main(["hamed-dcgan", "--dataset", "folder", "--data", str(data), "--size", "16"]) == 2
    assert "(3, 16, 16), but hamed-dcgan makes (3, 32, 32); add --fit or --size 32" in capsys.readouterr().err


def test_a_metric_that_needs_more_real_images_is_an_input_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_classes(tmp_path / "data", ["a", "b"], 3, 32)
    arguments = ["das-acgan", *SMALL, "--set", "batch=2", "--dataset", "folder", "--data", str(data)]
    assert main([*arguments, "--metrics", "kid,density", "--cache", str(tmp_path / "cache")]) == 2
    assert "--metrics kid,density: density needs at least 6 training images" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_a_full_disk_and_an_unreadable_screen_lose_no_more_than_what_they_cannot_take(
    trained: Path, options: list[str], alone: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    line = f'"{sys.executable}" -m trainers {shlex.join(options[:-1])} link'
    limited = _bash(f"ulimit -f 100; {line}", alone, tmp_path)
    assert limited.returncode == 2
    assert limited.stderr == "error: link/checkpoints/0000001000: File too large; make space, then give the same " + (
        "command again\n"
    )
    assert [path.name for path in (tmp_path / "elsewhere" / "checkpoints").iterdir()] == []
    unseen = _bash(f"{line} > /dev/full 2>&1", alone, tmp_path)
    assert unseen.returncode == 0
    names = [checkpoint.folder_name(1000), checkpoint.folder_name(2000)]
    assert sorted(path.name for path in (tmp_path / "elsewhere" / "checkpoints").iterdir()) == names


@pytest.mark.parametrize("place", ["/proc/none/run", "n" * 300])
def test_a_folder_that_cannot_be_made_is_told_before_the_training(
    options: list[str], alone: dict[str, str], tmp_path: Path, place: str
) -> None:
    ended = _python(["-m", "trainers", *options[:-1], place], alone, tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert "kid" not in ended.stdout


def _bash(line: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line], env=environment, cwd=folder, capture_output=True, text=True, timeout=900
    )
