"""Objects in a bucket of Amazon S3, or of a server with the same interface.

Credentials come from the standard chain of AWS (environment, shared files, the machine's role) and are passed nowhere.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader, create_loader

from orchestrator.store.objects import ConflictError, Listed, MissingError, RefusedError, UnavailableError
from search_spaces.addresses import masked

MIB = 2**20
PART = 32 * MIB
"""Bytes of a part; files of two parts or more are sent in parts, four at a time."""
_CHUNK = MIB
_TRIES = 5
"""How often an interrupted download is continued before UnavailableError is raised."""
_MOST_DELETED = 1000
"""S3's limit for the number of keys in one request."""
_REFUSALS = (400, 403, 405, 411, 501)
"""The HTTP status of answers to requests that a server does not allow, understand or implement."""
_CHECKSUMS = ("request_checksum_calculation", "response_checksum_validation")
"""AWS's settings for the checksums that its SDK adds to requests since 2025. Many other servers know none of them."""
SETTLE = 1.0
"""Seconds after which every writer has seen what an unconditional put has written, if the server ignores conditions."""


class _EmptyError(UnavailableError):
    """There are no bytes in the range that was asked for."""


@cache
def _loader(search_path: str | None) -> Loader:
    """What reads the SDK's descriptions of services, and keeps them: a session would read megabytes of JSON anew."""
    return create_loader(search_path)


