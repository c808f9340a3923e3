"""Downloads of weights from a server that answers badly: one sentence each, and nothing stays behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trainers.errors import InputError
from trainers.evaluation import weights
from trainers.evaluation.extractors import check_extractor
from trainers.evaluation.spec import ExtractorSpec

WHOLE = bytes(range(256)) * 40
PAGE = b"<!DOCTYPE html><title>Sign in</title>"


@contextmanager
def _server(status: int, body: bytes, promised: int) -> Iterator[tuple[str, list[str]]]:
    """An address on this machine that answers every request alike, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(promised))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/weights.pt", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the official address, which no proxy stands before, and the checksum to that of WHOLE."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(weights, "SHA256", sha256(WHOLE).hexdigest())
    return lambda url: monkeypatch.setattr(weights, "URL", url)


@pytest.mark.parametrize(
    ("status", "body", "promised", "complaint"),
    [
        (200, WHOLE[:5000], len(WHOLE), f"what arrived has the sha256 {sha256(WHOLE[:5000]).hexdigest()}, not "),
        (
            200,
            b"x" + WHOLE[1:],
            len(WHOLE),
            f"what arrived has the sha256 {sha256(b'x' + WHOLE[1:]).hexdigest()}, not ",
        ),
        (200, PAGE, len(PAGE), f"what arrived is an HTML page with the sha256 {sha256(PAGE).hexdigest()}, not "),
        (200, b"", 0, f"what arrived has the sha256 {sha256(b'').hexdigest()}, not "),
        (404, PAGE, len(PAGE), "HTTP Error 404: Not Found"),
        (503, b"", 0, "HTTP Error 503: Service Unavailable"),
    ],
    ids=["truncated", "other bytes", "a page", "empty", "not found", "unavailable"],
)
def test_a_broken_download_is_one_sentence_and_leaves_nothing(
    status: int, body: bytes, promised: int, complaint: str, direct: Callable[[str], None], tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "other").touch()
    with _server(status, body, promised) as (url, asked):
        direct(url)
        for cache in (tmp_path / "cache", tmp_path / "new" / "cache"):
            with pytest.raises(InputError, match=complaint) as caught:
                check_extractor(ExtractorSpec(name="inception"), cache)
            told = str(caught.value)
            assert "\n" not in told
            assert told.startswith(f"extractor inception: {cache / weights.NAME} is missing and its download failed (")
            assert told.endswith(
                f"fetch {url} elsewhere and put it there, name another file by `weights`, or use `lenet` or `cnn`"
            )
    assert asked == ["/weights.pt"] * 2
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == ["cache", "cache/other"]


def test_a_server_that_is_not_there_is_told(direct: Callable[[str], None], tmp_path: Path) -> None:
    with _server(200, b"", 0) as (url, _):
        pass
    direct(url)
    with pytest.raises(InputError, match=r"its download failed .*refused"):
        check_extractor(ExtractorSpec(name="inception-pt"), tmp_path / "cache")
    assert not list(tmp_path.iterdir())


def test_a_whole_download_is_kept_and_asked_for_once(direct: Callable[[str], None], tmp_path: Path) -> None:
    with _server(200, WHOLE, len(WHOLE)) as (url, asked):
        direct(url)
        for name in ("inception", "inception-pt"):
            check_extractor(ExtractorSpec.model_validate(name), tmp_path)
    assert asked == ["/weights.pt"]
    assert (tmp_path / weights.NAME).read_bytes() == WHOLE


def test_after_a_broken_download_the_next_one_is_whole(direct: Callable[[str], None], tmp_path: Path) -> None:
    with _server(200, WHOLE[:100], len(WHOLE)) as (url, _):
        direct(url)
        with pytest.raises(InputError, match="its download failed"):
            check_extractor(ExtractorSpec(name="inception"), tmp_path)
    with _server(200, WHOLE, len(WHOLE)) as (url, _):
        direct(url)
        check_extractor(ExtractorSpec(name="inception"), tmp_path)
    assert (tmp_path / weights.NAME).read_bytes() == WHOLE
