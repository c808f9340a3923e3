"""What every kind of objects promises: a folder, a real S3 server, and the stand-in in memory of other tests."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.store import ConflictError, MissingError, Objects, UnavailableError, probe
from orchestrator.store import s3 as s3_module
from orchestrator.store.folder import FolderObjects
from orchestrator.store.s3 import S3Objects
from tests.support.objects import MemoryObjects, Watched
from tests.support.servers import S3Server
from tests.support.small_s3 import BUCKET, small_s3
from trainers.errors import InputError

Make = Callable[[], Objects]


@pytest.fixture(params=["folder", "s3", "s3 at the top of its bucket", "s3 of before 2025", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Opens the same empty store as often as it is called, as processes do that share it."""
    if request.param == "folder":
        yield lambda: FolderObjects(tmp_path / "store")
        return
    if request.param == "memory":
        objects = MemoryObjects()
        yield lambda: objects
        return
    if request.param == "s3 of before 2025":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anybody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
        with small_s3() as small:
            yield lambda: S3Objects(BUCKET, "some/where", small.endpoint)
        return
    server: S3Server = request.getfixturevalue("s3")
    bucket, prefix = server.bucket(f"b-{uuid.uuid4().hex}"), "" if "top" in request.param else "some/where"
    yield lambda: S3Objects(bucket, prefix, server.endpoint)


@pytest.fixture
def objects(make: Make) -> Objects:
    return make()


CONTENTS = [b"", b"x", bytes(range(256)) * 5, "été\n".encode()]


