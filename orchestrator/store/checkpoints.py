"""Checkpoints of one trial as objects: published in one atomic step, fetched whole or not at all.

A checkpoint is stored below `TRIAL/checkpoints/NAME/`. NAME is that of the checkpoint's folder with a digest of its
state, so that two states of one rung never mix. The manifest is written after the state: without it there is no
checkpoint. `TRIAL/latest` names the newest checkpoint, so that its loss is noticed. If objects are files, the trial
writes checkpoints itself, without a digest in the name.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from orchestrator.store.objects import MissingError, Objects
from trainers import checkpoint
from trainers.checkpoint import MANIFEST, STATE, CheckpointError, images_of, retained

LATEST = "latest"
_NAME = re.compile(r"(\d{10})(-[0-9a-f]{8})?")
Damaged = Callable[[str], None]
"""Gets a sentence for each damaged checkpoint that is passed over."""

_log = logging.getLogger(__name__)


def key_of(trial: str, name: str, file: str = "") -> str:
    """The key of a file of a checkpoint; without `file`, the prefix of its files."""
    return f"{trial}/checkpoints/{name}/{file}"


def publish(objects: Objects, trial: str, folder: Path, sent: set[str]) -> None:
    """Publishes the checkpoint in `folder`, and adds its name to `sent`. A state whose name is there is not sent again.

    Raises CheckpointError if the checkpoint is damaged; then nothing is published.
    """
    manifest = checkpoint.read_manifest(folder)
    name = f"{folder.name}-{manifest['files'][STATE]['sha256'][:8]}"
    if name not in sent:
        objects.put_file(key_of(trial, name, STATE), folder / STATE)
        sent.add(name)
    objects.put(key_of(trial, name, MANIFEST), (folder / MANIFEST).read_bytes())
    set_latest(objects, trial, name)


def set_latest(objects: Objects, trial: str, name: str) -> None:
    """Makes `name` the latest checkpoint."""
    objects.put(f"{trial}/{LATEST}", name.encode())


def latest(objects: Objects, trial: str) -> str | None:
    """The name of the checkpoint that was published last; None if there is none, or if the object is damaged."""
    try:
        name = objects.get(f"{trial}/{LATEST}")[0].decode(errors="replace")
    except MissingError:
        return None
    if not _NAME.fullmatch(name):
        _log.warning("damaged: %s", objects.uri(f"{trial}/{LATEST}"))
        return None
    return name


def names(objects: Objects, trial: str) -> list[str]:
    """The names of all checkpoints that have a manifest or are the latest, newest first."""
    if (parent := objects.local(f"{trial}/checkpoints")) is not None:
        checkpoint.recover(parent)
    last, found = latest(objects, trial), {n for n, files in contents(objects, trial).items() if MANIFEST in files}
    # If there are two states of one rung, the one that was published last comes first.
    return sorted(found | ({last} if last else set()), key=lambda n: (images_of(n), n == last, n), reverse=True)


def contents(objects: Objects, trial: str) -> dict[str, dict[str, int]]:
    """The files of all checkpoints, unfinished ones included: name -> file -> size in bytes."""
    found: dict[str, dict[str, int]] = {}
    for each in objects.find(f"{trial}/checkpoints/"):
        name, _, file = each.key.removeprefix(f"{trial}/checkpoints/").partition("/")
        if file and _NAME.fullmatch(name):
            found.setdefault(name, {})[file] = each.size
    return found


def fetch(
    objects: Objects, trial: str, target: Path, images: int | None = None, damaged: Damaged = lambda text: None
) -> Path | None:
    """The folder of the newest whole checkpoint, or of the one after `images` images; None if there is none.

    Objects that are not files are downloaded below `target`. Damaged checkpoints are passed over with a warning, and
    `damaged` gets its text. If `images` is given, raises CheckpointError instead.
    """
    for name in names(objects, trial):
        if images is not None and images_of(name) != images:
            continue
        try:
            return _fetch_one(objects, trial, name, target)
        except (CheckpointError, MissingError) as error:
            if images is not None:
                raise CheckpointError(f"{objects.uri(key_of(trial, name))}: {error}") from error
            text = f"damaged checkpoint passed over: {objects.uri(key_of(trial, name))}: {error}"
            _log.warning(text)
            damaged(text)
    return None


def _fetch_one(objects: Objects, trial: str, name: str, target: Path) -> Path:
    local = objects.local(key_of(trial, name))
    if local is not None:
        checkpoint.read_manifest(local)
        return local
    folder = target / name
    try:
        return _download(objects, trial, name, folder)
    except CheckpointError:
        # Perhaps the folder had a part of an older download: try once more from the beginning.
        shutil.rmtree(folder)
        return _download(objects, trial, name, folder)


def _download(objects: Objects, trial: str, name: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    sizes = contents(objects, trial).get(name, {})  # nothing is downloaded whose size alone is wrong
    if (size := sizes.get(MANIFEST, 0)) > checkpoint.LARGEST_MANIFEST:
        raise CheckpointError(f"{MANIFEST} has {size:,} bytes; allowed are {checkpoint.LARGEST_MANIFEST:,}")
    (folder / MANIFEST).write_bytes(objects.get(key_of(trial, name, MANIFEST))[0])
    listed = checkpoint.listed_size(folder)
    if (size := sizes.get(STATE, listed)) != listed:
        raise CheckpointError(f"{STATE} has {size:,} bytes, but its manifest lists {listed:,}")
    if not (folder / STATE).exists():  # else an earlier call, which was interrupted later, got it
        objects.get_file(key_of(trial, name, STATE), folder / STATE)
    checkpoint.read_manifest(folder)
    return folder


def superseded(found: Iterable[str], last_name: str | None, best: Collection[int], last: int) -> list[str]:
    """The names in `found` that need not be kept, in order.

    The `last` newest rungs and those at the images `best` are kept. If the newest published checkpoint, `last_name`,
    is one of several states of its rung, the others are superseded.
    """
    found = sorted(found)
    kept = retained(map(images_of, found), best, last)
    rung = images_of(last_name) if last_name in found and last_name else None
    return [name for name in found if images_of(name) not in kept or (images_of(name) == rung and name != last_name)]


def retain(objects: Objects, trial: str, best: Collection[int], last: int) -> None:
    """Deletes the checkpoints of a trial that are superseded."""
    found = contents(objects, trial)
    whole = [name for name, files in found.items() if MANIFEST in files]
    drop(objects, trial, {name: found[name] for name in superseded(whole, latest(objects, trial), best, last)})


def drop(objects: Objects, trial: str, found: dict[str, dict[str, int]]) -> None:
    """Deletes checkpoints, manifests first, so that one that is half deleted does not count as a checkpoint."""
    objects.delete(key_of(trial, name, MANIFEST) for name in found)
    objects.delete(key_of(trial, name, file) for name, files in found.items() for file in files if file != MANIFEST)
