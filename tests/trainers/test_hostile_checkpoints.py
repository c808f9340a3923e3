"""A checkpoint from a stranger is read as what it is or refused at once with the name of its file; nothing hangs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.cli.__main__ import main
from orchestrator.store import checkpoints
from orchestrator.store.folder import FolderObjects
from tests.support import hostile
from tests.support.hostile import Change
from tests.support.objects import MemoryObjects, Watched
from trainers import checkpoint
from trainers.catalogue import SYSTEMS
from trainers.checkpoint import MANIFEST, STATE, CheckpointError
from trainers.config import overlay
from trainers.data.images import ImageData
from trainers.data.spec import DatasetSpec
from trainers.errors import InputError
from trainers.evaluation.evaluator import Evaluator
from trainers.evaluation.extractors import Extractor
from trainers.evaluation.reference import reference_of
from trainers.run import Run
from trainers.tools.mix_study import plan
from trainers.tools.score import Generated, checkpoint_of, from_checkpoint, from_folder

#: To hash a terabyte takes an hour, to wait for the other end of a pipe for ever.
pytestmark = pytest.mark.timeout(120)

NAME = checkpoint.folder_name(20)
TRIAL = "trials/00000"
NewRun = Callable[[], Run]

FILES: dict[str, Change] = {
    f"{kind} for {file}": hostile.put(file, kind)
    for file in (MANIFEST, STATE)
    for kind in (
        "link",
        "link into nothing",
        "link to itself",
        "device",
        "link to a device",
        "pipe",
        "socket",
        "folder",
        "nothing",
    )
}
SIZES: dict[str, Change] = {
    "manifest of 10 GB": hostile.grown(MANIFEST, 10 * 10**9),
    "state of 1 TB": hostile.grown(STATE, 2**40),
    "state of 1 TB that the manifest lists": hostile.grown_and_listed(2**40),
    "state of 60 GB whose header is of a small one": hostile.grown_and_listed(60 * 10**9),
    "negative size": hostile.manifest_with(files={STATE: {"size": -1, "sha256": "0" * 64}}),
    "size as a text": hostile.manifest_with(files={STATE: {"size": "9", "sha256": "0" * 64}}),
    "no size": hostile.manifest_with(files={STATE: {}}),
    "file elsewhere": hostile.manifest_with(files={"../" + STATE: {"size": 1, "sha256": "0" * 64}}),
}
TEXTS: dict[str, Change] = {
    text[:20]: hostile.manifest_text(text)
    for text in ("", "5", "[]", '"text"', "NaN", "{}", hostile.DEEP, '{"a":' * 100_000, "\ud7ff")
}
#: Those that show without a look at the contents.
DAMAGED = FILES | SIZES | TEXTS

_REST: dict[str, Change] = {
    "header of the library longer than the file": hostile.raw_state(lambda header, data: (2**40).to_bytes(8, "little")),
    "header of 20 MB": hostile.raw_state(lambda header, data: hostile.packed(" " * 20_000_000)),
    "header that is a list": hostile.raw_state(lambda header, data: hostile.packed("[]", data)),
    "header that is deep": hostile.raw_state(lambda header, data: hostile.packed('{"a":' * 10_000, data)),
    "data cut off": hostile.raw_state(lambda header, data: hostile.packed(str(header).replace("'", '"'), data[:-8])),
    "more data than the file has": hostile.first_tensor(shape=[2**40], data_offsets=[0, 2**42]),
    "negative shape": hostile.first_tensor(shape=[-1]),
    "unknown type of numbers": hostile.first_tensor(dtype="F128"),
    "no metadata": hostile.metadata(None),
    "other metadata": hostile.metadata({"format": "pt"}),
    "metadata that are a list": hostile.metadata({"header": "[1, 2]"}),
    "metadata that are deep": hostile.metadata({"header": hostile.DEEP}),
    "metadata that are no JSON": hostile.metadata({"header": "iteration: 2"}),
    "empty metadata": hostile.metadata({"header": "{}"}),
    "no configuration": hostile.header_with(config=...),
    "configuration that is a list": hostile.header_with(config=[1]),
    "number in the configuration as a text": hostile.config_with(width="0.1"),
    "NaN in the configuration": hostile.config_with(width=float("nan")),
    "epoch of as many images as no memory has indices for": hostile.config_with(oversampling=10**11),
    "unknown setting": hostile.config_with(shell="rm"),
    **{
        f"{key} {value!r}": hostile.header_with(**{key: value})
        for key in ("iteration", "batches")
        for value in (..., None, "2", -1, 2.0, True, 2**70, float("nan"), [2])
    },
    "infinite format": hostile.manifest_text('{"format": 1e999}'),
    "format of a newer program": hostile.manifest_with(format=10**6),
    "format as a text": hostile.manifest_with(format="2"),
    "system that is a mapping": hostile.manifest_with(system={}),
    "system that is a list": hostile.manifest_with(system=["narman-cgan"]),
    "system with a path": hostile.manifest_with(system="../narman-cgan"),
    "no system": hostile.manifest_with(system=...),
    "no random state": hostile.tensors_with(random__cpu=torch.zeros_like),
    "missing tensor": hostile.renamed_tensor("random.cpu", None),
    "tensor with a path for a name": hostile.renamed_tensor("random.cpu", "../../random.cpu"),
    "tensor of another optimizer": hostile.renamed_tensor("opt.g.0.exp_avg", "opt.g.0.momentum_buffer"),
    "tensor that is numbered by a word": hostile.renamed_tensor("opt.g.0.exp_avg", "opt.g.x.exp_avg"),
    "tensor of another shape": hostile.tensors_with(opt__g__0__exp_avg=lambda tensor: tensor[None]),
    "step of another shape": hostile.tensors_with(opt__d__0__step=lambda tensor: tensor.repeat(3)),
    **{
        f"{dtype} of {name}": hostile.tensors_with(**{name: lambda tensor, dtype=dtype: tensor.to(dtype)})
        for name in ("opt__g__0__exp_avg_sq", "opt__d__0__step")
        for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64)
    },
    "network in float64": lambda folder: _every_net_in(folder, torch.float64),
    "network in whole numbers": lambda folder: _every_net_in(folder, torch.int8),
}
#: What only a run looks at that goes on, and not a score.
HISTORIES: dict[str, Change] = {
    **{
        f"images {value!r}": hostile.rung_with(images=value) for value in (-20, 0, 10**30, "20", 20.0, True, None, [20])
    },
    **{f"history {value!r}": hostile.manifest_with(history=value) for value in (..., None, [], {}, "rungs", [5], [[]])},
    "scores that are a list": hostile.rung_with(scores=[]),
    "score without a value": hostile.rung_with(scores={"kid": {"metric": "kid"}}),
    "loss that is no number": hostile.rung_with(losses={"loss_g": "low"}),
    "unknown field": hostile.rung_with(shell="rm"),
    "verdicts of numbers": hostile.rung_with(verdicts=[1]),
    "fewer steps than rungs say": hostile.header_with(iteration=1),
}


def _every_net_in(folder: Path, dtype: torch.dtype) -> None:
    names = [name for name in checkpoint.read(folder)[0] if name.startswith("net.g.")]
    hostile.tensors_with(**{name: lambda tensor: tensor.to(dtype) for name in names})(folder)


def _generated(folder: Path, data: ImageData) -> Generated:
    """As `score` finds images."""
    found = checkpoint_of(folder)
    return from_folder(folder, DatasetSpec(name="mnist-mini")) if found is None else from_checkpoint(found, data, 2)


@pytest.fixture(scope="module")
def new_run(mnist_mini: tuple[ImageData, ImageData], mnist_mini_lenet: Extractor, cache_dir: Path) -> NewRun:
    train, _ = mnist_mini
    few = replace(train, images=train.images[:200], labels=train.labels[:200])
    system = SYSTEMS["narman-cgan"]
    config = overlay(system.defaults, {"width": 0.1, "batch": 10, "kimg": 0.04})
    evaluator = Evaluator(mnist_mini_lenet, reference_of(mnist_mini_lenet, few, cache_dir), ("kid",), 0)
    return lambda: Run("narman-cgan", system, config, few, evaluator, [20, 40], 20)


@pytest.fixture(scope="module")
def real(new_run: NewRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = new_run()
    run.next_rung()
    return run.save(tmp_path_factory.mktemp("real"))


@pytest.fixture
def folder(real: Path, tmp_path: Path) -> Path:
    """A copy of a real checkpoint, below the folder of a trial in a store."""
    return Path(shutil.copytree(real, tmp_path / TRIAL / "checkpoints" / NAME))


def test_the_copy_is_taken_as_it_is(folder: Path, new_run: NewRun, mnist_mini: tuple[ImageData, ImageData]) -> None:
    hostile.reseal(folder)
    new_run().load(folder)
    assert len(from_checkpoint(folder, mnist_mini[0], 2).images) == 2
    assert checkpoints.fetch(FolderObjects(folder.parents[3]), TRIAL, folder.parents[3] / "fetched") == folder


@pytest.mark.parametrize("what", DAMAGED | _REST)
def test_it_is_not_scored(what: str, folder: Path, mnist_mini: tuple[ImageData, ImageData]) -> None:
    (DAMAGED | _REST)[what](folder)
    with pytest.raises(InputError) as caught:
        _generated(folder, mnist_mini[0])
    assert str(folder) in str(caught.value)
    assert len(str(caught.value)) < 3000


def test_networks_that_its_tensors_do_not_fill_are_not_built(
    folder: Path, mnist_mini: tuple[ImageData, ImageData], monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile.config_with(width=16.0)(folder)
    monkeypatch.setattr("trainers.tools.score.Trainer", None)
    with pytest.raises(InputError, match=r"its tensor net\.g\.\S+ is float32 "):
        from_checkpoint(folder, mnist_mini[0], 2)


@pytest.mark.parametrize("what", ["pipe for state.safetensors", "state of 1 TB", "system that is a mapping"])
@pytest.mark.parametrize("asked", ["checkpoint", "run"])
def test_the_command_says_so_in_one_line(
    what: str,
    asked: str,
    folder: Path,
    tmp_path: Path,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (DAMAGED | _REST)[what](folder)
    (tmp_path / "root").mkdir()
    (tmp_path / "root/cache").symlink_to(cache_dir)
    source = folder if asked == "checkpoint" else folder.parents[1]
    words = ["score", str(source), "--dataset", "mnist-mini", "--samples", "20", "--root", str(tmp_path / "root")]
    monkeypatch.setattr("sys.argv", ["gansweep", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert [line.startswith("error: ") and str(folder.parent) in line for line in said[-1:]] == [True]
    assert "Traceback" not in "".join(said)


@pytest.mark.parametrize("what", DAMAGED | _REST | HISTORIES)
def test_no_run_goes_on_from_it(what: str, folder: Path, new_run: NewRun) -> None:
    (DAMAGED | _REST | HISTORIES)[what](folder)
    run = new_run()
    with pytest.raises((CheckpointError, InputError, ValueError)) as caught:
        run.load(folder)
    assert str(folder) in str(caught.value) or "the checkpoint is of system" in str(caught.value)
    assert len(str(caught.value)) < 3000
    assert run.history == []


@pytest.mark.parametrize("what", DAMAGED)
def test_a_store_and_a_run_pass_it_over(what: str, folder: Path, real: Path) -> None:
    older = folder.with_name(checkpoint.folder_name(10))
    shutil.copytree(real, older)
    DAMAGED[what](folder)
    passed_over: list[str] = []
    found = checkpoints.fetch(FolderObjects(folder.parents[3]), TRIAL, folder / "x", None, passed_over.append)
    assert found == older
    assert checkpoint.newest(folder.parent) == older
    assert all(str(folder) in text for text in passed_over)


@pytest.mark.parametrize("what", ["pipe for manifest.json", "images '20'", "history None", "system that is a mapping"])
def test_no_study_of_mixes_is_made_of_it(what: str, folder: Path) -> None:
    (DAMAGED | _REST | HISTORIES)[what](folder)
    settings: dict[str, Any] = {"strategies": ["none"], "real": [], "seeds": [0], "epochs": 2, "images": None}
    with pytest.raises(InputError, match=str(folder)):
        plan(folder, DatasetSpec(name="mnist-mini"), **settings, device="cpu")


@pytest.mark.parametrize("kind", ["pipe", "link to itself", "folder", "socket"])
def test_a_name_of_the_latest_checkpoint_that_is_no_file_is_none(kind: str, folder: Path) -> None:
    trial = folder.parents[1]
    (trial / checkpoints.LATEST).write_text(NAME)
    hostile.put(checkpoints.LATEST, kind)(trial)
    assert checkpoints.latest(FolderObjects(folder.parents[3]), TRIAL) is None


@pytest.mark.parametrize("kind", ["pipe", "link", "socket", "folder"])
def test_what_lies_in_place_of_leftovers_and_old_checkpoints_is_deleted(kind: str, folder: Path, real: Path) -> None:
    outside = folder.parents[1] / "outside"
    shutil.copytree(real, outside)
    for name in (f".{NAME}.1", NAME):
        path = folder.with_name(name)
        shutil.rmtree(path, ignore_errors=True)
        (folder.parent / name).mkdir()
        hostile.put(name, kind)(folder.parent)
        if kind == "link":
            path.unlink()
            path.symlink_to(outside)
    tensors, header, manifest = checkpoint.read(real)
    checkpoint.write(folder, tensors, header, {"history": manifest["history"]})
    checkpoint.prune(folder.parent)
    assert {path.name for path in folder.parent.iterdir() if not path.name.startswith("real-")} == {NAME}
    checkpoint.read(folder)
    checkpoint.read(outside)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (MANIFEST, b" " * (checkpoint.LARGEST_MANIFEST + 1), "manifest.json has 67,108,865 bytes; allowed are"),
        (STATE, b"", "state.safetensors has 0 bytes, but its manifest lists"),
        (STATE, b"x" * 5_000_000, "state.safetensors has 5,000,000 bytes, but its manifest lists"),
    ],
)
def test_what_has_a_wrong_size_is_not_downloaded(file: str, content: bytes, said: str, folder: Path) -> None:
    kept, got = MemoryObjects(), []
    checkpoints.publish(kept, TRIAL, folder, set())
    (name,) = checkpoints.names(kept, TRIAL)
    kept.put(checkpoints.key_of(TRIAL, name, file), content)
    watched: Any = Watched(kept, lambda method, key: got.append((method, key.rpartition("/")[2])))
    passed_over: list[str] = []
    assert checkpoints.fetch(watched, TRIAL, folder / "x", None, passed_over.append) is None
    assert said in passed_over[0]
    assert [key for method, key in got if method.startswith("get") and key == file] == []
