"""The trained extractor lies in the store by its sha256: whole or not at all, and no garbage."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from orchestrator.store import Objects, TrialStore, orphans
from orchestrator.store.extractors import fetch_weights, keep_weights, weights_beside
from orchestrator.store.folder import FolderObjects
from orchestrator.store.s3 import S3Objects

CONTENT = bytes(range(256)) * 300
SHA256 = hashlib.sha256(CONTENT).hexdigest()
KEY = f"extractors/{SHA256}.safetensors"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(CONTENT)
    return path


def test_what_is_kept_is_fetched_and_lies_under_its_sha256(objects: Objects, file: Path) -> None:
    assert fetch_weights(objects, SHA256) is None
    keep_weights(objects, SHA256, file)
    assert fetch_weights(objects, SHA256) == CONTENT
    assert [each.key for each in objects.find("")] == [KEY]


@pytest.mark.parametrize("damaged", [b"", CONTENT[:-1], CONTENT[:-1] + b"!"], ids=["empty", "cut", "a byte"])
def test_damaged_weights_count_as_none_and_are_put_again(objects: Objects, file: Path, damaged: bytes) -> None:
    objects.put(KEY, damaged)
    assert fetch_weights(objects, SHA256) is None
    keep_weights(objects, SHA256, file)
    assert fetch_weights(objects, SHA256) == CONTENT


def test_whole_weights_are_not_put_again(tmp_path: Path, file: Path) -> None:
    inner = FolderObjects(tmp_path / "store")
    keep_weights(inner, SHA256, file)
    before = (tmp_path / "store" / KEY).stat()
    keep_weights(inner, SHA256, file)
    after = (tmp_path / "store" / KEY).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_garbage_collection_keeps_them_and_takes_what_was_never_finished(objects: Objects, file: Path) -> None:
    store = TrialStore(objects, file.parent / "scratch")
    keep_weights(objects, SHA256, file)
    assert orphans(store, {}) == []
    if isinstance(objects, S3Objects):
        objects._client.create_multipart_upload(**objects._place("extractors/half"))
    else:
        folder = objects.local("extractors")
        assert folder is not None
        (folder / ".half.123").write_bytes(b"half")
    (orphan,) = orphans(store, {})
    assert orphan.why == "never finished"
    orphan.delete()
    assert orphans(store, {}) == []
    assert fetch_weights(objects, SHA256) == CONTENT


def test_a_checkpoint_of_a_folder_leads_to_the_weights_beside_it(tmp_path: Path, file: Path) -> None:
    checkpoint = tmp_path / "store/trials/00003/checkpoints/0000000200"
    checkpoint.mkdir(parents=True)
    assert weights_beside(checkpoint, SHA256[:12]) is None
    keep_weights(FolderObjects(tmp_path / "store"), SHA256, file)
    for place in (checkpoint, checkpoint.parents[1]):
        assert weights_beside(place, SHA256[:12]) == CONTENT
    assert weights_beside(checkpoint, "f" * 12) is None
    (tmp_path / "store" / KEY).write_bytes(CONTENT[1:])
    assert weights_beside(checkpoint, SHA256[:12]) is None
