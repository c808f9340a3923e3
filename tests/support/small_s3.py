"""A small S3 server in this process, for what other servers than Amazon's do not know. It lets everybody in."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "small"
_DATE = "2026-01-01T00:00:00.000Z"


@dataclass
class SmallS3:
    """What the server knows, and what it has; one bucket."""

    conditions: Literal["obeyed", "ignored", "refused"] = "obeyed"
    """What becomes of If-None-Match and If-Match of a put."""
    checksums: bool = False
    """Whether requests may have the checksums that the SDK adds since 2025."""
    deletes_many: bool = False
    """Whether DeleteObjects is known."""
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, str] = field(default_factory=dict)
    """Keys of unfinished uploads by id."""
    asked: list[str] = field(default_factory=list)
    """The method and query of each request."""
    endpoint: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, method: str, key: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> Answer:
        """The answer to a request; one at a time."""
        with self.lock:
            self.asked.append(" ".join([method, *query]))
            if not self.checksums and (
                known := [name for name in headers if re.match(r"x-amz-(checksum|sdk-c)", name)]
            ):
                return _fault(501, "NotImplemented", f"Header '{known[0]}' is not implemented")
            return getattr(self, f"_{method.lower()}")(key, query, headers, body)  # type: ignore[no-any-return]

    def _put(self, key: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> Answer:
        absent, match, found = headers.get("if-none-match"), headers.get("if-match"), self.objects.get(key)
        if self.conditions == "refused" and (absent or match):
            return _fault(501, "NotImplemented", "A header you provided implies functionality that is not implemented")
        differs = (absent and found is not None) or (match and (found is None or _tag(found) != match))
        if self.conditions == "obeyed" and differs:
            return _fault(412, "PreconditionFailed", "At least one of the conditions did not hold")
        self.objects[key] = body
        return 200, b"", {"ETag": _tag(body)}

    def _get(self, key: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> Answer:
        if not key:
            return self._listing(query)
        if key not in self.objects:
            return _fault(404, "NoSuchKey", "There is no such key")
        data = self.objects[key]
        about = {"ETag": _tag(data), "Last-Modified": formatdate(usegmt=True)}
        if (found := re.match(r"bytes=(\d+)-(\d*)", headers.get("range", ""))) is None:
            return 200, data, about
        start, end = int(found[1]), int(found[2] or len(data))
        if start >= len(data):
            return _fault(416, "InvalidRange", "The requested range is not satisfiable")
        return 206, data[start : end + 1], about

    _head = _get

    def _post(self, key: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> Answer:
        if "uploads" in query:
            name = f"upload-{len(self.asked)}"
            self.uploads[name] = key
            return _xml(f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>")
        if not self.deletes_many:
            return _fault(400, "MalformedXML", "The XML you provided was not well-formed")
        for each in re.findall(r"<Key>(.*?)</Key>", body.decode()):
            self.objects.pop(each, None)
        return _xml("<DeleteResult/>")

    def _delete(self, key: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> Answer:
        self.uploads.pop(query["uploadId"], None) if "uploadId" in query else self.objects.pop(key, None)
        return 204, b"", {}

    def _listing(self, query: dict[str, str]) -> Answer:
        prefix = query.get("prefix", "")
        if "uploads" in query:
            rows = "".join(
                f"<Upload><Key>{key}</Key><UploadId>{name}</UploadId><Initiated>{_DATE}</Initiated></Upload>"
                for name, key in self.uploads.items()
                if key.startswith(prefix)
            )
            return _xml(f"<ListMultipartUploadsResult>{rows}</ListMultipartUploadsResult>")
        now = formatdate(usegmt=True)
        rows = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(data)}</Size><LastModified>{now}</LastModified></Contents>"
            for key, data in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        return _xml(f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>")


Answer = tuple[int, bytes, dict[str, str]]


def _tag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _xml(text: str, status: int = 200) -> Answer:
    return status, text.encode(), {"Content-Type": "application/xml"}


def _fault(status: int, code: str, text: str) -> Answer:
    return _xml(f"<Error><Code>{code}</Code><Message>{text}</Message></Error>", status)


@contextmanager
def small_s3(**options: Any) -> Iterator[SmallS3]:
    """A running server with these `options` of SmallS3."""
    served = SmallS3(**options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            url, headers = urlsplit(self.path), {name.lower(): value for name, value in self.headers.items()}
            query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
            bucket, _, key = unquote(url.path).lstrip("/").partition("/")
            body = self.rfile.read(int(headers.get("content-length", 0)))
            if bucket == BUCKET:
                status, data, more = served.answer(self.command, key, query, headers, body)
            else:
                status, data, more = _fault(404, "NoSuchBucket", f"There is no bucket {bucket}")
            self.send_response(status)
            for name, value in {**more, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    served.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
