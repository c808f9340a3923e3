"""Downloads of public data sets."""

from __future__ import annotations

from collections.abc import Callable
from http.client import HTTPException
from tarfile import TarError
from typing import Literal

from trainers.data.files import locked
from trainers.data.spec import DatasetSpec
from trainers.data.vision import import_torchvision
from trainers.errors import InputError


def fetch(dataset: Literal["MNIST", "CIFAR10"], spec: DatasetSpec, check: Callable[[], None]) -> None:
    """Downloads `dataset` by torchvision into the folder of `spec`, if `check` finds files missing.

    One process at a time does so. Raises InputError if the download fails.
    """
    try:
        if not _complete(check):
            with locked(spec.folder):
                if not _complete(check):
                    getattr(import_torchvision().datasets, dataset)(str(spec.folder), download=True)
    # torchvision raises RuntimeError for a file that is missing or damaged at every mirror.
    except (OSError, RuntimeError, HTTPException, TarError, EOFError) as error:
        raise InputError(
            f"data set {spec.name}: the download to {spec.folder} failed ({error}); fetch the files elsewhere, put "
            "them there and set `download: false`"
        ) from error


def _complete(check: Callable[[], None]) -> bool:
    try:
        check()
    except InputError:
        return False
    return True
