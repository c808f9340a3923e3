"""Addresses outside of the command line: kept sweeps, exceptions of libraries, and texts that take long to search."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable

import boto3
import mlflow
import pytest
import requests
import sqlalchemy

from search_spaces.addresses import artifacts, database, endpoint, holds_secret, masked, reason, store_path, tracking
from search_spaces.document import Document
from search_spaces.load import parse_sweep
from search_spaces.sweep import read_kept
from tests.support import made_up
from trainers.errors import InputError

MARK = "Zq7mark"
CHECKS = {
    "study.storage": database,
    "tracking.uri": tracking,
    "tracking.artifacts": artifacts,
    "store.path": store_path,
    "store.endpoint": endpoint,
}


@pytest.mark.parametrize("key", CHECKS)
@pytest.mark.parametrize("address", [f"https://me:{MARK}@h", f"me:{MARK}@h", f"postgresql://{MARK}:{MARK}@h#x"])
def test_each_check_refuses_by_itself_and_says_what_is_allowed(key: str, address: str) -> None:
    with pytest.raises(ValueError, match=r"must not stand in a sweep file, .*; expected ") as caught:
        CHECKS[key](address)
    assert MARK not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "address", "where"),
    [
        ("study.storage", f"postgresql://me:{MARK}/@h/db", "set PGPASSWORD or PGPASSFILE, or write ~/.pgpass"),
        ("study.storage", f"mysql+pymysql://me:{MARK}@h/db", "read_default_file"),
        ("tracking.uri", f"https://{MARK}@h", "MLFLOW_TRACKING_TOKEN"),
        ("tracking.uri", f"postgresql://me:{MARK}@h/db", "PGPASSFILE"),
        ("tracking.artifacts", f"s3://me:{MARK}@bucket/x", "standard chain of AWS"),
        ("store.path", f"s3://bucket?token={MARK}", "standard chain of AWS"),
        ("store.endpoint", f"https://{MARK}@h", "standard chain of AWS"),
        ("dataset.path", f"https://me:{MARK}@h/data", "MLFLOW_TRACKING_TOKEN"),
        ("dataset.path", f"ftp://me:{MARK}@h/data", "environment variables"),
    ],
)
def test_the_message_says_where_the_secret_belongs(key: str, address: str, where: str) -> None:
    section, name = key.split(".")
    beside = {"endpoint": "path: s3://bucket, ", "path": "name: folder, " if section == "dataset" else ""}
    text = made_up.TEXT.replace("dataset: mnist-mini\n", "" if section == "dataset" else "dataset: mnist-mini\n")
    with pytest.raises(InputError) as caught:
        parse_sweep(f"{text}{section}: {{{beside.get(name, '')}{name}: '{address}'}}\n", "my.yaml")
    said = str(caught.value)
    assert said.startswith("my.yaml:")
    assert f": {key}: a " in said
    assert where in said
    assert MARK not in said


def test_a_kept_sweep_with_a_secret_is_not_repeated() -> None:
    text = made_up.sweep("tracking.artifacts=s3://bucket/x").normalised()
    kept = text.replace("s3://bucket/x", f"s3://me:{MARK}@bucket/x")
    assert kept != text
    with pytest.raises(InputError, match=r"its kept text: tracking\.artifacts: a key must not stand") as caught:
        read_kept(kept)
    assert MARK not in str(caught.value)


def test_a_key_below_a_word_is_refused_without_the_word() -> None:
    document = Document("my.yaml", {"study": f"postgresql://me:{MARK}@h"})
    with pytest.raises(InputError, match=r"study is .*, which has no keys below it") as caught:
        document.set("study.shared=true")
    assert MARK not in str(caught.value)


URL = f"http://me:{MARK}@host:port/x?token={MARK}"


@pytest.mark.parametrize(
    "call",
    [
        lambda: sqlalchemy.create_engine(f"made-up+driver://me:{MARK}@host/x").connect(),
        lambda: sqlalchemy.create_engine(f"sqlite:////no/such/folder/me:{MARK}@host").connect(),
        lambda: requests.get(URL, timeout=1),
        lambda: requests.get(f"http://127.0.0.1:1/x?token={MARK}", timeout=1),
        lambda: urllib.request.urlopen(URL, timeout=1),
        lambda: urllib.request.urlopen(f"unknown://me:{MARK}@host/x", timeout=1),
        lambda: boto3.client("s3", endpoint_url=f"http://me:{MARK}@ host", region_name="x"),
        lambda: mlflow.MlflowClient(f"made-up://me:{MARK}@host").search_experiments(),
        lambda: (_ for _ in ()).throw(ValueError(f"netloc 'me:{MARK}@host' contains invalid characters")),
        lambda: (_ for _ in ()).throw(RuntimeError(f"invalid dsn: host=h password='{MARK} {MARK}' user=me")),
    ],
)
def test_what_a_library_says_of_an_address_is_masked(call: Callable[[], object]) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each library has its own
        call()
    assert MARK not in reason(caught.value), str(caught.value)
    assert MARK not in masked(str(caught.value))


@pytest.mark.timeout(30)  # to search each of them in quadratic time takes a minute
@pytest.mark.parametrize(
    "part", [":/", ":", "a", "token='", "1", "@:", "hf_", "?", ":/?", "password", "postgresql://", "a,"]
)
def test_a_long_text_is_searched_in_linear_time(part: str) -> None:
    for text in (part * 100_000, f"postgresql://{part * 100_000}", f"sqlite:///{part * 100_000}"):
        masked(text)
        holds_secret(text)
