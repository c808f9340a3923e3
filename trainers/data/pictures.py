"""The one reader of picture files: upright, without transparency, gray or colour with 8 bits per channel."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from trainers.data.spec import Colour
from trainers.errors import InputError

#: Pillow's names of the formats that are read. EPS, for one, would start Ghostscript.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
#: A larger picture, or a larger file, could exhaust the memory.
MOST_PIXELS = 2**27
MOST_BYTES = 2**30
#: So many pictures are named in one message.
MOST_NAMED = 10

#: Pillow's decoder settings of channels with more than 8 bits, which it would silently cut to 8. BGR;16 is 5, 6 and 5.
_DEEP = re.compile(r"(?!BGR).*;(12|16|24|32)")
#: Pillow's decoders of PPM have the largest value of a channel among their settings.
_LARGEST = 255
_ORIENTATION = 0x0112
#: What turns a picture upright, by its orientation in EXIF.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Found = TypeVar("Found")


class DamagedError(InputError):
    """A file that no decoder can read."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture."""

    image: Image.Image
    """Upright; mode L or RGB."""
    frames: bool
    """Whether the file has further frames or pages. `image` is the first."""


@cache
def suffixes() -> frozenset[str]:
    """The endings of files that are read, in small letters."""
    # Files of several JPEGs, as phones write them, have an ending of their own and are read as JPEG.
    known = {*FORMATS, "MPO"}
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in known)


def decode(path: Path, background: Colour | None = None) -> Picture:
    """The picture in a file, turned as its EXIF data say; what is transparent lies on `background`.

    Palettes, one bit per pixel, CMYK and YCbCr become gray or colour by Pillow's formulas. Raises DamagedError for a
    file that cannot be decoded; InputError for one that cannot be opened, is too large, has more than 8 bits per
    channel, or has transparency if there is no `background`.
    """
    data = content(path)
    try:
        # Pillow warns of damaged metadata, whose pixels are whole, and of sizes, for which the limit here is lower.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(data), formats=_formats()) as picture:
                return _decoded(path, picture, background)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: has too many pixels; allowed are {MOST_PIXELS:,}: scale it down") from error
    # Damaged files make Pillow's decoders raise exceptions of nearly every kind.
    except Exception as error:
        raise DamagedError(f"{path}: not a readable image ({_reason(error)}); remove or replace it") from error


def content(path: Path) -> bytes:
    """The bytes of a file. Raises InputError if it cannot be read or is too large."""
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise InputError(f"{path}: has {size:,} bytes; allowed are {MOST_BYTES:,}: scale the picture down")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_picture(
    path: Path, channels: int | None = None, like: str = "what is wanted", background: Colour | None = None
) -> Tensor:
    """A picture as uint8 [C, H, W] with C = 1 (gray) or 3 (colour), or C = `channels` if given.

    Gray becomes colour if `channels` is 3, as in training. `like` names what has these channels, for the message.
    Raises InputError like `decode`, for colour if `channels` is 1, and for a file with several frames.
    """
    picture = decode(path, background)
    if picture.frames:
        raise InputError(f"{path}: has several frames or pages; give each a file of its own")
    if channels == 1 and picture.image.mode == "RGB":
        raise InputError(f"{path}: mode RGB, colour; {like} is gray: convert it")
    image = torch.from_numpy(np.array(picture.image.convert("RGB") if channels == 3 else picture.image))
    return image[None] if image.ndim == 2 else image.permute(2, 0, 1).contiguous()


def read_pictures(paths: list[Path], channels: int, like: str, background: Colour | None = None) -> Tensor:
    """Pictures of one size as uint8 [N, C, H, W]. Raises InputError like `read_picture`, and for different sizes.

    One message names all pictures that cannot be read.
    """
    images = [image for _, image in each(paths, lambda path: read_picture(path, channels, like, background))]
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            raise InputError(
                f"{path}: its size differs from that of {paths[0]}: {size(image)} and {size(images[0])}; scale them "
                "alike"
            )
    return torch.stack(images)


