"""Pictures of any size decoded to one size, and kept in a file by their content, since decoding takes long."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainers.data.files import locked, replaced
from trainers.data.pictures import Picture, content, decode, each, listed
from trainers.data.spec import Colour
from trainers.errors import printable

#: Part of the file's name and of what it is named by. Raise it with every change of the content.
FORMAT = 1
#: A picture is called long if one side is so many times the other, and tiny if it is enlarged so many times.
EXTREME = 4

SKIP = "`skip_damaged: true` passes over what cannot be decoded"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How pictures are read."""

    size: int
    """Height and width of the images in pixels."""
    background: Colour | None = None
    """What lies below transparent parts; None refuses them."""
    skip_damaged: bool = False
    """Whether files that no decoder can read are passed over."""


@dataclass(frozen=True)
class Decoded:
    """The K pictures that could be read among those asked for."""

    images: Tensor
    """uint8 [K, 3, size, size]."""
    kept: Tensor
    """Their places among the pictures asked for, int64 [K], ascending."""
    notices: tuple[str, ...]
    """Sentences on pictures that were passed over, or of which little is left; they do not name the folder."""


def decoded(root: Path, paths: Sequence[PurePath], settings: Settings, cache: Path | None = None) -> Decoded:
    """The pictures at `paths` below `root`: the centre square of each, scaled by Pillow's Lanczos filter, in colour.

    With `cache` they are kept in that folder, and processes that start together decode them once. Raises InputError
    that names all pictures that cannot be used.
    """
    if cache is None:
        return _decode(root, paths, settings)
    path = cache / f"decoded-{FORMAT}-{_key(root, paths, settings)}.safetensors"
    found = _read(path)
    if found is None:
        with locked(cache / "decoded"):
            found = _read(path)
            if found is None:
                found = _decode(root, paths, settings)
                _write(path, found)
                found = _read(path) or found  # mapped: the memory is shared, and free when it is needed
    return found


def _decode(root: Path, paths: Sequence[PurePath], settings: Settings) -> Decoded:
    size, skipped, kept = settings.size, list[Path](), list[int]()
    images = np.empty((len(paths), 3, size, size), np.uint8)
    names: dict[str, list[str]] = {}
    places = {root / path: place for place, path in enumerate(paths)}
    passing = skipped if settings.skip_damaged else None
    found = each(places, lambda path: decode(path, settings.background), passing, SKIP)
    for path, picture in found:
        square = ImageOps.fit(picture.image.convert("RGB"), (size, size), method=Image.Resampling.LANCZOS)
        images[len(kept)] = np.asarray(square).transpose(2, 0, 1)
        kept.append(places[path])
        width, height = picture.image.size
        for sentence in _remarks(picture, size):
            names.setdefault(sentence, []).append(f"{paths[places[path]]} ({width}x{height})")
    if skipped:
        names["damaged pictures are passed over"] = [str(path.relative_to(root)) for path in skipped]
    notices = tuple(printable(f"{len(of):,} {sentence}: {listed(of)}") for sentence, of in names.items())
    return Decoded(torch.from_numpy(images[: len(kept)]), torch.tensor(kept, dtype=torch.int64), notices)


def _remarks(picture: Picture, size: int) -> Iterator[str]:
    """What people should know of a picture, as the ends of sentences that count such pictures."""
    short, long = sorted(picture.image.size)
    if picture.frames:
        yield "pictures have several frames or pages, of which the first is read"
    if long > EXTREME * short:
        yield f"pictures are over {EXTREME} times as long as wide, and only their centre square is read"
    if short * EXTREME < size:
        yield f"pictures are enlarged over {EXTREME} times"


def _key(root: Path, paths: Sequence[PurePath], settings: Settings) -> str:
    """A name for the pictures and what reads them. Raises InputError for files that cannot be opened."""
    key = hashlib.sha256(repr((FORMAT, PIL.__version__, settings)).encode())
    for path, checksum in each([root / path for path in paths], lambda path: hashlib.sha256(content(path)).digest()):
        name = os.fsencode(path.relative_to(root))
        key.update(len(name).to_bytes(4, "big") + name + checksum)
    return key.hexdigest()[:32]


def _write(path: Path, found: Decoded) -> None:
    summary = {"notices": json.dumps(found.notices), "sha256": _checksum(found.images, found.kept)}
    with replaced(path) as temporary:
        save_file({"images": found.images, "kept": found.kept}, temporary, metadata=summary)


def _read(path: Path) -> Decoded | None:
    """The pictures of a file, mapped into memory; None if there is no intact file."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            summary, images, kept = file.metadata(), file.get_tensor("images"), file.get_tensor("kept")
        if summary["sha256"] != _checksum(images, kept):
            raise ValueError("its sha256 is not the recorded one")
        return Decoded(images, kept, tuple(json.loads(summary["notices"])))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        _log.warning("%s: damaged (%s); the pictures are decoded again", path, error)
        return None


def _checksum(images: Tensor, kept: Tensor) -> str:
    checksum = hashlib.sha256(kept.numpy().tobytes())
    checksum.update(images.numpy().data)
    return checksum.hexdigest()
