"""Files of weights: their location, download and verification."""

from __future__ import annotations

import shutil
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

import torch

from trainers.data.files import digest, locked, replaced
from trainers.errors import InputError

NAME = "inception-2015-12-05.pt"
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
#: The same address as clean-fid's.
URL = f"https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/{NAME}"
_TIMEOUT = 30.0


def resolve(extractor: str, weights: Path | None, sha256: str | None, cache: Path) -> tuple[Path, str]:
    """The file of the weights and its sha256: `weights` if given, else the official Inception.

    The latter is downloaded into `cache` at the first use. Raises InputError if a file is missing, has another checksum
    than promised, or cannot be downloaded; a failed download leaves no files.
    """
    if weights is not None:
        return weights, _verified(extractor, weights, sha256)
    path = cache / NAME
    if not path.exists():
        with _traceless(path), locked(path):
            if not path.exists():
                _fetch(extractor, path)
    return path, _verified(extractor, path, SHA256)


def download(target: Path) -> None:
    """Downloads the official file to `target`, without verification. Raises OSError or HTTPException."""
    with urllib.request.urlopen(URL, timeout=_TIMEOUT) as response, open(target, "wb") as file:
        shutil.copyfileobj(response, file)


def load_script(extractor: str, path: Path, device: torch.device | str) -> torch.jit.ScriptModule:
    """The TorchScript module of a file, in evaluation mode. Runs code of that file. Raises InputError for others."""
    try:
        with quiet_script():
            module: torch.jit.ScriptModule = torch.jit.load(str(path), map_location=device)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"extractor {extractor}: {path} is no whole TorchScript file ({first_line(error)})") from error
    return module.eval()


@contextmanager
def quiet_script() -> Iterator[None]:
    """Hides the warning that TorchScript is deprecated: the official weights exist only in this format."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        yield


def first_line(error: Exception) -> str:
    """The first line of an error, without torch's internal traceback."""
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextmanager
def _traceless(path: Path) -> Iterator[None]:
    """Removes the lock of `path`, and the folders created for it, if `path` does not exist after the block.

    A process that waits for the removed lock may then download at the same time as a later one. This is harmless, since
    both write the same file.
    """
    made = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    try:
        yield
    finally:
        if not path.exists():
            path.with_name(f".{path.name}.lock").unlink(missing_ok=True)
            with suppress(OSError):  # another process may use the folder by now
                for folder in made:
                    folder.rmdir()


def _fetch(extractor: str, path: Path) -> None:
    """Downloads to a temporary name, so that an incomplete download never gets the name of the file."""
    try:
        with replaced(path) as temporary:
            download(temporary)
            if (found := digest(temporary)) != SHA256:
                page = "is an HTML page with" if _is_html(temporary) else "has"
                raise OSError(f"what arrived {page} the sha256 {found}, not {SHA256}")
    except (OSError, HTTPException) as error:
        raise InputError(
            f"extractor {extractor}: {path} is missing and its download failed ({error}); fetch {URL} elsewhere and "
            "put it there, name another file by `weights`, or use `lenet` or `cnn`"
        ) from error


def _verified(extractor: str, path: Path, expected: str | None) -> str:
    if not path.is_file():
        raise InputError(
            f"extractor {extractor}: weights {path} does not exist; allowed is a TorchScript file such as {URL}"
        )
    if _is_html(path):
        raise InputError(
            f"extractor {extractor}: {path} is an HTML page, not weights: a server answered with a page; fetch it again"
        )
    found = digest(path)
    if expected is not None and found != expected.lower():
        raise InputError(f"extractor {extractor}: {path} has the sha256 {found}, not {expected}; replace the file")
    return found


def _is_html(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(512).lstrip().lower().startswith((b"<!doctype html", b"<html"))
