"""Whatever a picture file holds, the one reader gives upright pixels without transparency, or names the file."""

from __future__ import annotations

import io
import os
import random
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from trainers.data import pictures
from trainers.data.pictures import DamagedError, decode, read_picture, read_pictures, suffixes
from trainers.errors import InputError

#: Five columns, three rows: no turn or flip leaves it as it is.
PIXELS = np.arange(45, dtype=np.uint8).reshape(3, 5, 3) * 5
ORIENTATION = 0x0112


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[ORIENTATION] = orientation
    return found


def pixels(path: Path, background: tuple[int, int, int] | None = None) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(decode(path, background).image)


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_pictures_are_turned_upright(orientation: int, suffix: str, tmp_path: Path) -> None:
    """As Pillow turns the pixels themselves. TIFF has the orientation among its own tags."""
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"x.{suffix}", Image.fromarray(PIXELS), exif=exif(orientation), **options)
    plain = Image.fromarray(PIXELS)
    plain.getexif()[ORIENTATION] = orientation
    expected = ImageOps.exif_transpose(plain)
    assert np.array_equal(pixels(path), np.asarray(expected))
    assert tuple(read_picture(path).shape[1:]) == (expected.height, expected.width)


def test_an_orientation_that_is_none_of_the_eight_turns_nothing(tmp_path: Path) -> None:
    for value in (0, 9, 700):
        path = save(tmp_path / "x.png", Image.fromarray(PIXELS), exif=exif(value))
        assert np.array_equal(pixels(path), PIXELS)


def outcome(path: Path) -> str:
    """The mode in which a picture is read, or the message that names it."""
    try:
        return decode(path, (255, 255, 255)).image.mode
    except InputError as error:
        return str(error).replace(str(path), "FILE")


@pytest.mark.parametrize(
    "content", [b"II*\0\x08\0\0\0\1", b"no tags at all", b"MM\0*\xff\xff\xff\xff", b"II*\0" + b"\xff" * 40]
)
def test_damaged_exif_data_name_the_file_or_leave_the_pixels(content: bytes, tmp_path: Path) -> None:
    for suffix in ("webp", "png", "jpg"):
        path = save(tmp_path / f"x.{suffix}", Image.fromarray(PIXELS), exif=b"Exif\0\0" + content)
        assert outcome(path) == "RGB" or outcome(path).startswith("FILE: not a readable image (")


# Transparency


def clear(mode: str) -> Image.Image:
    """Left half hidden, with pixels below that nobody sees; right half visible."""
    alpha = np.tile(np.array([0, 0, 255, 255], np.uint8), (4, 1))
    colours = np.full((4, 4, 3), 90, np.uint8)
    colours[:, :2] = 200
    whole = Image.fromarray(np.dstack([colours, alpha]))
    return whole if mode == "RGBA" else whole.convert(mode)


@pytest.mark.parametrize(("mode", "suffix"), [("RGBA", "png"), ("LA", "png"), ("RGBA", "webp"), ("RGBA", "tif")])
def test_hidden_parts_lie_on_the_colour_that_is_named(mode: str, suffix: str, tmp_path: Path) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"x.{suffix}", clear(mode), **options)
    with pytest.raises(InputError, match=rf"x\.{suffix}: is transparent in parts .*`background`"):
        decode(path)
    for background in ((255, 255, 255), (0, 0, 0), (7, 8, 9)):
        found = pixels(path, background)
        colour = found if found.ndim == 3 else np.dstack([found] * 3)
        assert (colour[:, :2] == background).all()
        assert (colour[:, 2:] == 90).all()


def test_the_transparent_colour_of_a_palette_and_of_a_png_lies_on_the_background(tmp_path: Path) -> None:
    gray = np.array([[10, 10, 200, 200]], np.uint8)
    palette = Image.fromarray(np.array([[0, 0, 1, 1]], np.uint8), "P")
    palette.putpalette([10, 10, 10, 200, 200, 200])
    cases = [
        save(tmp_path / "palette.png", palette, transparency=0),
        save(tmp_path / "palette.gif", palette, transparency=0),
        save(tmp_path / "gray.png", Image.fromarray(gray), transparency=10),
        save(tmp_path / "colour.png", Image.fromarray(np.dstack([gray] * 3)), transparency=(10, 10, 10)),
    ]
    for path in cases:
        with pytest.raises(InputError, match="is transparent in parts"):
            decode(path)
        found = pixels(path, (255, 255, 255)).reshape(4, -1)
        assert (found[:2] == 255).all(), path
        assert (found[2:] == 200).all(), path


