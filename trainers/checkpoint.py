"""Checkpoints: one folder with the tensors (safetensors) and a manifest that proves they are whole.

Nothing is unpickled: tensors travel as safetensors, everything else as JSON. A checkpoint may come from a stranger, so
only plain files of a limited size are read, and sizes are compared before contents.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import reprlib
import shutil
import stat
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainers import formats
from trainers.errors import named

STATE = "state.safetensors"
MANIFEST = "manifest.json"
_HEADER = "header"
#: What matches the folders of checkpoints: ten digits.
_FOLDERS = "[0-9]" * 10
_SEAL = "sha256"
#: Bytes; larger files are not read. A manifest has some kB for each rung, a header some kB.
LARGEST_MANIFEST, LARGEST_HEADER, LARGEST_STATE = 2**26, 2**24, 2**36
#: Bytes. Before the sha256 of a larger state, which takes seconds, its header must account for its size.
_LARGE = 2**30

_log = logging.getLogger(__name__)
_repr = reprlib.Repr()
_repr.maxstring = 80  # a sha256 has 64 digits


class CheckpointError(Exception):
    """A checkpoint that is damaged or incomplete; the message names the file."""


def write(folder: Path, tensors: dict[str, Tensor], header: dict[str, Any], manifest: dict[str, Any]) -> None:
    """Writes a checkpoint to `folder` in one atomic step; an older one of that name is replaced.

    `header` is read back with the tensors, `manifest` can be read alone; both are JSON-able. The manifest also has the
    number of its format, the size and sha256 of the state, and its own sha256. Raises OSError that names `folder`, with
    nothing left behind.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    files = (temporary / STATE, temporary / MANIFEST)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with named(folder, temporary, *files):
            temporary.mkdir(parents=True)
            whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            safetensors.torch.save_file(whole, files[0], metadata={_HEADER: json.dumps(header)})
            described = formats.MANIFEST.stamped(manifest) | {"files": {STATE: _describe(files[0])}}
            described[_SEAL] = _seal(described)
            files[1].write_text(json.dumps(described, indent=1) + "\n")
            for path in files:
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
            _replace(temporary, folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _replace(temporary: Path, folder: Path) -> None:
    # A folder cannot be renamed to the name of a full one: the old one is set aside, and put back if this fails.
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if not folder.exists():
        os.replace(temporary, folder)
        return
    os.replace(folder, aside)
    try:
        os.replace(temporary, folder)
    except OSError:
        os.replace(aside, folder)
        raise
    _remove(aside)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, in its newest format, after a check that manifest and state have their sha256.

    Raises CheckpointError if the checkpoint is damaged or incomplete, InputError if a newer program wrote it.
    """
    manifest, path = _unverified_manifest(folder), folder / STATE
    listed = _listed_size(manifest, folder)
    expected = manifest["files"][STATE]
    try:
        if (size := _size(path)) != listed:
            raise CheckpointError(f"{path}: expected {_repr.repr(expected)}, found a size of {size}")
        if size > _LARGE:
            _read_state(path, names_only=True)
        found = _describe(path)
    except OSError as error:
        raise CheckpointError(f"{folder}: incomplete checkpoint ({error})") from error
    if found != expected:
        raise CheckpointError(f"{path}: expected {_repr.repr(expected)}, found {found}")
    return manifest


def listed_size(folder: Path) -> int:
    """Bytes of the state by the manifest, without a look at the state. Raises as `read_manifest`."""
    return _listed_size(_unverified_manifest(folder), folder)


def _listed_size(manifest: dict[str, Any], folder: Path) -> int:
    try:
        size = manifest["files"][STATE]["size"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: incomplete checkpoint ({MANIFEST} lacks {error})") from error
    if type(size) is not int or not 0 <= size <= LARGEST_STATE:
        text = f"the size of {STATE} is {_repr.repr(size)}; allowed are 0 to {LARGEST_STATE:,}"
        raise CheckpointError(f"{folder / MANIFEST}: {text}")
    return size


def _unverified_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        if (size := _size(path)) > LARGEST_MANIFEST:
            raise CheckpointError(f"{path}: has {size:,} bytes; allowed are {LARGEST_MANIFEST:,}")
        return parse_manifest(path.read_bytes(), str(path))
    except OSError as error:
        raise CheckpointError(f"{folder}: incomplete checkpoint ({MANIFEST}: {error})") from error


def parse_manifest(data: bytes, source: str) -> dict[str, Any]:
    """The manifest with these bytes, in its newest format, after a check of its own sha256. The state is not read.

    Raises CheckpointError that names `source` if it is damaged, InputError if a newer program wrote it.
    """
    try:
        manifest = _mapping(data)
        seal = manifest.pop(_SEAL, None)  # manifests of the first releases have none
        if seal is not None and seal != _seal(manifest):
            raise CheckpointError(f"{source}: its sha256 is not {_repr.repr(seal)}")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{source}: not a manifest ({error})") from error
    # After the sha256: a damaged number must not be taken for a newer program's.
    return formats.MANIFEST.read(manifest, source)


def read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Tensors (on the CPU), header and manifest of a verified checkpoint. Raises as `read_manifest`."""
    manifest = read_manifest(folder)
    return *_read_state(folder / STATE), manifest


def _read_state(path: Path, names_only: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a state, or no tensors; in either case after a check of their sizes by the library."""
    try:
        with open(path, "rb") as start:
            if (size := int.from_bytes(start.read(8), "little")) > LARGEST_HEADER:
                raise ValueError(f"a header of {size:,} bytes; allowed are {LARGEST_HEADER:,}")
        with safe_open(path, framework="pt") as file:
            header = _mapping((file.metadata() or {})[_HEADER])
            return {} if names_only else {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a checkpoint ({error})") from error


def folder_name(images: int) -> str:
    """The name of the checkpoint after `images` images; names sort by age."""
    return f"{images:010d}"


def newest(parent: Path) -> Path | None:
    """The newest checkpoint below `parent` that is whole, None if none is; damaged ones are passed over with a warning.

    Raises InputError if a newer program wrote it: to pass it over would mean to train again what it holds.
    """
    recover(parent)
    for folder in sorted((p for p in parent.glob(_FOLDERS) if p.is_dir()), reverse=True):
        try:
            read_manifest(folder)
        except CheckpointError as error:
            _log.warning("damaged checkpoint passed over: %s", error)
        else:
            return folder
    return None


def recover(parent: Path) -> None:
    """Puts back each checkpoint that was set aside for a newer one by a process that was killed in between."""
    for aside in parent.glob(".[0-9]*.old"):
        folder = parent / aside.name.split(".")[1]
        if not folder.exists():
            os.replace(aside, folder)


def images_of(name: str) -> int:
    """After how many images the checkpoint `name` was made: the inverse of `folder_name`.

    In a store on S3 the name goes on with a digest of the state.
    """
    return int(name[:10])


def retained(found: Iterable[int], best: Collection[int], last: int) -> set[int]:
    """The images at which checkpoints stay, of those made after the images `found`: the `last` newest, and `best`."""
    newest_first = sorted(set(found), reverse=True)
    return {*newest_first[:last], *best}


def prune(parent: Path, best: Collection[int] = (), last: int = 2) -> None:
    """Deletes all checkpoints below `parent` except the `last` newest and those after `best` images.

    It also deletes what killed processes have left half written, since a run has only one writer at a time.
    """
    for leftover in parent.glob(".[0-9]*"):
        _remove(leftover)
    folders = [path for path in parent.glob(_FOLDERS) if path.is_dir() and not path.is_symlink()]
    kept = retained((images_of(folder.name) for folder in folders), best, last)
    for folder in folders:
        if images_of(folder.name) not in kept:
            shutil.rmtree(folder)


def _seal(manifest: dict[str, Any]) -> str:
    read_back = json.loads(json.dumps(manifest))  # JSON makes a text of every key
    return hashlib.sha256(json.dumps(read_back, sort_keys=True).encode()).hexdigest()


def _describe(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}


def _size(path: Path) -> int:
    """Bytes of a plain file. Raises OSError for anything else: to open a pipe would wait, a link leads anywhere."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"{path} is no plain file, but a link, folder, pipe, socket or device")
    return found.st_size


def _mapping(text: str | bytes) -> dict[str, Any]:
    """The mapping that `text` is as JSON. Raises ValueError or RecursionError."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"expected a mapping, got {_repr.repr(found)}")
    return found


def _remove(path: Path) -> None:
    """Deletes a folder with all below it, or whatever else has its name; what a link leads to stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
