"""Objects in memory, objects that fail where a test says so, and small checkpoints to put there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orchestrator.store import ConflictError, MissingError, Objects
from orchestrator.store.objects import Listed
from trainers import checkpoint
from trainers.data.samples import save_png


class MemoryObjects:
    """The store's laws without a disk; the conformance suite holds them for it as for the real ones."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        found = self.data.get(key)
        if (if_absent and found is not None) or (if_match is not None and (found is None or _tag(found) != if_match)):
            raise ConflictError(key)
        self.data[key] = data
        return _tag(data)

    def put_file(self, key: str, path: Path) -> None:
        self.data[key] = path.read_bytes()

    def get(self, key: str) -> tuple[bytes, str]:
        if key not in self.data:
            raise MissingError(key)
        return self.data[key], _tag(self.data[key])

    def get_start(self, key: str, size: int) -> bytes:
        return self.get(key)[0][:size]

    def get_file(self, key: str, path: Path) -> None:
        path.write_bytes(self.get(key)[0])

    def find(self, prefix: str) -> list[Listed]:
        return [
            Listed(key, len(data), datetime.now(UTC))
            for key, data in sorted(self.data.items())
            if key.startswith(prefix)
        ]

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.data.pop(key, None)

    def leftovers(self, prefix: str) -> list[Listed]:
        return []

    def discard(self, leftover: Listed) -> None:
        raise AssertionError("there are none")

    def local(self, key: str) -> Path | None:
        return None

    def uri(self, key: str) -> str:
        return f"memory:{key}"


class Watched:
    """Objects that call `before(operation, key)` first, which may raise; single deletes count one by one."""

    def __init__(self, objects: Objects, before: Callable[[str, str], None]) -> None:
        self.objects, self.before = objects, before

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.before("delete", key)
            self.objects.delete([key])

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self.objects, name)
        if name in ("local", "uri"):
            return inner

        def call(key: str, *arguments: Any, **options: Any) -> Any:
            self.before(name, key)
            return inner(key, *arguments, **options)

        return call


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def left_by(images: int, value: float, history: tuple[float, ...] = ()) -> Callable[[Path], Path]:
    """What a trial leaves at `images`: a picture, and a checkpoint in which state and manifest hold `value`."""

    def write(folder: Path) -> Path:
        name = checkpoint.folder_name(images)
        save_png(np.full((2, 2, 3), int(value) % 256, np.uint8), folder / "samples" / f"{name}.png")
        tensors = {"value": torch.tensor(float(value))}
        checkpoint.write(folder / "checkpoints" / name, tensors, {}, {"value": value, "history": list(history)})
        return folder / "checkpoints" / name

    return write


def value_in(folder: Path) -> float:
    """The one value that state and manifest of a checkpoint agree on."""
    tensors, _, manifest = checkpoint.read(folder)
    assert float(tensors["value"]) == manifest["value"], "a mix of two checkpoints"
    return float(manifest["value"])
