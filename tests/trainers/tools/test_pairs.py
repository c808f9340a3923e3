"""Folders of pictures against folders of targets: every picture has its partner, and the means are those of pairs."""

from __future__ import annotations

import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from orchestrator.cli.images import print_likeness
from tests.support import sweeps
from trainers.data.pictures import read_picture, read_pictures
from trainers.errors import InputError
from trainers.evaluation.similarity import psnr, ssim
from trainers.tools.pairs import likeness


def _noise(seed: int, shape: tuple[int, ...] = (12, 16, 3)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _save(array: NDArray[Any], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three pairs of noise, one of them in gray and of another size."""
    for index, name in enumerate(("a/0.png", "a/1.png")):
        _save(_noise(index), tmp_path / "made" / name)
        _save(_noise(10 + index), tmp_path / "targets" / name)
    _save(_noise(2, (20, 11)), tmp_path / "made" / "b" / "0.png")
    _save(_noise(12, (20, 11)), tmp_path / "targets" / "b" / "0.png")
    return tmp_path / "made", tmp_path / "targets"


def test_the_means_and_their_errors_are_those_of_the_pairs(folders: tuple[Path, Path]) -> None:
    found = likeness(*folders)
    values: dict[str, list[float]] = {"psnr": [], "ssim": []}
    for path in ("a/0.png", "a/1.png", "b/0.png"):
        pair = [np.atleast_3d(np.asarray(Image.open(folder / path))) for folder in folders]
        x, y = (torch.from_numpy(array.copy()).permute(2, 0, 1)[None] for array in pair)
        values["psnr"].append(psnr(x, y).item())
        values["ssim"].append(ssim(x, y).item())
    assert (found.n, found.equal) == (3, 0)
    assert (found.psnr, found.psnr_stderr) == pytest.approx(_mean_and_error(values["psnr"]), rel=1e-12)
    assert (found.ssim, found.ssim_stderr) == pytest.approx(_mean_and_error(values["ssim"]), rel=1e-12)


def _mean_and_error(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def test_one_pair_has_values_without_error(tmp_path: Path) -> None:
    for seed, name in enumerate(("made", "targets")):
        _save(_noise(seed), tmp_path / name / "0.png")
    found = likeness(tmp_path / "made", tmp_path / "targets")
    assert (found.n, found.psnr_stderr, found.ssim_stderr) == (1, None, None)
    assert math.isfinite(found.psnr)


def test_an_equal_pair_makes_the_mean_infinite_and_is_counted(folders: tuple[Path, Path]) -> None:
    made, targets = folders
    (targets / "b" / "0.png").write_bytes((made / "b" / "0.png").read_bytes())
    found = likeness(made, targets)
    assert (found.psnr, found.psnr_stderr, found.equal) == (math.inf, None, 1)
    assert found.ssim < 1
    whole = likeness(made, made)
    assert (whole.psnr, whole.equal) == (math.inf, 3)
    assert whole.ssim_stderr == pytest.approx(0, abs=1e-12)
    assert whole.ssim == pytest.approx(1, abs=1e-12)


def test_a_picture_without_a_partner_is_named_on_either_side(folders: tuple[Path, Path]) -> None:
    made, targets = folders
    _save(_noise(0), made / "a" / "5.png")
    _save(_noise(0), made / "c" / "0.png")
    with pytest.raises(InputError, match=r"made/a/5\.png: .*targets/a/5\.png does not exist \(2 of 5 pictures"):
        likeness(made, targets)
    with pytest.raises(InputError, match=r"made/a/5\.png: .*targets/a/5\.png does not exist \(2 of 5 pictures"):
        likeness(targets, made)


@pytest.mark.parametrize(
    ("made", "target", "message"),
    [
        (_noise(0), _noise(0, (12, 17, 3)), "sizes 16x12 and 17x12; a pair has one size"),
        (
            _noise(0),
            _noise(0, (12, 16)),
            r"targets/0\.png: gray; .*made/0\.png is colour: convert one of them",
        ),
        (_noise(0, (12, 16)), _noise(0), r"targets/0\.png: colour; .*made/0\.png is gray: convert one"),
        (_noise(0, (10, 16)), _noise(0, (10, 16)), "16x10 pixels; allowed are 11x11 or more, the window of SSIM"),
        (
            np.zeros((12, 16), np.uint16),
            _noise(0),
            "mode I;16 with more than 8 bits per channel; convert it to 8 bits",
        ),
    ],
)
def test_pictures_that_are_no_pair_are_named(
    made: NDArray[Any], target: NDArray[Any], message: str, tmp_path: Path
) -> None:
    _save(made, tmp_path / "made" / "0.png")
    _save(target, tmp_path / "targets" / "0.png")
    with pytest.raises(InputError, match=message):
        likeness(tmp_path / "made", tmp_path / "targets")


def test_folders_without_pictures_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for pair in ((folders[0], tmp_path / "empty"), (tmp_path / "empty", folders[0])):
        with pytest.raises(InputError, match="empty: no images; allowed are files ending in"):
            likeness(*pair)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        likeness(folders[0], tmp_path / "nowhere")


def test_all_pairs_that_cannot_be_compared_are_named(folders: tuple[Path, Path]) -> None:
    made, targets = folders
    broken = sorted(path for path in made.rglob("*.png"))[:2]
    for path in broken:
        path.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"2 of 3 pictures cannot be used") as found:
        likeness(made, targets)
    assert all(f"{path}: not a readable image" in str(found.value) for path in broken)


def test_pairs_are_compared_upright_and_on_a_background(tmp_path: Path) -> None:
    pixels, turned = _noise(5, (12, 16, 3)), Image.Exif()
    turned[0x0112] = 6
    for side, stored in (("made", pixels), ("targets", np.rot90(pixels, -1))):
        (tmp_path / side).mkdir()
        Image.fromarray(stored.copy()).save(tmp_path / side / "0.png", exif=turned if side == "made" else None)
    assert likeness(tmp_path / "made", tmp_path / "targets").equal == 1
    for side, hidden in (("made", 7), ("targets", 200)):
        clear = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
        clear[:6] = (hidden, 0, 0, 0)
        Image.fromarray(clear).save(tmp_path / side / "0.png")
    with pytest.raises(InputError, match="is transparent in parts"):
        likeness(tmp_path / "made", tmp_path / "targets")
    assert likeness(tmp_path / "made", tmp_path / "targets", (255, 255, 255)).equal == 1


# Pictures


def test_a_picture_is_read_as_it_is(tmp_path: Path) -> None:
    colour, gray = _noise(3), _noise(4, (12, 16))
    paths = [_save(colour, tmp_path / "colour.png"), _save(gray, tmp_path / "gray.png")]
    assert torch.equal(read_picture(paths[0]), torch.from_numpy(colour.copy()).permute(2, 0, 1))
    assert torch.equal(read_picture(paths[1], 1), torch.from_numpy(gray.copy())[None])
    assert tuple(read_pictures([paths[0]] * 2, 3, "data").shape) == (2, 3, 12, 16)


def test_sixteen_bits_of_colour_are_not_cut_to_eight(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + bytes(24) for _ in range(4))))
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""))
    (tmp_path / "deep.ppm").write_bytes(b"P6\n4 4\n65535\n" + bytes(96))
    for name in ("deep.png", "deep.ppm"):
        with pytest.raises(InputError, match=f"{name}: mode RGB with more than 8 bits per channel"):
            read_picture(tmp_path / name, 3, "data")


# The command


def test_the_command_needs_no_data_set(folders: tuple[Path, Path], tmp_path: Path) -> None:
    done = sweeps.gansweep("score", "made", "--targets", "targets", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown, found = json.loads(done.stdout), likeness(*folders)
    assert shown == pytest.approx(found.__dict__)


def test_infinity_is_a_word_in_text_and_in_json(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    made = folders[0]
    print_likeness(likeness(made, made), made, made, as_json=True)
    shown = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (shown["psnr"], shown["psnr_stderr"], shown["n"], shown["equal"]) == ("inf", None, 3, 3)
    print_likeness(likeness(made, made), made, made, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "        psnr inf dB (3 pairs are equal)"
    assert lines[-1].startswith("on 3 pairs, of ")
