"""A checkpoint is whole or refused, nothing in it is unpickled, and a crash never costs an older one.

From whole checkpoints a run goes on as if it had never stopped, history and scores included.
"""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainers import checkpoint
from trainers.catalogue import SYSTEMS
from trainers.checkpoint import CheckpointError
from trainers.config import overlay
from trainers.data.images import ImageData
from trainers.evaluation.evaluator import Evaluator
from trainers.evaluation.extractors import Extractor
from trainers.evaluation.reference import reference_of
from trainers.run import Run
from trainers.rungs import Rung

HEADER: dict[str, Any] = {"iteration": 7, "config": {"g_lr": 2e-4, "loss": "bce"}, "none": None}
BESIDE: dict[str, Any] = {"system": "narman-cgan", "history": [{"images": 5}]}


def _tensors(value: float = 1.0) -> dict[str, Tensor]:
    return {
        "net.g.weight": torch.full((3, 4), value),
        "net.g.transposed": torch.arange(6.0).reshape(2, 3).t(),
        "opt.g.0.step": torch.tensor(value),
        "net.g.batches": torch.tensor(2**40),
        "random.cpu": torch.get_rng_state(),
        "odd": torch.tensor([float("nan"), -0.0, float("inf")]),
    }


def _write(parent: Path, images: int, value: float = 1.0) -> Path:
    folder = parent / checkpoint.folder_name(images)
    checkpoint.write(folder, _tensors(value), HEADER, BESIDE)
    return folder


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def test_what_is_written_is_read_with_the_same_bits(tmp_path: Path) -> None:
    written = _tensors()
    checkpoint.write(tmp_path / "c", written, HEADER, BESIDE)
    tensors, header, manifest = checkpoint.read(tmp_path / "c")
    assert header == HEADER
    assert {key: manifest[key] for key in BESIDE} == BESIDE
    assert tensors.keys() == written.keys()
    for name, tensor in written.items():
        assert (tensors[name].dtype, tensors[name].shape) == (tensor.dtype, tensor.shape)
        assert _bytes(tensors[name]) == _bytes(tensor)


def test_the_manifest_can_be_read_alone(tmp_path: Path) -> None:
    folder = _write(tmp_path, 5)
    assert checkpoint.read_manifest(folder) == checkpoint.read(folder)[2]
    assert (
        checkpoint.read_manifest(folder)["files"][checkpoint.STATE]["size"]
        == (folder / checkpoint.STATE).stat().st_size
    )


def test_a_checkpoint_holds_tensors_and_json_and_nothing_else(tmp_path: Path) -> None:
    folder = _write(tmp_path, 5)
    assert {path.name for path in folder.iterdir()} == {"state.safetensors", "manifest.json"}
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    json.loads((folder / "manifest.json").read_text())
    content = (folder / "state.safetensors").read_bytes()
    # A safetensors file is the length of a JSON text, the text, and the raw numbers.
    length = int.from_bytes(content[:8], "little")
    assert set(json.loads(content[8 : 8 + length])) == {"__metadata__", *_tensors()}


def test_reading_unpickles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _write(tmp_path, 5)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    for owner, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(owner, name, refuse)
    assert checkpoint.read(folder)[1] == HEADER
    assert checkpoint.newest(tmp_path) == folder


def test_an_older_checkpoint_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    _write(tmp_path, 5, value=1.0)
    folder = _write(tmp_path, 5, value=2.0)
    assert checkpoint.read(folder)[0]["opt.g.0.step"] == 2
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def _flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("position", [0, 20, -1])
def test_a_flipped_bit_is_found_and_the_file_named(tmp_path: Path, position: int) -> None:
    folder = _write(tmp_path, 5)
    _flip(folder / checkpoint.STATE, position)
    for read in (checkpoint.read, checkpoint.read_manifest):
        with pytest.raises(CheckpointError, match=rf"{folder.name}/state\.safetensors: expected .*sha256"):
            read(folder)


@pytest.mark.parametrize("left", [0, 100, -1])
def test_a_truncated_file_is_found_and_named(tmp_path: Path, left: int) -> None:
    folder = _write(tmp_path, 5)
    path = folder / checkpoint.STATE
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(CheckpointError, match=rf"{folder.name}/state\.safetensors"):
        checkpoint.read(folder)


@pytest.mark.parametrize("name", [checkpoint.STATE, checkpoint.MANIFEST])
def test_a_missing_file_is_found_and_named(tmp_path: Path, name: str) -> None:
    folder = _write(tmp_path, 5)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{folder.name}.*{name}"):
        checkpoint.read(folder)


GARBAGE = ["", "{", "[]", "5", "null", "{}", '{"files": null}', '{"files": []}', '{"files": {}}', "\x00\x01"]


@pytest.mark.parametrize("text", GARBAGE)
def test_a_manifest_that_proves_nothing_is_no_manifest(tmp_path: Path, text: str) -> None:
    folder = _write(tmp_path, 5)
    (folder / checkpoint.MANIFEST).write_text(text)
    for read in (checkpoint.read, checkpoint.read_manifest):
        with pytest.raises(CheckpointError, match=folder.name):
            read(folder)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not tensors", (2**60).to_bytes(8, "little")])
