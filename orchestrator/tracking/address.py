"""Where MLflow keeps the runs of a sweep."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.paths import mlflow_uri
from search_spaces.addresses import masked
from search_spaces.sweep import Sweep

#: The variable with which MLflow, and the loggers of Ray and Lightning, are told their tracker.
VARIABLE = "MLFLOW_TRACKING_URI"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def tracking_uri(sweep: Sweep, root: Path) -> str:
    """The address of the tracker: `tracking.uri`, else the environment's, else the database below `root`.

    It may hold a password if it is the environment's: it must be neither kept nor shown as it is.
    """
    return sweep.tracking.uri or _of_environment() or mlflow_uri(root)


def tracker_of_environment(sweep: Sweep | None = None) -> str | None:
    """A sentence on the tracker that the environment names, without its password; None if it names none.

    None also for a `sweep` that names its own tracker.
    """
    uri = None if sweep and sweep.tracking.uri else _of_environment()
    return uri and f"runs of sweeps without tracking.uri go to MLflow at {masked(uri)}, as {VARIABLE} says"


def is_database(uri: str) -> bool:
    """Whether `uri` is a database's, and no server's or folder's."""
    return uri.partition(":")[0].partition("+")[0] in _DATABASES


def _of_environment() -> str | None:
    return os.environ.get(VARIABLE, "").strip() or None