@pytest.mark.parametrize("content", CONTENTS, ids=["empty", "byte", "binary", "text"])
def test_what_is_put_is_got(make: Make, content: bytes, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    objects = make()
    tag = objects.put("a/bytes", content)
    objects.put_file("a/file", source)
    for other in (objects, make()):
        assert other.get("a/bytes") == (content, tag)
        assert other.get("a/file")[0] == content
        for key in ("a/bytes", "a/file"):
            other.get_file(key, target)
            assert target.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["source", "target"]


def test_what_is_not_there_is_missing(objects: Objects, tmp_path: Path) -> None:
    for key in ("a", "a/b", "trials/00001/latest"):
        with pytest.raises(MissingError):
            objects.get(key)
        with pytest.raises(MissingError):
            objects.get_file(key, tmp_path / "target")
    objects.put("a/b", b"")
    for key in ("a", "a/c"):
        with pytest.raises(MissingError):
            objects.get(key)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("content", CONTENTS, ids=["empty", "byte", "binary", "text"])
def test_the_start_of_an_object_is_read_alone(objects: Objects, content: bytes) -> None:
    objects.put("a/b", content)
    for size in (1, 8, len(content) or 1, 10_000):
        assert objects.get_start("a/b", size) == content[:size]
    for key in ("a", "a/c"):
        with pytest.raises(MissingError):
            objects.get_start(key, 8)


def test_a_file_that_is_not_there_is_not_put(objects: Objects, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        objects.put_file("a", tmp_path / "nowhere")
    assert objects.find("") == []


def test_a_put_replaces_and_its_tag_tells_contents_apart(objects: Objects, tmp_path: Path) -> None:
    first = objects.put("k", b"one")
    second = objects.put("k", b"two")
    assert first != second
    assert objects.get("k") == (b"two", second)
    (tmp_path / "f").write_bytes(b"three")
    objects.put_file("k", tmp_path / "f")
    data, third = objects.get("k")
    assert data == b"three"
    assert third not in (first, second)


def test_objects_are_found_by_prefix_in_order_with_size_and_time(objects: Objects) -> None:
    keys = ["a/1", "a/10", "a/2/x", "ab", "b/1"]
    for key in reversed(keys):
        objects.put(key, key.encode())
    assert [each.key for each in objects.find("")] == keys
    assert [each.key for each in objects.find("a/")] == keys[:3]
    assert [each.key for each in objects.find("a/1")] == keys[:2]
    assert [each.key for each in objects.find("a")] == keys[:4]
    assert objects.find("c") == objects.find("a/1/") == []
    assert [each.size for each in objects.find("a/")] == [3, 4, 5]
    assert all(abs(each.modified - datetime.now(UTC)) < timedelta(hours=1) for each in objects.find(""))


def test_deleting_removes_what_is_named_and_nothing_else(objects: Objects) -> None:
    for key in ("a/b/c", "a/b/d", "a/e"):
        objects.put(key, b"x")
    objects.delete(["a/b/c", "a/b/d", "a/b/none", "nowhere/at/all"])
    objects.delete([])
    assert [each.key for each in objects.find("")] == ["a/e"]
    objects.put("a/b/c", b"again")
    assert objects.get("a/b/c")[0] == b"again"


def test_more_objects_than_a_request_can_name_are_found_and_deleted(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "_MOST_DELETED", 3)
    keys = [f"many/{number:02d}" for number in range(8)]
    for key in keys:
        objects.put(key, b"")
    objects.delete(keys[:-1])
    assert [each.key for each in objects.find("many/")] == keys[-1:]


def test_an_object_is_made_once(make: Make) -> None:
    make().put("lock", b"mine", if_absent=True)
    with pytest.raises(ConflictError):
        make().put("lock", b"yours", if_absent=True)
    assert make().get("lock")[0] == b"mine"
    make().delete(["lock"])
    make().put("lock", b"yours", if_absent=True)


def test_an_object_is_replaced_by_whoever_knows_its_tag(make: Make) -> None:
    objects = make()
    with pytest.raises(ConflictError):
        objects.put("k", b"x", if_match="never")
    assert objects.find("") == []
    first = objects.put("k", b"one")
    second = objects.put("k", b"two", if_match=first)
    with pytest.raises(ConflictError):
        make().put("k", b"three", if_match=first)
    assert make().get("k") == (b"two", second)
    objects.delete(["k"])
    with pytest.raises(ConflictError):
        objects.put("k", b"four", if_match=second)


@pytest.mark.parametrize("conditional", ["absent", "match"])
def test_of_many_who_write_at_once_one_succeeds(make: Make, conditional: str) -> None:
    tag = make().put("k", b"before") if conditional == "match" else None
    stores, won, begin = [make() for _ in range(4)], [], threading.Barrier(4)

    def race(number: int) -> None:
        begin.wait()
        try:
            stores[number].put("k", b"%d" % number, if_absent=tag is None, if_match=tag)
        except ConflictError:
            return
        won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert make().get("k")[0] == b"%d" % won[0]


def test_what_was_begun_and_never_finished_is_a_leftover_and_no_object(make: Make, tmp_path: Path) -> None:
    objects = make()
    objects.put("trials/1/whole", b"x")
    if isinstance(objects, MemoryObjects):
        assert objects.leftovers("") == []
        return
    _leave(objects, "trials/1/half")
    assert [each.key for each in objects.find("")] == ["trials/1/whole"]
    assert objects.leftovers("trials/2") == []
    (left,) = make().leftovers("trials/1")
    assert "half" in left.key
    make().discard(left)
    assert objects.leftovers("") == []
    assert [each.key for each in objects.find("")] == ["trials/1/whole"]


def _leave(objects: Objects, key: str) -> None:
    """What a writer leaves that is killed."""
    if isinstance(objects, S3Objects):
        objects._client.create_multipart_upload(**objects._place(key))
    else:
        folder, name = key.rsplit("/", 1)
        path = objects.local(folder)
        assert path is not None
        (path / f".{name}.123").write_bytes(b"half")


def test_only_objects_that_are_files_are_local(make: Make) -> None:
    objects = make()
    objects.put("a/b", b"x")
    local = objects.local("a/b")
    assert (local is not None) == isinstance(objects, FolderObjects)
    assert local is None or local.read_bytes() == b"x"
    assert objects.uri("a/b").endswith("a/b")


def test_every_store_passes_its_probe_and_nothing_is_left(objects: Objects) -> None:
    probe(objects)
    assert objects.find("") == []


@pytest.mark.parametrize("condition", ["if_absent", "if_match"])
def test_the_probe_finds_a_store_that_ignores_a_condition(condition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = MemoryObjects()
    put = objects.put
    monkeypatch.setattr(
        objects, "put", lambda key, data, **conditions: put(key, data, **conditions | {condition: None})
    )
    with pytest.raises(InputError, match="overwritten by a put"):
        probe(objects)
    assert objects.data == {}


def test_the_probe_finds_a_store_that_gives_back_another_content(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = MemoryObjects()
    get = objects.get
    monkeypatch.setattr(objects, "get", lambda key: (b"", get(key)[1]))
    with pytest.raises(InputError, match="not what was written"):
        probe(objects)
    assert objects.data == {}


@pytest.mark.parametrize("operation", ["find", "put", "get", "delete"])
def test_the_probe_cleans_a_store_that_fails_in_the_middle_as_far_as_it_allows(operation: str) -> None:
    def fail_once(called: str, key: str) -> None:
        if called == operation and not failures:
            failures.append(called)
            raise UnavailableError("gone")

    failures: list[str] = []
    objects = MemoryObjects()
    with pytest.raises(UnavailableError, match="gone"):
        probe(Watched(objects, fail_once))  # type: ignore[arg-type]
    assert operation == "delete" or objects.data == {}
