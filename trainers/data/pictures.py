"""Picture files read pixel by pixel: nothing is scaled, cropped or converted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFile
from torch import Tensor

from trainers.errors import InputError

#: By number of channels: Pillow's mode with 8 bits per channel, and its description.
MODES = {1: ("L", "gray with 8 bits"), 3: ("RGB", "colour with 8 bits per channel")}
#: Marks in Pillow's decoder settings of colours with 16 bits per channel, which Pillow would silently cut to 8.
_DEEP = (";16", "65535")


@contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """The picture in a file. Raises InputError if Pillow cannot read it, at first or in the block."""
    try:
        with Image.open(path) as picture:
            yield picture
    # Pillow's decoders raise any of these for damaged files.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a readable image ({error}); remove or replace it") from error


def read_picture(path: Path, channels: int | None = None, like: str = "") -> Tensor:
    """A picture as uint8 [C, H, W] with C = 1 (gray) or 3 (colour), or C = `channels` if given.

    `like` names what has these channels, for the message. Raises InputError for a file that cannot be read, other
    channels, or more than 8 bits per channel.
    """
    with opened(path) as picture:
        mode = picture.mode
        deep = any(mark in str(tile[3]) for tile in picture.tile for mark in _DEEP)
        pixels = np.array(picture)
    allowed = [MODES[channels]] if channels else list(MODES.values())
    if deep or mode not in [name for name, _ in allowed]:
        found = f"mode {mode}{' with 16 bits per channel' if deep else ''}"
        wanted = " or ".join(f"{name}, {words}" for name, words in allowed)
        raise InputError(f"{path}: {found}; {like or 'a readable picture'} is {wanted}: convert it")
    image = torch.from_numpy(pixels)
    return image[None] if image.ndim == 2 else image.permute(2, 0, 1).contiguous()


def read_pictures(paths: list[Path], channels: int, like: str) -> Tensor:
    """Pictures of one size as uint8 [N, C, H, W]. Raises InputError like `read_picture`, and for different sizes."""
    images = [read_picture(path, channels, like) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            raise InputError(
                f"{path}: its size differs from that of {paths[0]}: {size(image)} and {size(images[0])}; scale them "
                "alike"
            )
    return torch.stack(images)


def size(image: Tensor) -> str:
    """Width and height of an image [C, H, W] as text."""
    return f"{image.shape[2]}x{image.shape[1]}"
