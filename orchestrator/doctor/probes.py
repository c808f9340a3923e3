"""Tries out folders and databases for `gansweep doctor`; everything that is written is removed again."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Column, Connection, MetaData, String, Table, create_engine, inspect
from sqlalchemy.engine import make_url

from search_spaces.addresses import with_driver
from trainers.errors import InputError

GB = 1e9
#: The names of all files that are made here begin with it.
PROBE = ".gansweep-doctor-"


def unwritable(folder: Path) -> str | None:
    """Why no file can be written and locked in `folder`, or where it would be made; None if one can."""
    try:
        with tempfile.NamedTemporaryFile(prefix=PROBE, dir=existing(folder)) as file:
            file.write(b"probe")
            file.flush()
            os.fsync(file.fileno())
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return f"{folder} cannot be written: {message_of(error)}"
    return None


def free(folder: Path) -> str:
    """The free space on the disk of `folder`, as text."""
    return f"{shutil.disk_usage(existing(folder)).free / GB:.0f} GB"


def write_to_database(url: str, table: str, column: str, makes_folder: bool = False) -> bool:
    """Tries whether a database can be written, leaves it as it was, and returns whether it has `table`.

    `makes_folder` says whether the folder of a SQLite file may be missing. Raises InputError or OSError if nothing can
    be written, and what SQLAlchemy raises.
    """
    address = make_url(with_driver(url))
    if address.get_backend_name() == "sqlite":
        file = Path(address.database or "")
        folder = file.parent
        if not (makes_folder or folder.exists()):
            raise InputError(f"there is no folder {folder}")
        if reason := unwritable(folder):
            raise InputError(reason)
        if not file.exists():  # connecting would make it
            return False
    engine = create_engine(address)
    try:
        with engine.connect() as connection:
            known = inspect(connection).has_table(table)
            connection.rollback()
            _try_to_write(connection, table if known else None, column)
    finally:
        engine.dispose()
    return known


def _try_to_write(connection: Connection, table: str | None, column: str) -> None:
    """Inserts no rows into `table`, for which the right to write is needed too; without `table` makes and drops one."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # Python's sqlite3 begins no transaction to make a table
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
        if table is None:  # some databases keep a table in spite of the rollback
            probe.drop(connection, checkfirst=True)
            connection.commit()


def existing(folder: Path) -> Path:
    """`folder`, or the nearest folder above it that exists."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())


def message_of(error: BaseException) -> str:
    """The first line of an error's message, or of that of the OSError at the root of its causes."""
    seen = [error]
    while (below := seen[-1].__cause__ or seen[-1].__context__) is not None and below not in seen:
        seen.append(below)
    cause = seen[-1] if isinstance(seen[-1], OSError) else error
    text = (isinstance(cause, OSError) and cause.strerror) or str(cause).strip()
    return next(iter(text.splitlines()), type(cause).__name__)
