"""The store's section of a sweep file: places are taken, keys are refused and never repeated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.addresses import endpoint, store_path
from search_spaces.load import parse_sweep
from tests.support import made_up
from trainers.errors import InputError

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    "path",
    ["runs", "/data/a store", "~/x", "a@b", "what?", "s3://abc", "s3://my.bucket-1/", "s3://bucket/a/b_c/d=1/e.f-g/"],
)
def test_a_place_is_taken_as_it_is_written(path: str) -> None:
    assert store_path(path) == path


@pytest.mark.parametrize("url", ["http://127.0.0.1:8333", "https://s3.example.com", "http://[::1]:9000/", "https://h/"])
def test_an_address_is_taken_as_it_is_written(url: str) -> None:
    assert endpoint(url) == url


@pytest.mark.parametrize(
    "override",
    [
        f"store.path=s3://{KEY}:{SECRET}@bucket/prefix",
        f"store.path=s3://user:{SECRET}@bucket",
        f"store.path=s3://bucket/prefix?AWSAccessKeyId={KEY}&Signature={SECRET}",
        f"store.path=s3://bucket/{KEY}",
        f"store={{path: s3://bucket, endpoint: 'https://{KEY}:{SECRET}@host:9000'}}",
        f"store={{path: s3://bucket, endpoint: 'https://host:9000/?secret={SECRET}'}}",
        f"store={{path: s3://bucket, endpoint: 'https://host#{SECRET}'}}",
    ],
)
def test_a_key_is_refused_and_not_repeated(override: str) -> None:
    value = override.split("=", 1)[1]
    with pytest.raises(InputError, match="a key must not stand in a sweep file") as by_option:
        made_up.sweep(override)
    value = value if value.startswith("{") else f"{{path: '{value}'}}"
    with pytest.raises(InputError, match="a key must not stand in a sweep file") as in_file:
        parse_sweep(made_up.TEXT + f"store: {value}\n")
    for said in (str(by_option.value), str(in_file.value)):
        assert SECRET not in said
        assert KEY not in said
        assert "store." in said
        assert "standard chain of AWS" in said


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("store.path=s3://", "the name of a bucket is 3 to 63"),
        ("store.path=s3://ab", "got 'ab'"),
        ("store.path=s3://Bucket", "got 'Bucket'"),
        ("store.path=s3://bucket/../up", "got '../up'"),
        ("store.path=s3://bucket/a//b", "got 'a//b'"),
        ("store.path=gs://bucket", "expected a folder or s3://BUCKET/PREFIX, got 'gs://bucket'"),
        ("store.endpoint=http://host", "leave it out for a folder"),
        ("store={path: runs, endpoint: 'http://host'}", "leave it out for a folder"),
        ("store={path: s3://bucket, endpoint: host}", "expected http://HOST:PORT, https://HOST or null, got 'host'"),
        ("store={path: s3://bucket, endpoint: 'http://host/path'}", "got 'http://host/path'"),
        ("store.keep.last=0", "store.keep.last: input should be greater than or equal to 1, got 0"),
        ("store.keep={best: 1, worst: 1}", "store.keep.worst: unknown key 'worst'; allowed: last, best"),
        ("store.spool.max_gb=0", "store.spool.max_gb: input should be greater than 0, got 0"),
        ("store.spool={gb: 1}", "unknown key 'gb'"),
    ],
)
def test_what_is_no_place_is_refused_with_what_is_allowed(override: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        made_up.sweep(override)
    assert said in str(caught.value)


def test_a_whole_section_is_written_and_read_back() -> None:
    sweep = made_up.sweep(
        "store={path: s3://bucket/a, endpoint: 'http://h:1', keep: {last: 3, best: 2}, spool: {max_gb: 0.5}}"
    )
    assert (sweep.store.keep.last, sweep.store.keep.best, sweep.store.spool.max_gb) == (3, 2, 0.5)
    assert parse_sweep(sweep.normalised()) == sweep


@given(st.text(max_size=40), st.sampled_from(["", "s3://", "s3://bucket/", "http://", "S3://"]))
def test_any_text_is_a_place_or_a_fault(text: str, start: str) -> None:
    for check in (store_path, endpoint):
        try:
            assert check(start + text) == start + text
        except ValueError as error:
            assert str(error)  # noqa: PT017