def each(
    paths: Iterable[Path], read: Callable[[Path], Found], skipped: list[Path] | None = None, hint: str = ""
) -> Iterator[tuple[Path, Found]]:
    """The pictures by `read`, one by one; damaged ones are put into `skipped`, if it is given.

    After the last picture it raises InputError if any could not be used; the message names up to MOST_NAMED of each
    kind, says how many there are, and gives `hint` if some are damaged. Nothing is yielded from the first of them on.
    """
    faults: list[tuple[Path, InputError]] = []
    count = 0
    for path in paths:
        count += 1
        try:
            found = read(path)
        except InputError as error:
            if skipped is not None and isinstance(error, DamagedError):
                skipped.append(path)
            else:
                faults.append((path, error))
        else:
            if not faults:
                yield path, found
    if faults:
        raise _all(faults, count, hint)


def listed(names: Sequence[str]) -> str:
    """Names as text, at most MOST_NAMED of them."""
    more = len(names) - MOST_NAMED
    return ", ".join([*names[:MOST_NAMED], *([f"and {more:,} more"] if more > 0 else [])])


def size(image: Tensor) -> str:
    """Width and height of an image [C, H, W] as text."""
    return f"{image.shape[2]}x{image.shape[1]}"


@cache
def _formats() -> tuple[str, ...]:
    """FORMATS without those that this Pillow does not know."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _decoded(path: Path, picture: ImageFile.ImageFile, background: Colour | None) -> Picture:
    """The decoded picture; raises what Pillow raises, and InputError."""
    width, height = picture.size
    if width * height > MOST_PIXELS:
        raise InputError(f"{path}: has {width}x{height} pixels; allowed are {MOST_PIXELS:,}: scale it down")
    deep = any(_is_deep(picture.format, tile.args) for tile in picture.tile)
    # The further pictures in a photo's file are previews and depths.
    frames = picture.format != "MPO" and bool(getattr(picture, "is_animated", False))
    picture.load()
    if deep or picture.mode.startswith(("I", "F")):
        mode = f"mode {picture.mode}{' with' if deep else ','} more than 8 bits per channel"
        raise InputError(f"{path}: {mode}; convert it to 8 bits, in the way that suits its values")
    orientation: Any = picture.getexif().get(_ORIENTATION)  # Pillow has turned a TIFF already, and removed it
    flat = _opaque(path, picture, background)
    turn = _TURNS.get(orientation)
    return Picture(flat if turn is None else flat.transpose(turn), frames)


def _is_deep(format: str | None, args: Any) -> bool:
    """Whether a tile with these settings of its decoder has more than 8 bits per channel."""
    settings = args if isinstance(args, tuple) else (args,)
    if format == "PPM" and any(isinstance(value, int) and value > _LARGEST for value in settings):
        return True
    return any(isinstance(value, str) and _DEEP.match(value) is not None for value in settings)


def _opaque(path: Path, picture: Image.Image, background: Colour | None) -> Image.Image:
    """A picture in mode L or RGB, whose transparent parts lie on `background`."""
    gray = picture.mode in ("1", "L", "LA", "La")
    mode = "L" if gray else "RGB"
    if not picture.has_transparency_data:
        return picture.convert(mode)
    clear = picture.convert("RGBA")
    if clear.getchannel("A").getextrema() == (255, 255):
        return clear.convert(mode)
    if background is None:
        raise InputError(
            f"{path}: is transparent in parts (mode {picture.mode}); name the colour to lay it on by `background`, for "
            'example white, [255, 255, 255] or "#ffffff"'
        )
    flat = Image.alpha_composite(Image.new("RGBA", clear.size, background), clear)
    return flat.convert("L" if gray and len(set(background)) == 1 else "RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its message has the address of a buffer
        return f"none of {', '.join(FORMATS)}"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _all(faults: list[tuple[Path, InputError]], count: int, hint: str) -> InputError:
    """One error for all `faults` among `count` pictures: what is wrong, with the names of the pictures."""
    advice = [hint] if hint and any(isinstance(fault, DamagedError) for _, fault in faults) else []
    if len(faults) == 1:
        return InputError("; ".join([str(faults[0][1]), *advice]))
    alike: dict[str, list[str]] = {}
    for path, fault in faults:
        alike.setdefault(str(fault.args[0]).removeprefix(f"{path}: "), []).append(str(path))
    lines = [f"{text}: {listed(names)}" for text, names in islice(alike.items(), MOST_NAMED)]
    if more := len(alike) - len(lines):
        lines.append(f"and {more:,} more such lines")
    return InputError("\n".join([f"{len(faults):,} of {count:,} pictures cannot be used", *lines, *advice]))