def test_a_channel_of_full_opacity_needs_no_colour(tmp_path: Path) -> None:
    opaque = np.dstack([PIXELS, np.full(PIXELS.shape[:2], 255, np.uint8)])
    assert np.array_equal(pixels(save(tmp_path / "x.png", Image.fromarray(opaque))), PIXELS)
    gray = np.dstack([PIXELS[..., 0], np.full(PIXELS.shape[:2], 255, np.uint8)])
    found = decode(save(tmp_path / "y.png", Image.fromarray(gray, "LA"))).image
    assert found.mode == "L"
    assert np.array_equal(np.asarray(found), PIXELS[..., 0])


def test_half_transparent_parts_are_mixed(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", Image.new("RGBA", (2, 2), (100, 0, 200, 51)))
    assert pixels(path, (0, 100, 0))[0, 0].tolist() == [20, 80, 40]


# Modes


def test_modes_become_gray_or_colour(tmp_path: Path) -> None:
    bits = Image.fromarray(np.array([[0, 255, 0]], np.uint8)).convert("1")
    for suffix in ("png", "tif", "pbm", "gif"):
        found = pixels(save(tmp_path / f"x.{suffix}", bits))
        assert np.unique(found).tolist() == [0, 255], suffix
    cmyk = save(tmp_path / "cmyk.tif", Image.new("CMYK", (2, 2), (0, 255, 255, 0)))
    assert pixels(cmyk)[0, 0].tolist() == [255, 0, 0]
    ycbcr = save(tmp_path / "ycbcr.tif", Image.new("RGB", (2, 2), (10, 200, 30)).convert("YCbCr"))
    assert np.abs(pixels(ycbcr)[0, 0].astype(int) - (10, 200, 30)).max() <= 2
    short = tmp_path / "short.bmp"  # 5, 6 and 5 bits in a pixel are not 16 in a channel
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    header = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 3, 4, 0, 0, 0, 0) + masks
    short.write_bytes(b"BM" + struct.pack("<IHHI", 70, 0, 0, 66) + header + struct.pack("<HH", 0xF800, 0x001F))
    assert pixels(short)[0].tolist() == [[255, 0, 0], [0, 0, 255]]


def deep_png(colour_type: int, channels: int) -> bytes:
    """A PNG of 2 x 2 pixels with 16 bits per channel, which Pillow does not write in colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 2, 2, 16, colour_type, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x12\x34" * channels * 2) * 2)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("gray.png", deep_png(0, 1)),
        ("colour.png", deep_png(2, 3)),
        ("gray-alpha.png", deep_png(4, 2)),
        ("colour-alpha.png", deep_png(6, 4)),
        ("colour.ppm", b"P6 1 1 65535\n" + b"\x12\x34" * 3),
        ("twelve.ppm", b"P6 1 1 4095\n" + b"\x02\x34" * 3),
        ("plain.ppm", b"P3 1 1 1000\n1 2 3\n"),
        ("gray.pgm", b"P5 1 1 300\n\x01\x02"),
        ("float.pfm", b"Pf 1 1 -1.0\n" + struct.pack("<f", 0.5)),
    ],
)
def test_more_than_8_bits_per_channel_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        InputError, match=rf"{name}: mode .*more than 8 bits per channel; convert it to 8 bits"
    ) as found:
        decode(tmp_path / name, (0, 0, 0))
    assert not isinstance(found.value, DamagedError)


def test_fewer_than_8_bits_are_stretched(tmp_path: Path) -> None:
    (tmp_path / "x.pgm").write_bytes(b"P5 3 1 15\n\x00\x05\x0f")
    assert pixels(tmp_path / "x.pgm").tolist() == [[0, 85, 255]]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_a_file_of_several_frames_is_told_apart(suffix: str, tmp_path: Path) -> None:
    first, second = Image.new("RGB", (4, 4), (250, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 250))
    path = save(tmp_path / f"x.{suffix}", first, save_all=True, append_images=[second])
    found = decode(path)
    assert found.frames
    assert np.asarray(found.image)[0, 0].argmax() == 0
    assert not decode(save(tmp_path / f"y.{suffix}", first)).frames
    with pytest.raises(InputError, match=r"several frames or pages"):
        read_picture(path)


def test_a_photo_with_a_preview_is_one_picture(tmp_path: Path) -> None:
    photo, preview = Image.new("RGB", (8, 8), (250, 0, 0)), Image.new("RGB", (4, 4))
    path = save(tmp_path / "x.jpg", photo, format="MPO", save_all=True, append_images=[preview], exif=exif(6))
    with Image.open(path) as opened:
        assert opened.format == "MPO"
    assert not decode(path).frames


# Files that are no pictures, or too large


def test_other_formats_are_not_even_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPS file would start Ghostscript, whatever its name."""
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "EPS")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    for name, data in {
        "a.png": content.getvalue(),
        "b.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "c.gif": b"\x0a\5\1\1",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DamagedError, match=f"{name}: not a readable image .none of AVIF, BMP"):
            decode(tmp_path / name)


def test_pictures_that_would_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bombs = {
        "large.pgm": b"P5 30000 30000 255\n",
        "wide.pgm": b"P5 134217729 1 255\n",
        "most.pgm": b"P5 99999 99999 255\n",
    }
    for name, content in bombs.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}: has .*pixels; allowed are 134,217,728"):
            decode(tmp_path / name)
    monkeypatch.setattr(pictures, "MOST_BYTES", 10)
    with pytest.raises(InputError, match=r"large\.pgm: has 19 bytes; allowed are 10"):
        decode(tmp_path / "large.pgm")