class S3Objects:
    """Objects below `prefix` of a bucket; `endpoint` is the URL of a server that is not Amazon's.

    With an `endpoint`, the SDK's checksums are sent only if S3 requires them, unless AWS's own configuration says
    otherwise. If the server is `unfenced`, it cannot put on a condition: then the condition is checked before the put,
    and the object is read again afterwards. Raises UnavailableError if AWS's own configuration is faulty, for example
    if it names a profile that does not exist.
    """

    def __init__(self, bucket: str, prefix: str, endpoint: str | None = None, unfenced: bool = False) -> None:
        self._bucket, self._prefix, self._unfenced = bucket, prefix.strip("/"), unfenced
        self._deletes_many = True
        """Whether the server has not refused yet to delete several objects at once."""
        self._hint = ""
        """What to add to the message of a request that the server refused."""
        retries = {"mode": "standard", "total_max_attempts": 4}
        with self._own_errors(""):
            session = botocore.session.get_session()
            special = self._for_other_servers(session) if endpoint else {}
            config = Config(retries=retries, connect_timeout=5, read_timeout=60, **special)
            own = boto3.session.Session(botocore_session=session)  # adds a folder to the session's own loader
            session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
            self._client = own.client("s3", endpoint_url=endpoint, config=config)
        self._transfer = TransferConfig(multipart_threshold=2 * PART, multipart_chunksize=PART, max_concurrency=4)

    def _for_other_servers(self, session: botocore.session.Session) -> dict[str, Any]:
        """Settings of a client for servers that are not Amazon's."""
        file = session.get_scoped_config()
        given = {name: os.environ.get(f"AWS_{name.upper()}") or file.get(name) for name in _CHECKSUMS}
        if "when_supported" in given.values():
            settings = " and ".join(f"AWS_{name.upper()}" for name in _CHECKSUMS)
            self._hint = f"; perhaps it does not know the checksums that {settings} ask for"
        # Most servers have no host name for each bucket.
        style = {"s3": {"addressing_style": "path"}}
        return style | {name: "when_required" for name, value in given.items() if value is None}

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        if self._unfenced and (if_absent or if_match is not None):
            return self._put_carefully(key, data, if_match)
        condition = {"IfNoneMatch": "*"} if if_absent else {"IfMatch": if_match} if if_match is not None else {}
        try:
            with self._own_errors(key):
                return str(self._client.put_object(**self._place(key), Body=data, **condition)["ETag"])
        except MissingError:  # Amazon's answer to `if_match` if there is no object
            raise ConflictError(self.uri(key)) from None

    def _put_carefully(self, key: str, data: bytes, expected: str | None) -> str:
        """Puts if the object has the tag `expected`, or if there is none, on a server that ignores conditions.

        Of several writers at once the last one succeeds, if each needs less than SETTLE from its look to its put
        (Fischer's mutual exclusion; Lamport, 1987).
        """
        if self._tag(key) != expected:
            raise ConflictError(f"{self.uri(key)} was written by somebody else")
        tag = self.put(key, data)
        time.sleep(SETTLE)
        if self.get(key)[0] != data:
            raise ConflictError(f"{self.uri(key)} was written by somebody else")
        return tag

    def _tag(self, key: str) -> str | None:
        try:
            return self.get(key)[1]
        except MissingError:
            return None

    def put_file(self, key: str, path: Path) -> None:
        with open(path, "rb") as file, self._own_errors(key):
            self._client.upload_fileobj(file, self._bucket, self._full(key), Config=self._transfer)

    def get(self, key: str) -> tuple[bytes, str]:
        with self._own_errors(key):
            found = self._client.get_object(**self._place(key))
            return found["Body"].read(), str(found["ETag"])

    def get_start(self, key: str, size: int) -> bytes:
        try:
            with self._own_errors(key):
                found = self._client.get_object(**self._place(key), Range=f"bytes=0-{size - 1}")
                return bytes(found["Body"].read(size))  # a server may send more than it was asked for
        except _EmptyError:
            return b""

    def get_file(self, key: str, path: Path) -> None:
        with self._own_errors(key):
            found = self._client.head_object(**self._place(key))
        tag, size = str(found["ETag"]), int(found["ContentLength"])
        part = path.with_name(f".{path.name}.{hashlib.sha256(tag.encode()).hexdigest()[:16]}.part")
        for other in set(path.parent.glob(f".{path.name}.*.part")) - {part}:
            other.unlink()  # a part of an object that has been replaced since
        part.touch()
        for attempt in range(_TRIES):
            try:
                self._continue(key, tag, part, size)
                break
            except UnavailableError:
                if attempt == _TRIES - 1:
                    raise
                time.sleep(2**attempt)
        part.replace(path)

    def find(self, prefix: str) -> list[Listed]:
        with self._own_errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._full(prefix)
            )
            found = [entry for page in pages for entry in page.get("Contents", ())]
        return [Listed(self._short(entry["Key"]), entry["Size"], entry["LastModified"]) for entry in found]

    def delete(self, keys: Iterable[str]) -> None:
        found = list(keys)
        for start in range(0, len(found), _MOST_DELETED):
            some = found[start : start + _MOST_DELETED]
            if not (self._deletes_many and self._delete_many(some)):
                self._delete_each(some)
                self._deletes_many = False

    def _delete_many(self, keys: list[str]) -> bool:
        """Deletes objects by one request; False if the server refuses it, as servers that are not Amazon's may."""
        objects = [{"Key": self._full(key)} for key in keys]
        try:
            with self._own_errors(""):
                answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
        except RefusedError:
            return False
        if faults := answer.get("Errors"):
            raise UnavailableError(f"{self.uri('')}: {len(faults)} objects not deleted: {faults[0].get('Message')}")
        return True

    def _delete_each(self, keys: list[str]) -> None:
        for key in keys:
            with suppress(MissingError), self._own_errors(key):
                self._client.delete_object(**self._place(key))

    def leftovers(self, prefix: str) -> list[Listed]:
        with self._own_errors(prefix):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._full(prefix)
            )
            found = [entry for page in pages for entry in page.get("Uploads", ())]
        return [Listed(self._short(entry["Key"]), 0, entry["Initiated"], entry["UploadId"]) for entry in found]

    def discard(self, leftover: Listed) -> None:
        with self._own_errors(leftover.key):
            self._client.abort_multipart_upload(**self._place(leftover.key), UploadId=leftover.upload)

    def local(self, key: str) -> Path | None:
        return None

    def uri(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._full(key)}"

    def _continue(self, key: str, tag: str, part: Path, size: int) -> None:
        """Appends to `part` what it lacks of the object with `tag`. Raises ConflictError if that was replaced."""
        start = part.stat().st_size
        if start >= size:
            return
        with self._own_errors(key), open(part, "ab") as file:
            found = self._client.get_object(**self._place(key), Range=f"bytes={start}-", IfMatch=tag)
            for chunk in found["Body"].iter_chunks(_CHUNK):
                file.write(chunk)

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _short(self, full: str) -> str:
        return full[len(self._prefix) + 1 :] if self._prefix else full

    def _place(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._full(key)}

    @contextmanager
    def _own_errors(self, key: str) -> Iterator[None]:
        """Turns the exceptions of boto3 into the store's own."""
        try:
            yield
        except ClientError as error:
            code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status == 404 and code != "NoSuchBucket":
                raise MissingError(self.uri(key)) from None
            if status in (409, 412):
                raise ConflictError(f"{self.uri(key)} was written by somebody else") from None
            if status == 416:
                raise _EmptyError(self.uri(key)) from None
            if status in _REFUSALS:
                raise RefusedError(f"{self.uri(key)}: {masked(str(error))}{self._hint}") from None
            raise UnavailableError(f"{self.uri(key)}: {masked(str(error))}") from None
        except (BotoCoreError, Boto3Error) as error:
            raise UnavailableError(f"{self.uri(key)}: {masked(str(error))}") from None
