"""Checkpoints as strangers may make them: a real one with one thing changed, and its checksums made anew."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainers import checkpoint
from trainers.checkpoint import MANIFEST, STATE

Change = Callable[[Path], None]

DEEP = "[" * 100_000


def put(file: str, kind: str) -> Change:
    """What is no plain file in place of `file`."""

    def change(folder: Path) -> None:
        path, kept = folder / file, folder.parent / f"real-{file}"
        path.rename(kept)
        if kind == "link":
            path.symlink_to(kept)
        elif kind == "link into nothing":
            path.symlink_to(folder / "nowhere")
        elif kind == "link to itself":
            path.symlink_to(path)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            here = os.getcwd()
            os.chdir(folder)  # a socket's path has 107 bytes at most
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(file)
            os.chdir(here)
        elif kind == "device":
            if os.geteuid():
                pytest.skip("only root makes devices")
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
        elif kind == "link to a device":
            path.symlink_to("/dev/zero")
        elif kind == "folder":
            path.mkdir()

    return change


def grown(file: str, size: int) -> Change:
    """`file` with `size` bytes, which take no room on the disk."""

    def change(folder: Path) -> None:
        os.truncate(folder / file, size)

    return change


def grown_and_listed(size: int) -> Change:
    """A state of `size` bytes, which the manifest lists with this size and any sha256."""

    def change(folder: Path) -> None:
        os.truncate(folder / STATE, size)
        _write_manifest(folder, lambda manifest: manifest["files"][STATE].update(size=size))

    return change


def manifest_text(text: str) -> Change:
    """Another text in place of the manifest."""
    return lambda folder: (folder / MANIFEST).write_text(text) and None


def manifest_with(**changes: Any) -> Change:
    """The manifest with other values, `...` for none, and its sha256 made anew."""

    def edit(manifest: dict[str, Any]) -> None:
        for key, value in changes.items():
            manifest[key] = value
            if value is ...:
                del manifest[key]

    return lambda folder: _write_manifest(folder, edit)


def rung_with(**changes: Any) -> Change:
    """Other values in the last rung of the manifest."""
    return lambda folder: _write_manifest(folder, lambda manifest: manifest["history"][-1].update(changes))


def header_with(**changes: Any) -> Change:
    """The header of the state with other values, `...` for none."""

    def change(folder: Path) -> None:
        header = checkpoint.read(folder)[1] | changes
        kept = {key: value for key, value in header.items() if value is not ...}
        _save(folder, load_file(folder / STATE), {"header": json.dumps(kept)})

    return change


def config_with(**changes: Any) -> Change:
    """Other values in the configuration of the header."""

    def change(folder: Path) -> None:
        config = checkpoint.read(folder)[1]["config"]
        header_with(config=config | changes)(folder)

    return change


def metadata(content: dict[str, str] | None) -> Change:
    """Other metadata in the state."""
    return lambda folder: _save(folder, load_file(folder / STATE), content)


def tensors_with(**changes: Any) -> Change:
    """The state with each tensor changed by a function of it; `__` stands for a point in the names."""

    def change(folder: Path) -> None:
        tensors, header, _ = checkpoint.read(folder)
        for name, function in changes.items():
            key = name.replace("__", ".")
            tensors[key] = function(tensors[key])
        _save(folder, tensors, {"header": json.dumps(header)})

    return change


def renamed_tensor(old: str, new: str | None) -> Change:
    """The state with a tensor under another name, or without it."""

    def change(folder: Path) -> None:
        tensors, header, _ = checkpoint.read(folder)
        moved = tensors.pop(old)
        _save(folder, tensors | ({} if new is None else {new: moved}), {"header": json.dumps(header)})

    return change


def raw_state(make: Callable[[dict[str, Any], bytes], bytes]) -> Change:
    """A state made from the header of the file and its data, past the library's checks."""

    def change(folder: Path) -> None:
        content = (folder / STATE).read_bytes()
        length = int.from_bytes(content[:8], "little")
        made = make(json.loads(content[8 : 8 + length]), content[8 + length :])
        (folder / STATE).write_bytes(made)
        reseal(folder)

    return change


def packed(header: str, data: bytes = b"") -> bytes:
    """A safetensors file of this header, of whatever truth."""
    return len(header.encode()).to_bytes(8, "little") + header.encode() + data


def first_tensor(**changes: Any) -> Change:
    """The table of the state with other values for its first tensor; the data stay."""

    def make(header: dict[str, Any], data: bytes) -> bytes:
        first = min(name for name in header if name.startswith("net."))
        header[first].update(changes)
        return packed(json.dumps(header), data)

    return raw_state(make)


def reseal(folder: Path) -> None:
    """Writes the checksums of the files as they are into the manifest."""
    content = (folder / STATE).read_bytes()
    found = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    _write_manifest(folder, lambda manifest: manifest.update(files={STATE: found}))


def _save(folder: Path, tensors: dict[str, torch.Tensor], content: dict[str, str] | None) -> None:
    save_file(tensors, folder / STATE, content)
    reseal(folder)


def _write_manifest(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    edit(manifest)
    manifest.pop("sha256", None)
    manifest["sha256"] = checkpoint._seal(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))
