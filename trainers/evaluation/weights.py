"""The official Inception weights: where they are, how they get there, and the proof that they are the right ones."""

from __future__ import annotations

import shutil
import urllib.request
from http.client import HTTPException
from pathlib import Path

from trainers.data.files import digest, locked, replaced
from trainers.errors import InputError

NAME = "inception-2015-12-05.pt"
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
#: The same address as clean-fid's.
URL = f"https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/{NAME}"
_TIMEOUT = 30.0


def resolve(weights: Path | None, sha256: str | None, cache: Path) -> tuple[Path, str]:
    """The file of the weights and its sha256: `weights` where given, else the official file, fetched on first use.

    Raises InputError where a file is missing, is not the one promised, or cannot be fetched.
    """
    if weights is not None:
        return weights, _verified(weights, sha256)
    path = cache / NAME
    if not path.exists():
        with locked(path):
            if not path.exists():
                _fetch(path)
    return path, _verified(path, SHA256)


def download(target: Path) -> None:
    """Writes the official file to `target`, unverified."""
    with urllib.request.urlopen(URL, timeout=_TIMEOUT) as response, open(target, "wb") as file:
        shutil.copyfileobj(response, file)


def _fetch(path: Path) -> None:
    """Downloads under a temporary name, so that a broken download never takes the name of the file."""
    try:
        with replaced(path) as temporary:
            download(temporary)
            if (found := digest(temporary)) != SHA256:
                raise OSError(f"what arrived has the sha256 {found}, not {SHA256}")
    except (OSError, HTTPException) as error:
        raise InputError(
            f"extractor inception: {path} is missing and its download failed ({error}); fetch {URL} elsewhere and put "
            "it there, name another place by `weights`, or use `lenet`"
        ) from error


def _verified(path: Path, expected: str | None) -> str:
    if not path.is_file():
        raise InputError(
            f"extractor inception: weights {path} does not exist; allowed is a TorchScript file such as {URL}"
        )
    found = digest(path)
    if expected is not None and found != expected.lower():
        raise InputError(f"extractor inception: {path} has the sha256 {found}, not {expected}; replace the file")
    return found
