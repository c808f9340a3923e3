"""The store: checkpoints and samples of every trial, and the trained extractor, in a folder or on S3."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.paths import SCRATCH, STORE
from orchestrator.store.fencing import StaleAttemptError
from orchestrator.store.folder import FolderObjects
from orchestrator.store.garbage import Orphan, orphans
from orchestrator.store.objects import ConflictError, MissingError, Objects, UnavailableError
from orchestrator.store.probing import probe
from orchestrator.store.spool import SpoolFullError
from orchestrator.store.trials import TrialStore
from search_spaces.sweep import Sweep
from trainers.errors import InputError

__all__ = [
    "ConflictError",
    "MissingError",
    "Objects",
    "Orphan",
    "SpoolFullError",
    "StaleAttemptError",
    "TrialStore",
    "UnavailableError",
    "check_store",
    "orphans",
    "probe",
    "store_of",
]


def store_of(sweep: Sweep, folder: Path) -> TrialStore:
    """The store that `sweep` names, or else the one in the sweep's own `folder`, which also has the spool of S3.

    Raises UnavailableError if AWS's configuration is faulty, so that no client can be made.
    """
    return TrialStore(_objects(sweep, folder), folder / SCRATCH, sweep.store)


def _objects(sweep: Sweep, folder: Path) -> Objects:
    path = sweep.store.path
    if path is None:
        return FolderObjects(folder / STORE)
    if not path.startswith("s3://"):
        return FolderObjects(Path(path) / sweep.name)
    # boto3 takes half a second to import, and most sweeps do not need it.
    from orchestrator.store.s3 import S3Objects

    url = urlsplit(path)
    return S3Objects(url.netloc, f"{url.path.strip('/')}/{sweep.name}", sweep.store.endpoint, sweep.store.unfenced)


def check_store(sweep: Sweep) -> None:
    """Checks that `store.path` of a sweep can be used: a bucket by `probe`, a folder only by a look; it is not made.

    Raises InputError with the reason.
    """
    path = sweep.store.path
    if path is None:
        return
    if not path.startswith("s3://"):
        place = Path(path).absolute() / sweep.name
        found = next(each for each in (place, *place.parents) if each.exists())
        if not found.is_dir():
            raise InputError(f"sweep {sweep.name}: store.path: {path} cannot be used: {found} is no folder")
        return
    try:
        probe(_objects(sweep, Path()))
    except InputError as error:
        raise InputError(f"sweep {sweep.name}: store.path: {path} cannot be used: {error}") from None
    except (UnavailableError, MissingError, ConflictError) as error:
        raise InputError(
            f"sweep {sweep.name}: store.path: {path} cannot be used: {error}; credentials come from the standard chain "
            "of AWS: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a shared credentials file, or the machine's role"
        ) from None
