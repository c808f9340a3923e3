"""The trained extractor of a sweep in its store, by its sha256: training it again elsewhere gives others."""

from __future__ import annotations

import hashlib
from pathlib import Path

from orchestrator.store.folder import FolderObjects
from orchestrator.store.objects import MissingError, Objects

EXTRACTORS = "extractors/"


def fetch_weights(objects: Objects, sha256: str) -> bytes | None:
    """The weights with this sha256; None if they are missing or damaged. Raises UnavailableError."""
    try:
        content = objects.get(_key(sha256))[0]
    except MissingError:
        return None
    return content if hashlib.sha256(content).hexdigest() == sha256 else None


def weights_beside(checkpoint: Path, digits: str) -> bytes | None:
    """The weights whose sha256 begins with `digits` in the store that has the folder `checkpoint`; None if none are."""
    for folder in checkpoint.resolve().parents:
        store = FolderObjects(folder)
        for each in store.find(f"{EXTRACTORS}{digits}"):
            if (content := fetch_weights(store, Path(each.key).stem)) is not None:
                return content
    return None


def keep_weights(objects: Objects, sha256: str, file: Path) -> None:
    """Puts the weights in `file` into the store, unless it has them whole. Raises UnavailableError."""
    if fetch_weights(objects, sha256) is None:
        objects.put_file(_key(sha256), file)


def _key(sha256: str) -> str:
    return f"{EXTRACTORS}{sha256}.safetensors"