def test_a_file_that_may_not_be_opened_is_not_damaged(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.png", tmp_path):
        with pytest.raises(InputError, match=f"{path}: cannot be read") as found:
            decode(path)
        assert not isinstance(found.value, DamagedError)


def test_names_that_are_no_utf_8_can_be_read_and_printed(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \xff.png")
    path = save(tmp_path / name, Image.fromarray(PIXELS))
    assert np.array_equal(pixels(path), PIXELS)
    path.write_bytes(b"no picture")
    with pytest.raises(DamagedError) as found:
        decode(path)
    assert r"caf\udce9 \udcff.png: not a readable image" in str(found.value).encode().decode()


def test_all_unreadable_pictures_are_named_at_once(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{place:02}.png", Image.fromarray(PIXELS)) for place in range(30)]
    for path in paths[3:16]:
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError) as found:
        read_pictures(paths, 3, "data")
    first, line = str(found.value).split("\n")
    assert first == "13 of 30 pictures cannot be used"
    assert line.startswith("not a readable image (")
    assert line.endswith(": " + ", ".join(map(str, paths[3:13])) + ", and 3 more")


def test_endings_are_those_of_the_formats() -> None:
    assert {".jfif", ".jpe", ".tiff", ".pbm", ".apng", ".mpo", ".webp"} <= suffixes()
    assert not {".eps", ".ps", ".pdf", ".psd", ".wmf", ".ico", ".mpg"} & suffixes()


# Damage of every kind


def originals() -> list[bytes]:
    """Small files of all formats, some with EXIF data."""
    image, found = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)), []
    kinds: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("PNG", image, {"exif": exif(6)}),
        ("PNG", image.convert("P"), {"transparency": 1}),
        ("PNG", clear("LA"), {}),
        ("JPEG", image, {"exif": exif(3)}),
        ("JPEG", image.convert("CMYK"), {"progressive": True}),
        ("GIF", image.convert("P"), {"save_all": True, "append_images": [image.convert("L")]}),
        ("TIFF", image, {"exif": exif(8)}),
        ("TIFF", image, {"compression": "tiff_lzw"}),
        ("TIFF", image.convert("1"), {"compression": "group4"}),
        ("WEBP", image, {"exif": exif(5)}),
        ("BMP", image.convert("P"), {}),
        ("PPM", image, {}),
    ]
    for kind, each, options in kinds:
        content = io.BytesIO()
        each.save(content, kind, **options)
        found.append(content.getvalue())
    return found


def damaged(content: bytes, draw: random.Random) -> bytes:
    """A copy that ends early, or in which bits are flipped, or bytes are set, cut out or put in."""
    copy, place = bytearray(content), draw.randrange(len(content))
    match draw.randrange(5):
        case 0:
            del copy[place:]
        case 1:
            copy[place] ^= 1 << draw.randrange(8)
        case 2:
            copy[place : place + 4] = draw.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\0\0\1\0"])
        case 3:
            del copy[place : place + draw.randrange(1, 30)]
        case _:
            copy[place:place] = draw.randbytes(draw.randrange(1, 30))
    return bytes(copy)


def test_a_damaged_file_is_read_or_named_without_a_warning(tmp_path: Path) -> None:
    draw, contents, path = random.Random(5), originals(), tmp_path / "x.png"
    outcomes = set()
    with warnings.catch_warnings(action="error"):
        for _ in range(400):
            path.write_bytes(damaged(draw.choice(contents), draw))
            outcomes.add(outcome(path).partition(":")[0])
    assert outcomes == {"L", "RGB", "FILE"}
