"""Likeness of the pictures in one folder to their targets in another folder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from trainers.data.folder import pictures
from trainers.data.pictures import each, read_picture, size
from trainers.data.spec import Colour
from trainers.errors import InputError
from trainers.evaluation.similarity import WINDOW, psnr, ssim


@dataclass(frozen=True)
class Likeness:
    """Means of PSNR and SSIM over `n` pairs, with their standard errors, which are None if there is no estimate."""

    n: int
    equal: int
    """Number of pairs of equal pictures, any of which makes the mean PSNR infinite."""
    psnr: float
    """In dB; infinite if any pair is equal."""
    psnr_stderr: float | None
    ssim: float
    """In [-1, 1]."""
    ssim_stderr: float | None


def likeness(images: Path, targets: Path, background: Colour | None = None) -> Likeness:
    """The likeness of each picture below `images` to that with the same relative path below `targets`.

    Pairs may differ in size from each other; transparent parts lie on `background`. Raises InputError for a picture
    without a partner on either side, for pairs whose pictures differ in size or channels, and for pictures that cannot
    be read or are smaller than SSIM's window; one message names them all.
    """
    partners = _partners(images, targets)
    pairs = [pair for _, pair in each(partners, lambda path: _pair(images / path, targets / path, background))]
    (psnrs, ssims), count = zip(*pairs, strict=True), len(pairs)
    equal = sum(math.isinf(value) for value in psnrs)
    return Likeness(count, equal, fmean(psnrs), _error(psnrs), fmean(ssims), _error(ssims))


def _error(values: tuple[float, ...]) -> float | None:
    """Standard error of the mean; None for a single value, or if one is infinite."""
    if len(values) < 2 or math.inf in values:
        return None
    return stdev(values) / math.sqrt(len(values))


def _partners(images: Path, targets: Path) -> list[Path]:
    """The relative paths of the pictures, which must be the same in both folders."""
    own, theirs = _listed(images), _listed(targets)
    _no_loner(images, own, targets, theirs)
    _no_loner(targets, theirs, images, own)
    return own


def _listed(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name a folder of pictures")
    return [path.relative_to(folder) for path in pictures(folder)[0]]


def _no_loner(folder: Path, own: list[Path], other: Path, theirs: list[Path]) -> None:
    known = set(theirs)
    if alone := [path for path in own if path not in known]:
        raise InputError(
            f"{folder / alone[0]}: {other / alone[0]} does not exist ({len(alone)} of {len(own)} pictures have no "
            "partner); each needs one of the same relative path"
        )


def _pair(path: Path, partner: Path, background: Colour | None) -> tuple[float, float]:
    image, target = read_picture(path, background=background), read_picture(partner, background=background)
    if len(image) != len(target):
        kinds = {1: "gray", 3: "colour"}
        raise InputError(f"{partner}: {kinds[len(target)]}; {path} is {kinds[len(image)]}: convert one of them")
    if image.shape != target.shape:
        raise InputError(f"{path} and {partner}: sizes {size(image)} and {size(target)}; a pair has one size")
    if min(image.shape[1:]) < WINDOW:
        raise InputError(f"{path}: {size(image)} pixels; allowed are {WINDOW}x{WINDOW} or more, the window of SSIM")
    return psnr(image[None], target[None]).item(), ssim(image[None], target[None]).item()
