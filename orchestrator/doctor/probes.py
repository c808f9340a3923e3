"""Trying out folders, objects and databases for `gansweep doctor`: all that is written is taken back."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Column, Connection, MetaData, String, Table, create_engine, inspect
from sqlalchemy.engine import make_url

from orchestrator.store import Objects, probe
from search_spaces.addresses import with_driver
from trainers.errors import InputError

GB = 1e9
#: Names of all files that are made here begin so.
PROBE = ".gansweep-doctor-"


def unwritable(folder: Path) -> str | None:
    """Why no file can be written and locked in `folder`, or in the one in which it would be made."""
    try:
        with tempfile.NamedTemporaryFile(prefix=PROBE, dir=existing(folder)) as file:
            file.write(b"probe")
            file.flush()
            os.fsync(file.fileno())
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return f"{folder} cannot be written: {words(error)}"
    return None


def free(folder: Path) -> str:
    """What the disk of `folder` has left, in words."""
    return f"{shutil.disk_usage(existing(folder)).free / GB:.0f} GB"


def use(objects: Objects) -> None:
    """Writes, reads and deletes an object. Raises what objects do, and InputError where a condition is ignored."""
    probe(objects)


def write_to_database(url: str, table: str, column: str, makes_folder: bool = False) -> bool:
    """Whether the database has `table`; writes there, or makes a table, and takes it back.

    Raises InputError, OSError or what SQLAlchemy does. `makes_folder` says whether that of a file may be missing.
    """
    where = make_url(with_driver(url))
    if where.get_backend_name() == "sqlite":
        file = Path(where.database or "")
        folder = file.parent
        if not (makes_folder or folder.exists()):
            raise InputError(f"there is no folder {folder}")
        if reason := unwritable(folder):
            raise InputError(reason)
        if not file.exists():  # or connecting would make it
            return False
    engine = create_engine(where)
    try:
        with engine.connect() as connection:
            known = inspect(connection).has_table(table)
            connection.rollback()
            _take_back(connection, table if known else None, column)
    finally:
        engine.dispose()
    return known


def _take_back(connection: Connection, table: str | None, column: str) -> None:
    """Writes nothing into `table`, for which it takes the right to write, or makes one that does not stay."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # Python's module begins none for a table that is made
    name = table or f"gansweep_doctor_{uuid4().hex}"
    probe = Table(name, MetaData(), Column(column, String(32)))
    try:
        if table is None:
            probe.create(connection)
        connection.execute(
            probe.insert().from_select([column], probe.select().where(probe.c[column] != probe.c[column]))
        )
    finally:
        connection.rollback()
        if table is None:  # some databases keep a table all the same
            probe.drop(connection, checkfirst=True)
            connection.commit()


def existing(folder: Path) -> Path:
    """`folder`, or the one in which it would be made."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())


def words(error: BaseException) -> str:
    """The first line of what went wrong at the bottom of it."""
    seen = [error]
    while (below := seen[-1].__cause__ or seen[-1].__context__) is not None and below not in seen:
        seen.append(below)
    cause = seen[-1] if isinstance(seen[-1], OSError) else error
    text = (isinstance(cause, OSError) and cause.strerror) or str(cause).strip()
    return next(iter(text.splitlines()), type(cause).__name__)