def test_a_file_of_the_right_checksum_that_holds_no_tensors_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = _write(tmp_path, 5)
    (folder / checkpoint.STATE).write_bytes(content)
    manifest = {"files": {checkpoint.STATE: checkpoint._describe(folder / checkpoint.STATE)}}
    (folder / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=rf"{folder.name}/state\.safetensors: not a checkpoint"):
        checkpoint.read(folder)


def test_the_newest_checkpoint_is_the_one_after_most_images(tmp_path: Path) -> None:
    folders = [_write(tmp_path, images) for images in (90, 1_000_000_000, 100, 2_000)]
    assert checkpoint.newest(tmp_path) == folders[1]


@pytest.mark.parametrize("parent", ["", "nowhere"])
def test_where_there_is_no_checkpoint_there_is_no_newest(tmp_path: Path, parent: str) -> None:
    assert checkpoint.newest(tmp_path / parent) is None


def test_damaged_checkpoints_are_passed_over_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole, *damaged = [_write(tmp_path, images) for images in (1, 2, 3, 4)]
    _flip(damaged[0] / checkpoint.STATE, -1)
    (damaged[1] / checkpoint.MANIFEST).unlink()
    (damaged[2] / checkpoint.MANIFEST).write_text("{")
    assert checkpoint.newest(tmp_path) == whole
    assert all(str(folder) in caplog.text for folder in damaged)
    _flip(whole / checkpoint.STATE, -1)
    assert checkpoint.newest(tmp_path) is None


@pytest.mark.parametrize("images", [10, 5], ids=["of the same name", "of another name"])
def test_an_interrupted_write_leaves_the_old_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: int
) -> None:
    old = _write(tmp_path, 10, value=1.0)

    def fail(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="no space left"):
            _write(tmp_path, images, value=2.0)
    assert checkpoint.newest(tmp_path) == old
    assert checkpoint.read(old)[0]["opt.g.0.step"] == 1
    assert checkpoint.read(_write(tmp_path, images, value=2.0))[0]["opt.g.0.step"] == 2


def test_the_remains_of_a_killed_process_confuse_nobody(tmp_path: Path) -> None:
    folders = [_write(tmp_path, images) for images in (1, 2, 3)]
    remains = tmp_path / f".{checkpoint.folder_name(9)}.{os.getpid()}"
    remains.mkdir()
    (remains / checkpoint.STATE).write_bytes(b"half")
    assert checkpoint.newest(tmp_path) == folders[2]
    checkpoint.prune(tmp_path)
    assert checkpoint.newest(tmp_path) == folders[2]
    assert not folders[0].exists()
    assert folders[1].exists()
    folder = _write(tmp_path, 9)
    assert checkpoint.newest(tmp_path) == folder


@pytest.mark.parametrize(
    ("best", "kept"), [(-1, {40, 50}), (10, {10, 40, 50}), (30, {30, 40, 50}), (40, {40, 50}), (50, {40, 50})]
)
def test_pruning_keeps_the_two_newest_and_the_best(tmp_path: Path, best: int, kept: set[int]) -> None:
    for images in (10, 20, 30, 40, 50):
        _write(tmp_path, images)
    checkpoint.prune(tmp_path, [best])
    assert {int(folder.name) for folder in tmp_path.iterdir()} == kept


def test_pruning_leaves_a_single_checkpoint_alone(tmp_path: Path) -> None:
    folder = _write(tmp_path, 5)
    checkpoint.prune(tmp_path)
    assert checkpoint.newest(tmp_path) == folder


def test_names_sort_by_age() -> None:
    images = [0, 9, 10, 640, 64_000, 10_880_000, 2**32]
    names = [checkpoint.folder_name(count) for count in images]
    assert names == sorted(names)
    assert [int(name) for name in names] == images


RUNGS = (100, 200, 300, 400)
SMALL = {
    "kimg": 0.4,
    "batch": 50,
    "width": 0.125,
    "ema_decay": 0.9,
    "smoothing": "random",
    "dropout": 0.2,
}


@pytest.fixture(scope="module")
def evaluator(mnist_mini: tuple[ImageData, ImageData], mnist_mini_lenet: Extractor, cache_dir: Path) -> Evaluator:
    few = _few(mnist_mini)
    return Evaluator(
        mnist_mini_lenet, reference_of(mnist_mini_lenet, few, cache_dir), ("kid", "fid", "is", "accuracy"), 0
    )


def _few(mnist_mini: tuple[ImageData, ImageData]) -> ImageData:
    train, _ = mnist_mini
    return replace(train, images=train.images[:300], labels=train.labels[:300])


@pytest.fixture
def new_run(mnist_mini: tuple[ImageData, ImageData], evaluator: Evaluator) -> Any:
    def build(**settings: Any) -> Run:
        changed = SMALL | settings
        config = overlay(SYSTEMS["narman-cgan"].defaults, changed)
        return Run("narman-cgan", SYSTEMS["narman-cgan"], config, _few(mnist_mini), evaluator, RUNGS, sample_count=100)

    return build


