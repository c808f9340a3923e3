"""The kinds of hostile input, each with how one is made and what the program does with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import click
import numpy as np
import safetensors.torch
import torch
import typer
from PIL import Image

from orchestrator.cli.app import app
from orchestrator.driver.launch import check
from orchestrator.paths import JOURNAL, SWEEP_FILE
from orchestrator.study.study import SweepStudy
from search_spaces import shipped
from search_spaces.advice import sweep_warnings
from search_spaces.load import SweepFile
from tests.fuzz.laws import run_command_line
from tests.fuzz.mutations import address, odd_value, spoiled_bytes, spoiled_json, spoiled_lines
from tests.support.earlier import unpack
from tests.support.hostile import grown, put
from tests.support.sweep_texts import sweep_text
from trainers import checkpoint
from trainers.checkpoint import MANIFEST, STATE
from trainers.data.catalogue import load
from trainers.data.images import blank
from trainers.data.spec import DatasetSpec
from trainers.tools.score import checkpoint_of, from_checkpoint


@dataclass(frozen=True)
class Attack:
    """One hostile input, in a folder of its own."""

    arguments: list[str]
    """Of the command that gets the input."""
    call: Callable[[], object] | None = None
    """What that command does with the input; by default the command itself, in this process."""
    own: set[Path] = field(default_factory=set)
    """Files of the input, which may have its secret."""

    def run(self) -> None:
        """Runs the attack in this process; raises what the program raises."""
        if self.call is None:
            run_command_line(self.arguments)
        else:
            self.call()


#: Makes an attack below a folder; the second folder has what `prepare` put there once.
Maker = Callable[[Random, Path, Path], Attack]


def prepare(place: Path) -> None:
    """Writes what attacks start from, once: a sweep of an earlier release with its checkpoints."""
    unpack("e8b0d9e", place)


def sweep_file(random: Random, folder: Path, place: Path) -> Attack:
    """A sweep file that was spoiled line by line or byte by byte, or hostile values on the command line."""
    names = shipped()
    texts = [sweep_text(), sweep_text(study="{}", tracking="{}", store="{}", resources="{}", score="{samples: 100}")]
    text = random.choice([*texts, *texts, names[random.choice(list(names))].read_text()])
    path, settings = folder / "s.yaml", []
    kind = random.choice(["lines", "lines", "bytes", "address", "set"])
    if kind == "lines":
        path.write_text(spoiled_lines(text, random), errors="surrogatepass")
    elif kind == "bytes":
        path.write_bytes(spoiled_bytes(text.encode(), random))
    else:
        path.write_text(text)
    if kind in ("address", "set"):
        value = address(random) if kind == "address" else odd_value(random)[:100_000].replace("\0", "")
        settings = ["--set", f"{random.choice(KEYS)}={value}"]

    def plan() -> None:  # all of a dry run but the steps that it times
        written = SweepFile.read(path, settings[1:])
        sweep = written.sweep()
        with written.places():
            print(*sweep_warnings(sweep), *check(sweep, folder / "r", lambda: None), sweep.normalised())

    return Attack(["launch", str(path), *settings, "--dry-run", "--root", str(folder / "r")], plan, {path})


#: Keys at which `--set` is tried.
KEYS = (
    "name", "system", "dataset", "dataset.path", "dataset.size", "search", "search.g_lr", "search.batch", "rungs",
    "rungs.every", "score", "score.samples", "score.extractor", "score.extractor.weights", "finals.trials", "sampler",
    "pruner", "budget", "budget.trials", "resources", "store.path", "store.endpoint", "store.keep.last",
    "study.storage", "tracking.uri", "tracking.artifacts", "warm_start", "stop_on", "objectives", "a.b.c", "",
)  # fmt: skip


def arguments(random: Random, folder: Path, place: Path) -> Attack:
    """Odd arguments and options of a random command, on a root with one sweep."""
    root = folder / "r"
    (root / "kept").mkdir(parents=True)
    for name in (JOURNAL, SWEEP_FILE):
        shutil.copy(place / "kept" / name, root / "kept" / name)
    command: Any = typer.main.get_command(app)
    chosen = random.choice(COMMANDS)
    words = [chosen]
    for parameter in command.commands[chosen].params:
        if isinstance(parameter, click.Argument):
            words.append("kept" if chosen in ON_A_SWEEP and random.random() < 0.7 else _word(random))
        elif random.random() < 0.4 and "--root" not in parameter.opts and "--help" not in parameter.opts:
            words += [random.choice(parameter.opts), *([] if getattr(parameter, "is_flag", False) else [_word(random)])]
    if random.random() < 0.2:
        words.insert(random.randint(1, len(words)), _word(random))
    return Attack([*words, *([] if chosen == "list" else ["--root", str(root)])])


#: Commands that start no training, server or cluster, whatever their arguments are.
COMMANDS = ("status", "stop", "pause", "add-trials", "gc", "report", "simulate", "list", "score")
ON_A_SWEEP = ("status", "stop", "pause", "add-trials", "gc", "report")


def _word(random: Random) -> str:
    return random.choice([*WORDS, json.loads(address(random)), odd_value(random)[:2000].replace("\0", "")])


WORDS = (
    "", " ", "-", "--", "-1", "0", "1", "10" * 15, "1e9", "nan", "inf", "x", "/dev/null", "/dev/full", "/proc/x", "..",
    "../..", "~", "a/b", "n" * 300, "p/" * 3000, "ünï", "\udcff", "--root", "--json", "kept", "*", "%s", "$HOME", "{}",
    "[]", "mnist-mini", "lenet", "kid", "median", "/dev/stdin",
)  # fmt: skip


def curves(random: Random, folder: Path, place: Path) -> Attack:
    """A file of learning curves for `simulate`: empty, cut, deep, infinite, or larger in memory than on disk."""
    path = folder / random.choice(["c.json", "c.npz"])
    if path.suffix == ".json":
        good = {f"t{i}": [[step, 1 / (i + step)] for step in range(1, 6)] for i in range(6)}
        text = json.dumps(spoiled_json(good, random) if random.random() < 0.6 else good)
        if random.random() < 0.2:
            text = random.choice(["", "{", "[" * 3000, '{"a":' * 3000, "9" * 5000, '{"a": [[1, ' + "9" * 5000 + "]]}"])
        path.write_bytes(spoiled_bytes(text.encode(), random) if random.random() < 0.3 else text.encode())
    else:
        kinds: list[Any] = [
            np.random.default_rng(0).random((6, 6)),
            np.zeros((0, 6)),
            np.zeros((6, 0)),
            np.zeros(6),
            np.full((6, 6), np.nan),
            np.full((6, 6), np.inf),
            np.array([["a", "b"]]),
            np.zeros((2, 3), dtype=complex),
            np.zeros((2, 3), dtype="datetime64[s]"),
        ]
        np.savez_compressed(path, **{random.choice(["valid_loss", "valid_loss", "other"]): random.choice(kinds)})
        if random.random() < 0.3:
            _bomb(path, random)
        if random.random() < 0.4:
            path.write_bytes(spoiled_bytes(path.read_bytes(), random))
    few = ["--seeds", "1", "--workers", "2", "--pruner", random.choice(["median", "none", "freeze-thaw"]), "--json"]
    return Attack(["simulate", str(path), *few])


def _bomb(path: Path, random: Random) -> None:
    """Curves whose header promises far more than the file has."""
    import zipfile

    shape = random.choice([(10**6, 10**6), (2**40, 2), (1, 2**62)])
    header = repr({"descr": "<f8", "fortran_order": False, "shape": shape}).encode()
    body = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("valid_loss.npy", body + bytes(random.choice([0, 10**6])))


def checkpoints(random: Random, folder: Path, place: Path) -> Attack:
    """A checkpoint with spoiled or replaced files, or one that was sealed again after a change inside."""
    target = folder / "0000000800"
    shutil.copytree(place / "kept/store/trials/00000/checkpoints/0000000800", target)
    random.choice([_spoil_file, _replace_file, _seal_again, _seal_again])(target, random)

    def score() -> None:
        found = checkpoint_of(target)
        from_checkpoint(found or target, blank((1, 28, 28), 10, 50), 2)

    words = ["score", str(target), "--dataset", "mnist-mini", "--samples", "20", "--json", "--root", str(place)]
    return Attack(words, score)


def _spoil_file(target: Path, random: Random) -> None:
    path = target / random.choice([STATE, MANIFEST])
    path.write_bytes(spoiled_bytes(path.read_bytes(), random))


def _replace_file(target: Path, random: Random) -> None:
    file = random.choice([STATE, MANIFEST])
    kind = random.choice(["missing", "empty", "huge", "link into nothing", "link to itself", "pipe", "socket",
                          "link to a device", "folder"])  # fmt: skip
    if kind == "huge":
        grown(file, 2**40)(target)
    elif kind in ("missing", "empty"):
        (target / file).unlink() if kind == "missing" else (target / file).write_bytes(b"")
    else:
        put(file, kind)(target)


def _seal_again(target: Path, random: Random) -> None:
    """Changes tensors, header or manifest, and writes the checkpoint anew, so that all checksums are right."""
    tensors, header, manifest = checkpoint.read(target)
    manifest.pop("files")
    if random.random() < 0.5:
        name = random.choice(list(tensors))
        tensor = tensors[name]
        changes: list[Callable[[], torch.Tensor]] = [
            lambda: tensor.to(random.choice([torch.float64, torch.int8, torch.bool, torch.float16, torch.complex64])),
            lambda: tensor[None],
            lambda: torch.zeros(0),
            lambda: torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor - 10**6,
            lambda: torch.zeros(tensor.numel() + 1),
        ]
        tensors[name] = random.choice(changes)()
        if random.random() < 0.3:
            tensors[f"{name}.other"] = tensors.pop(name)
    elif random.random() < 0.6:
        header = spoiled_json(header, random)
    else:
        manifest = spoiled_json(manifest, random)
    shutil.rmtree(target)
    if isinstance(manifest, dict):
        checkpoint.write(target, tensors, header, manifest)
        return
    target.mkdir()
    safetensors.torch.save_file(tensors, target / STATE, {"header": json.dumps(header)})
    (target / MANIFEST).write_text(json.dumps(manifest))


def pictures(random: Random, folder: Path, place: Path) -> Attack:
    """A folder of pictures of which some are spoiled, odd in shape or mode, or not pictures at all."""
    data = folder / "d"
    for name in ("a", "b"):
        (data / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (8, 8), (40 * number, 9, 90)).save(data / name / f"{number}.png")
    path = data / random.choice("ab") / f"odd{random.choice(['.png', '.jpg', '.gif', '.tif', '.webp', '.bmp', '.ppm'])}"
    _odd_picture(path, random)
    spec = DatasetSpec(name="folder", path=data, size=8)
    (folder / "s.yaml").write_text(READS_PICTURES.format(data=data))
    return Attack(
        ["launch", str(folder / "s.yaml"), "--dry-run", "--read-data", "--root", str(folder / "r")],
        lambda: [load(spec, split) for split in ("train", "test")],
    )


#: A sweep that reads pictures and is planned in a moment; to score them would take the training of a classifier.
READS_PICTURES = """\
system: narman-dcgan
dataset: {{name: folder, path: {data}, fit: true}}
rungs: [0.02]
score: {{metric: fid, samples: 20, also: []}}
budget: {{trials: 1}}
search: {{width: 0.1, batch: 2}}
"""


def _odd_picture(path: Path, random: Random) -> None:
    mode = random.choice(["RGB", "RGB", "L", "LA", "RGBA", "P", "1", "CMYK", "I;16", "F", "YCbCr", "HSV", "I"])
    size = random.choice([(8, 8), (8, 8), (31, 17), (1, 1), (4000, 4), (1, 3000)])
    picture = Image.new(mode, size)
    kind = random.choice(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"])
    exif = Image.Exif()
    exif[0x0112] = random.choice([1, 3, 6, 8, 0, 99])
    try:
        picture.save(path, format=kind, exif=exif)
    except (OSError, ValueError, KeyError, TypeError):  # the format has no such mode
        Image.new("RGB", size).save(path, format=kind)
    chance = random.random()
    if chance < 0.7:
        path.write_bytes(spoiled_bytes(path.read_bytes(), random))
    elif chance < 0.8:
        path.write_bytes(random.choice(NO_PICTURES))


NO_PICTURES = (
    b"", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg/>", b"P6 9 9 ", b"P5\n99999 99999\n255\n",
    b"GIF89a\xff\xff\xff\xff", b"RIFF\0\0\0\0WEBP", b"II*\0\x08\0\0\0\xff\xff", b"BM" + b"\xff" * 52,
)  # fmt: skip


def journals(random: Random, folder: Path, place: Path) -> Attack:
    """The journal of a sweep with damage anywhere."""
    root = folder / "r"
    (root / "kept").mkdir(parents=True)
    shutil.copy(place / "kept" / SWEEP_FILE, root / "kept" / SWEEP_FILE)
    data = (place / "kept" / JOURNAL).read_bytes()
    if random.random() < 0.5:
        lines = data.splitlines(keepends=True)
        start = random.randrange(len(lines))
        kind = random.choice(["json", "swap", "twice", "remove", "foreign"])
        if kind == "json":
            lines[start] = json.dumps(spoiled_json(json.loads(lines[start]), random)).encode() + b"\n"
        elif kind == "swap":
            lines[start], lines[-1] = lines[-1], lines[start]
        elif kind == "twice":
            lines[start:start] = lines[start : start + 5]
        elif kind == "remove":
            del lines[start : start + 5]
        else:
            lines.insert(start, random.choice(FOREIGN_LINES))
        spoiled = b"".join(lines)
    else:
        spoiled = spoiled_bytes(data, random)
    (root / "kept" / JOURNAL).write_bytes(spoiled)
    words = ["status", "kept", "--json", "--root", str(root)]

    def repaired() -> None:
        """A journal that is refused can be read after its repair, unless it was cut before its study had begun."""
        if _exit_code(words) != 0:
            assert _exit_code(["repair", "kept", "--root", str(root)]) == 0, "it cannot be repaired"
            assert _exit_code(words) == 0 or SweepStudy.open(root / "kept") is None, "it is refused after its repair"

    return Attack(words, repaired)


def _exit_code(arguments: list[str]) -> int | str | None:
    try:
        run_command_line(arguments)
    except SystemExit as end:
        return end.code or 0
    return 0


FOREIGN_LINES = (b"\n", b"{}\n", b"null\n", b"hello\n", b"\xff\xfeh\0\n", b"[1, 2]\n", b"\r\n", b'{"op_code": 99}\n')

KINDS: dict[str, Maker] = {
    "sweep-files": sweep_file,
    "arguments": arguments,
    "curves": curves,
    "checkpoints": checkpoints,
    "pictures": pictures,
    "journals": journals,
}
