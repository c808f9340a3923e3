"""Servers that are not Amazon's: without the SDK's checksums, without DeleteObjects, without conditions of writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.store import ConflictError, TrialStore, UnavailableError, check_store
from orchestrator.store import s3 as s3_module
from orchestrator.store.ownership import OWNER, ForeignStoreError, claim_owner
from orchestrator.store.s3 import S3Objects
from search_spaces.sweep import Sweep
from tests.support import made_up
from tests.support.objects import left_by, value_in
from tests.support.small_s3 import BUCKET, SmallS3, small_s3
from trainers.errors import InputError

CHECKSUMS = ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION")


@pytest.fixture(autouse=True)
def anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials, and no other settings of AWS."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anybody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
    for name in (*CHECKSUMS, "AWS_PROFILE", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)


def opened(server: SmallS3, *, unfenced: bool = False) -> S3Objects:
    return S3Objects(BUCKET, "a/b", server.endpoint, unfenced)


def sweep(server: SmallS3, more: str = "") -> Sweep:
    return made_up.sweep(f"store={{path: s3://{BUCKET}/a, endpoint: '{server.endpoint}'{more}}}")


def test_trials_are_published_and_fetched_without_checksums_and_without_deleting_many(tmp_path: Path) -> None:
    with small_s3() as server:
        store = TrialStore(opened(server), tmp_path / "one")
        store.claim(3, 1)
        for images in (100, 200, 300, 400):
            store.publish(3, 1, left_by(images, images / 100), ())
        with TrialStore(opened(server), tmp_path / "two").newest(3) as found:
            assert found is not None
            assert value_in(found) == 4.0
        kept = {key.split("/checkpoints/")[1][:10] for key in server.objects if "/checkpoints/" in key}
        assert kept == {"0000000300", "0000000400"}, "the others are deleted one by one"


def test_a_server_is_asked_once_whether_it_deletes_many() -> None:
    with small_s3() as server:
        objects = opened(server)
        for key in ("x", "y", "z"):
            objects.put(key, b"1")
        objects.delete(["x", "y"])
        objects.delete(["z", "there is none"])
        assert [each for each in server.asked if each.startswith("POST")] == ["POST delete"]
        assert server.objects == {}


def test_objects_are_deleted_together_if_the_server_can(monkeypatch: pytest.MonkeyPatch) -> None:
    with small_s3(checksums=True, deletes_many=True) as server:
        objects = opened(server)
        for key in ("x", "y"):
            objects.put(key, b"1")
        objects.delete(["x", "y"])
        assert not [each for each in server.asked if each.startswith("DELETE")]
        assert server.objects == {}


@pytest.mark.parametrize("setting", CHECKSUMS)
@pytest.mark.parametrize("place", ["environment", "file"])
def test_aws_s_own_settings_come_first_and_are_named_if_they_fail(
    setting: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "environment":
        monkeypatch.setenv(setting, "when_supported")
    else:
        (tmp_path / "config").write_text(f"[default]\n{setting.removeprefix('AWS_').lower()} = when_supported\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with small_s3() as server, pytest.raises(InputError, match=CHECKSUMS[0]) as caught:
        check_store(sweep(server))
    assert "is not implemented" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_cannot_be_written_is_told_from_one_that_cannot_delete_many() -> None:
    with small_s3() as server, pytest.raises(UnavailableError, match="NoSuchBucket"):
        S3Objects("another", "", server.endpoint).delete(["x"])


@pytest.mark.parametrize("conditions", ["ignored", "refused"])
def test_a_server_without_conditions_is_used_only_if_the_sweep_accepts_that(conditions: str) -> None:
    with small_s3(conditions=conditions) as server:
        with pytest.raises(InputError, match=r"two attempts at a trial may write at once.*store\.unfenced: true"):
            check_store(sweep(server))
        assert server.objects == {}
        check_store(sweep(server, ", unfenced: true"))
        assert server.objects == {}


@pytest.mark.parametrize("conditions", ["ignored", "refused"])
def test_without_conditions_a_put_looks_first(conditions: str) -> None:
    with small_s3(conditions=conditions) as server:
        objects = opened(server, unfenced=True)
        with pytest.raises(ConflictError):
            objects.put("k", b"x", if_match="never")
        first = objects.put("k", b"one", if_absent=True)
        second = objects.put("k", b"two", if_match=first)
        for late in ({"if_absent": True}, {"if_match": first}):
            with pytest.raises(ConflictError):
                objects.put("k", b"three", **late)  # type: ignore[arg-type]
        assert objects.get("k") == (b"two", second)


@pytest.mark.parametrize("claim", ["owner", "attempt"])
def test_of_two_who_look_before_either_writes_the_last_one_has_it(
    claim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one writes while the first one waits to look again."""
    with small_s3(conditions="ignored") as server:
        objects, other = opened(server, unfenced=True), opened(server)

        def be_overtaken(seconds: float) -> None:
            assert seconds == s3_module.SETTLE
            key, data = (OWNER, b'{"format": 1, "id": "b"}') if claim == "owner" else ("trials/00003/attempt", b"2")
            other.put(key, data)

        monkeypatch.setattr("time.sleep", be_overtaken)
        if claim == "owner":
            with pytest.raises(ForeignStoreError, match="belongs to another sweep"):
                claim_owner(objects, "a", lambda number: None)
        else:
            store = TrialStore(objects, tmp_path)
            with pytest.raises(Exception, match=re.escape("attempt 1 was superseded by attempt 2")):
                store.claim(3, 1)


@pytest.mark.parametrize("path", ["null", "some/folder"])
def test_a_folder_always_has_conditions(path: str) -> None:
    with pytest.raises(InputError, match=r"store\.unfenced: applies only to s3://BUCKET/PREFIX"):
        made_up.sweep(f"store={{path: {path}, unfenced: true}}")
