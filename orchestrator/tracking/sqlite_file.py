"""MLflow's database of a root as a file: what is wrong with a damaged one, and how it is moved out of the way."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from itertools import count
from pathlib import Path

from orchestrator.paths import mlflow_lock, mlflow_uri
from orchestrator.store.spool import locked
from trainers.errors import InputError

_SCHEME = "sqlite:///"
#: SQLite's own files beside a database, which belong to it alone.
_COMPANIONS = ("-journal", "-wal", "-shm")
#: Tables of MLflow; the first is there from the first moment on.
_TABLES = {"alembic_version", "experiments"}


def fault_of(root: Path, name: str) -> tuple[str, str] | None:
    """What is at the place of MLflow's database below `root` and cannot be used as one, and the remedy.

    None if all is well. The remedy is a command for the sweep `name`.
    """
    path = _database(root)
    if (fault := _fault(path)) is None:
        return None
    remedy = f"`gansweep rebuild-tracking {name} --root {root}` moves it aside and writes a new one"
    return f"MLflow's database {fault}", f"{remedy}: {path}"


def check_file(root: Path, name: str) -> None:
    """Raises InputError with what `fault_of` finds."""
    if (found := fault_of(root, name)) is not None:
        raise InputError("; ".join(found))


def move_aside(root: Path) -> Path | None:
    """Renames what MLflow cannot use as its database below `root`, and returns the new path; None if all is well."""
    with locked(mlflow_lock(root)):
        path = _database(root)
        if _fault(path) is None:
            return None
        aside = next(each for n in count(1) if not (each := path.with_name(f"{path.name}.damaged-{n}")).exists())
        for end in ("", *_COMPANIONS):
            found = path.with_name(path.name + end)
            if found.exists() or found.is_symlink():
                found.rename(aside.with_name(aside.name + end))
    return aside


def _database(root: Path) -> Path:
    return Path(mlflow_uri(root).removeprefix(_SCHEME))


def _fault(path: Path) -> str | None:
    """Why MLflow cannot use the file at `path`, in words that follow "MLflow's database"; None if it can."""
    if not path.exists():
        return None
    if not path.is_file():
        return "is no file"
    if not os.access(path, os.R_OK | os.W_OK):
        return "cannot be written"
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        return None if "locked" in str(error) else f"cannot be opened ({error})"
    except sqlite3.DatabaseError as error:
        return f"is damaged ({error})"
    if found != "ok":
        return f"is damaged ({found.splitlines()[0]})"
    return "is another program's" if tables and not tables & _TABLES else None
