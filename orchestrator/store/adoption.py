"""Whether all checkpoints in a store are those of a study's trials.

A store that does not say which study it belongs to is judged by this.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

from orchestrator.store.fencing import trial_key
from orchestrator.store.objects import MissingError, Objects
from trainers.checkpoint import LARGEST_HEADER, LARGEST_MANIFEST, MANIFEST, STATE, CheckpointError, parse_manifest
from trainers.config import Config, from_stored
from trainers.errors import InputError
from trainers.rungs import Rung, history_of

_READERS = 8
"""How many trials are compared at once; each mostly waits for the store."""
_START = 2**16
"""Bytes that are read of a state at first; they usually have its header."""

_OF_TRIAL = re.compile(r"trials/\d+/")
"""The keys of what a trial has written; garbage may have others."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnownTrial:
    """What a study knows of a trial and its checkpoints have to share."""

    system: str | None
    config: Config | None
    """None, as the system then, if a repair of the study's journal could not keep the parameters."""
    rungs: Sequence[Rung]
    planned: Sequence[int] = ()
    """Images of the sweep's rungs: one of these that the trial lacks was lost with a damaged line of the journal."""


@dataclass(frozen=True)
class Stored:
    """The same of a checkpoint."""

    system: str
    config: dict[str, Any] | None
    """As it was stored, perhaps by an earlier release; None if it cannot be read."""
    history: Sequence[Rung]


Trials = Callable[[int], KnownTrial | None]
"""What a study knows of a trial by number; None if it has no such trial."""


def difference(trial: KnownTrial, stored: Stored) -> str | None:
    """What a checkpoint has that `trial` has not, in words; None if it can be one of that trial.

    Rungs after the last one that the study knows are allowed, since a trial saves its checkpoint before it reports.
    """
    if trial.system is None or trial.config is None:
        return None
    if stored.system != trial.system:
        return f"its system is {stored.system}, and in this sweep {trial.system}"
    if stored.config is not None and (changed := _changed(trial.config, stored.config)) is not None:
        return changed
    known = {rung.images: rung for rung in trial.rungs}
    for rung in stored.history:
        own = known.get(rung.images)
        if own is None and rung.images <= max(known, default=0) and rung.images not in trial.planned:
            return f"it was scored after {rung.images:,} images, and in this sweep it was not"
        # As texts, since a NaN is not equal to itself.
        if own is not None and str(own.scores) != str(rung.scores):
            return f"its scores after {rung.images:,} images are not those of this sweep"
    return None


def first_difference(objects: Objects, trials: Trials) -> str | None:
    """The first trial in the store that is not as `trials` knows it, with the reason; None if there is none.

    Reads the manifests and the headers of the states. A damaged checkpoint is passed over, since no trial goes on from
    it. Raises InputError if a newer program has written one.
    """
    groups = groupby((each.key for each in objects.find("trials/") if _OF_TRIAL.match(each.key)), _number)
    found = [(number, list(group)) for number, group in groups]
    with ThreadPoolExecutor(_READERS) as pool:
        answers = pool.map(partial(_difference_in, objects, trials), found)
        answer = next((answer for answer in answers if answer is not None), None)
        pool.shutdown(cancel_futures=True)
    return answer


def _number(key: str) -> int:
    return int(key.split("/")[1])


def _difference_in(objects: Objects, trials: Trials, found: tuple[int, list[str]]) -> str | None:
    number, keys = found
    known = trials(number)
    if known is None:
        return f"this sweep has no trial {objects.uri(trial_key(number))}"
    for folder in (key.removesuffix(MANIFEST) for key in keys if key.endswith(f"/{MANIFEST}")):
        try:
            answer = difference(known, _read(objects, folder))
        except (CheckpointError, MissingError) as error:
            _log.warning("damaged checkpoint passed over: %s: %s", objects.uri(folder), error)
            continue
        if answer is not None:
            return f"{objects.uri(folder)}: {answer}"
    return None


def _read(objects: Objects, folder: str) -> Stored:
    """What the checkpoint with the prefix `folder` holds. Raises CheckpointError if its manifest is damaged."""
    key = f"{folder}{MANIFEST}"
    manifest = parse_manifest(objects.get_start(key, LARGEST_MANIFEST), objects.uri(key))
    try:
        return Stored(manifest["system"], _config(objects, f"{folder}{STATE}"), history_of(manifest))
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"not a manifest ({error!r})") from error


def _config(objects: Objects, key: str) -> dict[str, Any] | None:
    """The configuration in the header of a state, a safetensors file: eight bytes with its length, then JSON."""
    try:
        start = objects.get_start(key, _START)
        end = 8 + int.from_bytes(start[:8], "little")
        if len(start) < end <= LARGEST_HEADER:
            start = objects.get_start(key, end)
        return dict(json.loads(json.loads(start[8:end])["__metadata__"]["header"])["config"])
    except (MissingError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _changed(own: Config, stored: dict[str, Any]) -> str | None:
    """The first field that has another value in a stored configuration."""
    try:
        found = from_stored(type(own), stored, "its configuration")
    except InputError as error:
        return str(error)
    for name, value in own:
        if getattr(found, name) != value:
            return f"its {name} is {getattr(found, name)!r}, and in this sweep {value!r}"
    return None
