"""What S3 alone can go through: parts, broken connections, servers that are away, and launches without a bucket."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError

from orchestrator.store import MissingError, TrialStore, UnavailableError, check_store, spool
from orchestrator.store import s3 as s3_module
from orchestrator.store.s3 import S3Objects
from tests.support import made_up
from tests.support.objects import left_by, value_in
from tests.support.servers import ACCESS_KEY, SECRET_KEY, S3Server, free_ports
from trainers.checkpoint import STATE
from trainers.errors import InputError


def bucket_of(server: S3Server) -> tuple[str, S3Objects]:
    name = server.bucket(f"b-{uuid.uuid4().hex}")
    return name, S3Objects(name, "", server.endpoint)


def test_large_files_travel_in_parts(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "PART", 5 * 2**20)  # the least that the protocol allows
    name, objects = bucket_of(s3)
    content = os.urandom(11 * 2**20)
    (tmp_path / "large").write_bytes(content)
    objects.put_file("large", tmp_path / "large")
    assert s3.client().head_object(Bucket=name, Key="large", PartNumber=1)["ETag"].strip('"').endswith("-3")
    objects.get_file("large", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == content
    assert objects.leftovers("") == []


def test_a_download_that_broke_off_goes_on_where_it_was(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, objects = bucket_of(s3)
    content = os.urandom(1000)
    objects.put("k", content)
    monkeypatch.setattr(s3_module, "_CHUNK", 100)
    monkeypatch.setattr(s3_module, "_TRIES", 1)
    asked, ask = [], objects._client.get_object

    def get_object(**options: str) -> dict[str, object]:
        asked.append(options["Range"])
        found: dict[str, object] = ask(**options)
        if len(asked) == 1:
            found["Body"] = _Breaking(found["Body"])
        return found

    monkeypatch.setattr(objects._client, "get_object", get_object)
    with pytest.raises(UnavailableError):
        objects.get_file("k", tmp_path / "target")
    assert not (tmp_path / "target").exists()
    objects.get_file("k", tmp_path / "target")
    assert asked == ["bytes=0-", "bytes=300-"]
    assert (tmp_path / "target").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


class _Breaking:
    """A body whose connection breaks after three chunks."""

    def __init__(self, body: object) -> None:
        self._body = body

    def iter_chunks(self, size: int) -> object:
        for number, chunk in enumerate(self._body.iter_chunks(size)):  # type: ignore[attr-defined]
            if number == 3:
                raise BotoCoreError
            yield chunk


def test_a_part_of_an_object_that_was_replaced_is_not_gone_on_with(s3: S3Server, tmp_path: Path) -> None:
    _, objects = bucket_of(s3)
    objects.put("k", b"new content")
    (tmp_path / ".target.0123456789abcdef.part").write_bytes(b"old")
    objects.get_file("k", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"new content"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_part_that_was_damaged_on_disk_is_fetched_again(s3: S3Server, tmp_path: Path) -> None:
    _, objects = bucket_of(s3)
    TrialStore(objects, tmp_path / "one").publish(3, 1, left_by(100, 1.0), ())
    store = TrialStore(objects, tmp_path / "two")
    with store.newest(3) as found:
        assert found is not None
        relative, state = found.relative_to(tmp_path / "two"), (found / STATE).read_bytes()
    (tmp_path / "two" / relative).mkdir(parents=True)
    (tmp_path / "two" / relative / STATE).write_bytes(bytes(len(state)))
    with store.newest(3) as found:
        assert found is not None
        assert value_in(found) == 1.0


def test_nobody_at_the_address_is_told_from_nothing_there(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    nobody = S3Objects("bucket", "", f"http://127.0.0.1:{free_ports(1)[0]}")
    for action in (lambda: nobody.get("k"), lambda: nobody.put("k", b""), lambda: nobody.find("")):
        with pytest.raises(UnavailableError, match="Could not connect"):
            action()
    _, objects = bucket_of(s3)
    with pytest.raises(MissingError):
        objects.get("k")


# What is checked before a sweep starts


def checked(server: S3Server, bucket: str, endpoint: str | None = None) -> str:
    sweep = made_up.sweep(f"store={{path: s3://{bucket}/there, endpoint: '{endpoint or server.endpoint}'}}")
    with pytest.raises(InputError) as caught:
        check_store(sweep)
    return str(caught.value)


def test_a_bucket_that_can_be_used_passes_and_nothing_is_left_in_it(s3: S3Server) -> None:
    name, objects = bucket_of(s3)
    check_store(made_up.sweep(f"store={{path: s3://{name}/there, endpoint: '{s3.endpoint}'}}"))
    assert objects.find("") == []
    check_store(made_up.sweep())
    check_store(made_up.sweep("store.path=some/folder"))


def test_a_bucket_that_cannot_be_used_is_found_with_its_reason(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    assert "s3://no-such-bucket/there cannot be used" in checked(s3, "no-such-bucket")
    name, _ = bucket_of(s3)
    assert "Could not connect" in checked(s3, name, f"http://127.0.0.1:{free_ports(1)[0]}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "SignatureDoesNotMatch" in checked(s3, name)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    said = checked(s3, name)
    assert "Unable to locate credentials" in said
    monkeypatch.setenv("AWS_PROFILE", "of-nobody")
    assert "The config profile (of-nobody) could not be found" in checked(s3, name)
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in said
    assert "\n" not in said


def test_a_launch_without_its_bucket_ends_with_one_message_and_starts_nothing(s3: S3Server, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        made_up.TEXT + f"store: {{path: s3://no-such-bucket/there, endpoint: '{s3.endpoint}'}}\n"
    )
    for more in ([], ["--dry-run"]):
        command = [sys.executable, "-m", "orchestrator.cli", "launch", "s.yaml", *more]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "cannot be used" in done.stderr
        assert "Traceback" not in done.stderr
        assert SECRET_KEY not in done.stdout + done.stderr
        assert ACCESS_KEY not in done.stdout + done.stderr
    assert [path.name for path in tmp_path.rglob("*") if path.name == "study.journal"] == []


# Servers that fail


@contextmanager
def answering(status: int) -> Iterator[str]:
    """The address of a server that answers everything so."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("status", [500, 503, 403])