def _finish(run: Run, folder: Path) -> Run:
    while not run.finished:
        run.next_rung()
        run.save(folder)
    return run


def _without_times(rung: Rung) -> dict[str, Any]:
    record = rung.to_json()
    del record["train_seconds"], record["score_seconds"], record["losses"]["images_per_s"]
    return record


def _assert_same_bits(first: Run, second: Run) -> None:
    (tensors, header), (others, other_header) = first.trainer.state(), second.trainer.state()
    assert header == other_header
    assert tensors.keys() == others.keys()
    assert [name for name, tensor in tensors.items() if not torch.equal(tensor, others[name])] == []


def test_a_run_that_was_interrupted_has_the_same_history_and_bits(new_run: Any, tmp_path: Path) -> None:
    whole = _finish(new_run(), tmp_path / "whole")
    first = new_run()
    assert not first.restore(tmp_path / "parts")
    for _ in range(2):
        first.next_rung()
        first.save(tmp_path / "parts")
    # A rung that was never saved is lost with the process and must be passed again.
    first.next_rung()
    second = new_run()
    assert second.restore(tmp_path / "parts")
    assert [rung.images for rung in second.history] == [100, 200]
    _finish(second, tmp_path / "parts")
    _assert_same_bits(whole, second)
    assert [_without_times(rung) for rung in second.history] == [_without_times(rung) for rung in whole.history]
    assert [rung.images for rung in whole.history] == list(RUNGS)
    assert set(whole.history[0].scores) == {"kid", "fid", "is", "accuracy"}
    for rung in RUNGS:
        name = f"samples/{checkpoint.folder_name(rung)}.png"
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_the_last_two_checkpoints_and_the_best_are_kept(new_run: Any, tmp_path: Path) -> None:
    run = _finish(new_run(), tmp_path)
    best = run.best()
    assert best is not None
    assert best.scores["kid"].value == min(rung.scores["kid"].value for rung in run.history)
    kept = {int(folder.name) for folder in (tmp_path / "checkpoints").iterdir()}
    assert kept == {300, 400, best.images}


def test_the_best_before_the_last_rung_stays_since_measuring_again_may_bring_it_back(
    new_run: Any, tmp_path: Path
) -> None:
    run = _finish(new_run(), tmp_path)
    kids = (1.0, 3.0, 2.0, 0.5)
    run.history = [
        replace(rung, scores={"kid": replace(rung.scores["kid"], value=value)})
        for rung, value in zip(run.history, kids, strict=True)
    ]
    best = tmp_path / "checkpoints" / checkpoint.folder_name(run.history[0].images)
    best.mkdir(exist_ok=True)
    run.save(tmp_path)
    assert best.exists()


def test_a_restored_run_that_is_finished_has_nothing_left_to_do(new_run: Any, tmp_path: Path) -> None:
    _finish(new_run(), tmp_path)
    again = new_run()
    assert again.restore(tmp_path)
    assert again.finished


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(new_run: Any, tmp_path: Path) -> None:
    whole = _finish(new_run(), tmp_path)
    state = tmp_path / "checkpoints" / checkpoint.folder_name(400) / checkpoint.STATE
    state.write_bytes(state.read_bytes()[:-1])
    again = new_run()
    assert again.restore(tmp_path)
    assert again.history[-1].images == 300
    _finish(again, tmp_path)
    _assert_same_bits(whole, again)
    assert checkpoint.newest(tmp_path / "checkpoints") == state.parent


def test_a_checkpoint_of_another_system_is_refused(new_run: Any, tmp_path: Path) -> None:
    run = new_run()
    run.next_rung()
    run.save(tmp_path)
    other = new_run()
    other.system_id = "narman-dcgan"
    with pytest.raises(ValueError, match="of system narman-cgan, not of narman-dcgan"):
        other.restore(tmp_path)


def test_a_checkpoint_of_other_data_is_refused(new_run: Any, tmp_path: Path) -> None:
    run = new_run()
    run.next_rung()
    run.save(tmp_path)
    other = new_run()
    other.data = replace(other.data, images=255 - other.data.images)
    other.__post_init__()
    with pytest.raises(ValueError, match="data"):
        other.restore(tmp_path)


def test_a_diverged_run_is_finished_and_is_not_scored(new_run: Any, tmp_path: Path) -> None:
    run = new_run()
    run.next_rung()
    with torch.no_grad():
        next(run.trainer.nets["d"].parameters()).fill_(torch.nan)
    rung = run.next_rung()
    assert rung.diverged is not None
    assert "loss_d is nan" in rung.diverged
    assert rung.scores == {}
    assert run.finished
    assert run.best() is run.history[0]
    run.save(tmp_path)
    again = new_run()
    assert again.restore(tmp_path)
    assert again.finished
    assert again.history[-1].diverged == rung.diverged


def test_a_rung_survives_json() -> None:
    rung = Rung(5, {}, {"loss_d": 1.5, "loss_g": float("inf")}, 1.0, 2.0, "loss_g is inf")
    assert Rung.from_json(json.loads(json.dumps(rung.to_json()))) == rung
