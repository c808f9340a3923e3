"""What sweeps stand on and what is taken away from them; started once for all seeds of a kind of fault."""

from __future__ import annotations

import gzip
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self
from unittest.mock import patch

from tests.support.mlflow_server import MlflowServer, Wire
from tests.support.servers import S3Server
from trainers.data.idx import MINI

#: What AWS's own clients take for settings of the person who runs this.
_PERSONAL = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
_SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
_METHODS = (b"GET /", b"PUT /", b"HEAD /", b"POST /", b"DELETE /")


class Nothing:
    """This machine alone; `folder` is for what servers keep. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Ends what was started."""

    def welcome(self, folder: Path, text: str) -> str:
        """Prepares for the sweep in `folder`, whose name is new. Returns its file: `text`, and what names servers."""
        return text

    def farewell(self, folder: Path) -> None:
        """Takes back what was made for the sweep in `folder`."""

    @contextmanager
    def away(self, dice: Random) -> Iterator[None]:
        """Does not answer for as long as the block lasts."""
        yield


class Bucket(Nothing):
    """A store on a server of S3, which is killed."""

    def __enter__(self) -> Self:
        self.server = S3Server(self.folder)
        self._environment = patch.dict(os.environ, self.server.environment)
        self._environment.start()
        for name in _PERSONAL:
            os.environ.pop(name, None)
        self.server.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.server.stop()
        self._environment.stop()

    @property
    def endpoint(self) -> str:
        return self.server.endpoint

    def welcome(self, folder: Path, text: str) -> str:
        path = f"s3://{self.server.bucket(folder.name)}/sweeps"
        return f"{text}store: {{path: {path}, endpoint: '{self.endpoint}'}}\n"

    @contextmanager
    def away(self, dice: Random) -> Iterator[None]:
        self.server.stop()
        try:
            yield
        finally:
            self.server.start()


class BusyBucket(Bucket):
    """The same behind a gateway that refuses requests, as S3 does where it has too many: all of them, or a half."""

    def __enter__(self) -> Self:
        super().__enter__()
        self._gateway = Gateway(int(self.server.endpoint.rpartition(":")[2]))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._gateway.close()
        super().__exit__(kind, error, at)

    @property
    def endpoint(self) -> str:
        return self._gateway.uri

    @contextmanager
    def away(self, dice: Random) -> Iterator[None]:
        self._gateway.refused = dice.choice([0.5, 1.0])
        try:
            yield
        finally:
            self._gateway.refused = 0.0


class Gateway(Wire):
    """Forwards requests unchanged, so that their signatures hold, or answers `503 Slow Down` in the server's place."""

    refused = 0.0
    """Share of requests that are."""

    def _passes(self, data: bytes, source: socket.socket, answers: bool) -> bool:
        refused = not answers and data.startswith(_METHODS) and self._random.random() < self.refused
        if refused:
            self._refuse(source)
        return not refused

    def _refuse(self, client: socket.socket) -> None:
        head = f"HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Length: {len(_SLOW_DOWN)}\r\n\r\n"
        client.sendall(head.encode() + _SLOW_DOWN)
        client.shutdown(socket.SHUT_WR)
        client.settimeout(2)
        while client.recv(65536):  # a connection that is closed over unread data would take the answer with it
            continue


class SmallDisk(Bucket):
    """A store on S3, and a disk of its own for the spool, which has room for the checkpoint of one trial alone."""

    ROOM = 700_000

    def welcome(self, folder: Path, text: str) -> str:
        mount(self._disk(folder), self.ROOM)
        return super().welcome(folder, text)

    def farewell(self, folder: Path) -> None:
        subprocess.run(["umount", "--lazy", str(self._disk(folder))], check=True)

    def _disk(self, folder: Path) -> Path:
        return folder / "scratch" / "spool"


class Tracking(Nothing):
    """A server of MLflow, which is killed."""

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True)
        self.server = MlflowServer(self.folder)
        self.server.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.server.kill()

    def welcome(self, folder: Path, text: str) -> str:
        return f"{text}tracking: {{uri: {self.server.uri}}}\n"

    @contextmanager
    def away(self, dice: Random) -> Iterator[None]:
        self.server.kill()
        try:
            yield
        finally:
            self.server.start()


class SmallRoot(Nothing):
    """A disk of its own for the root, which has room for the whole sweep, until somebody else fills it."""

    ROOM = 60_000_000

    def welcome(self, folder: Path, text: str) -> str:
        mount(folder.parent, self.ROOM)
        return text

    def farewell(self, folder: Path) -> None:
        subprocess.run(["umount", "--lazy", str(folder.parent)], check=True)


class DataFolder(Nothing):
    """The built-in digits as files of the data set `mnist`, which anybody can change."""

    def welcome(self, folder: Path, text: str) -> str:
        files = self.files(folder)
        files.mkdir(parents=True)
        for path in MINI.glob("*.gz"):
            (files / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        return text.replace("dataset: mnist-mini", f"dataset: {{name: mnist, path: {files}, verify: false}}")

    def files(self, folder: Path) -> Path:
        """Their folder, of the sweep in `folder`."""
        return folder.parents[1] / "data"


class SharedFolder(Nothing):
    """A store outside the root, of which a sweep of the same name below another root may make use."""

    def welcome(self, folder: Path, text: str) -> str:
        return f"{text}store: {{path: {folder.parents[1] / 'shared'}}}\n"


def mount(folder: Path, room: int) -> None:
    """A disk of `room` bytes at `folder`. Raises CalledProcessError without the right to mount."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "none", str(folder)], check=True)