def test_a_server_that_refuses_is_as_one_that_is_away(
    status: int, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    with answering(status) as endpoint:
        store = TrialStore(S3Objects("bucket", "", endpoint), tmp_path)
        store.publish(3, 1, left_by(100, 1.0), ())
        assert store.spool.waiting() == [(3, 1)]
        with pytest.raises(UnavailableError):
            store.objects.get_file("k", tmp_path / "k")


@pytest.fixture
def own_s3(s3: S3Server, tmp_path: Path) -> Iterator[S3Server]:
    """A server that no other test uses; it lets in who has the credentials of the common one."""
    server = S3Server(tmp_path / "server")
    server.start()
    yield server
    server.stop()


@pytest.mark.slow
def test_a_real_server_that_is_killed_and_comes_back_has_everything(
    own_s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = own_s3
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    monkeypatch.setattr(spool, "_LONGEST_PAUSE_S", 0.25)
    bucket = s3.bucket(f"b-{uuid.uuid4().hex}")
    store = TrialStore(S3Objects(bucket, "", s3.endpoint), tmp_path / "one")
    store.claim(3, 1)
    store.publish(3, 1, left_by(100, 1.0), ())
    s3.stop()
    try:
        for images in (200, 300):
            store.publish(3, 1, left_by(images, images / 100), ())
        assert store.spool.waiting() == [(3, 1)]
    finally:
        s3.start()
    store.drain(wait=True)
    other = TrialStore(S3Objects(bucket, "", s3.endpoint), tmp_path / "two")
    with other.newest(3) as found:
        assert found is not None
        assert value_in(found) == 3.0
    assert list(other.grids(3)) == [100, 200, 300]
