"""Garbage collection deletes what belongs to nothing, all of that, and nothing else."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from orchestrator.driver.gc import collect
from orchestrator.driver.ownership import take_store
from orchestrator.store import Objects, TrialStore, orphans, store_of
from orchestrator.store.folder import FolderObjects
from orchestrator.store.s3 import S3Objects
from orchestrator.study.lease import hold_lease
from orchestrator.study.study import SweepStudy
from tests.support import made_up
from tests.support.objects import left_by, value_in
from tests.support.servers import S3Server
from trainers.checkpoint import MANIFEST, STATE, folder_name, prune
from trainers.errors import InputError


@pytest.fixture
def store(objects: Objects, tmp_path: Path) -> TrialStore:
    """Of trials 0 and 1 with two checkpoints and samples each, whose best is the first."""
    store = TrialStore(objects, tmp_path / "scratch")
    for number in (0, 1):
        store.claim(number, 1)
        for images in (100, 200, 300):
            publish(store, number, images)
        store.request(number, 200, 1000)
    return store


KEPT = {0: [100], 1: [100]}


def publish(store: TrialStore, number: int, images: int) -> None:
    def write(folder: Path) -> Path:
        written = left_by(images, images / 100)(folder)
        prune(folder / "checkpoints", [100])
        return written

    store.publish(number, 1, write, [100])


def keys(objects: Objects) -> set[str]:
    return {each.key for each in [*objects.find(""), *objects.leftovers("")]}


def deleted(store: TrialStore, kept: dict[int, list[int]] = KEPT) -> dict[str, str]:
    """Deletes all orphans; returns what each was by its last words."""
    found = orphans(store, kept)
    for orphan in found:
        orphan.delete()
    return {orphan.where.rstrip("/").rsplit("/", 1)[-1]: orphan.why for orphan in found}


def test_a_sound_store_has_no_orphans(store: TrialStore) -> None:
    assert orphans(store, KEPT) == []


def test_orphans_of_every_kind_are_found_and_nothing_else_is_deleted(store: TrialStore, objects: Objects) -> None:
    sound = keys(objects)
    publish(store, 7, 100)
    objects.put(f"trials/00000/checkpoints/{folder_name(400)}-0123abcd/{STATE}", b"no manifest came")
    objects.put("probe/1234", b"probe")
    objects.put("trials/odd/thing", b"?")
    if isinstance(objects, S3Objects):
        for key in ("trials/00001/half", "study"):
            objects._client.create_multipart_upload(**objects._place(key))
    else:
        half = objects.local(".study.0123")
        assert half is not None
        half.write_bytes(b"half")
        folder = objects.local("trials/00001/checkpoints")
        assert folder is not None
        (folder / f".{folder_name(400)}.123").mkdir()
        (folder / f".{folder_name(400)}.123" / STATE).write_bytes(b"half")
    sizes = {orphan.where.rsplit("/", 1)[-1]: orphan.size for orphan in orphans(store, KEPT)}
    assert sizes["1234"] == 5
    said = deleted(store)
    assert said["00007"] == said["odd"] == "a trial that the study does not know"
    assert said[f"{folder_name(400)}-0123abcd"] == "a checkpoint that was never finished"
    assert said["1234"] == "left by a check of the store"
    assert list(said.values()).count("never finished") == 2
    assert len(said) == 6
    assert keys(objects) == sound
    assert orphans(store, KEPT) == []


def test_checkpoints_that_a_killed_publisher_should_have_deleted_are_orphans(
    store: TrialStore, objects: Objects
) -> None:
    store.publish(0, 1, left_by(400, 4.0), [100, 200, 300])
    assert list(deleted(store).values()) == ["a checkpoint that is superseded"]
    there = {int(each.key.split("/")[3][:10]) for each in objects.find("trials/00000/checkpoints/")}
    assert there == {100, 300, 400}


def test_a_checkpoint_that_only_stepped_aside_is_put_back(tmp_path: Path) -> None:
    store = TrialStore(FolderObjects(tmp_path / "store"), tmp_path / "scratch")
    publish(store, 0, 100)
    folder = tmp_path / "store/trials/00000/checkpoints" / folder_name(100)
    os.replace(folder, folder.with_name(f".{folder.name}.123.old"))
    deleted(store, {0: [100]})
    with store.newest(0) as found:
        assert found is not None
        assert value_in(found) == 1.0


def test_what_waits_on_this_machine_for_nobody_is_an_orphan(s3: S3Server, tmp_path: Path) -> None:
    store = TrialStore(S3Objects(s3.bucket(f"b-{uuid.uuid4().hex}"), "", s3.endpoint), tmp_path)
    for number, attempt in ((0, 1), (0, 2), (9, 1)):
        left_by(100, 1.0)(store.spool.of(number, attempt))
    store.objects.put("trials/00000/attempt", b"2")
    (tmp_path / "fetched/00001").mkdir(parents=True)
    assert sorted(deleted(store)) == ["00000-1", "00001", "00009-1"]
    assert store.spool.waiting() == [(0, 2)]


@pytest.fixture
def sweep(tmp_path: Path) -> SweepStudy:
    """A sweep of one trial that the study knows, with a checkpoint, and one that it does not."""
    (tmp_path / "made-up").mkdir()
    study = SweepStudy.create(tmp_path / "made-up", made_up.sweep())
    with hold_lease("made-up", study.folder, study.lease_records) as lease:
        study.drive(lease)
        take_store(study)
        ticket = study.next_ticket()
    assert ticket is not None
    store = store_of(study.sweep, study.folder)
    for number in (ticket.number, 7):
        publish(store, number, 1000)
    return study


def test_a_dry_run_names_everything_and_deletes_nothing(sweep: SweepStudy) -> None:
    objects, said = store_of(sweep.sweep, sweep.folder).objects, list[str]()
    before = keys(objects)
    collect(sweep.folder, None, True, said.append)
    assert keys(objects) == before
    assert "a trial that the study does not know" in said[0]
    assert said[-1].startswith("1 orphans")
    assert said[-1].endswith("would be deleted")
    collect(sweep.folder, None, False, said.append)
    assert {key for key in before if not key.startswith("trials/00007")} == keys(objects)
    assert any(key.endswith(MANIFEST) for key in keys(objects))
    collect(sweep.folder, None, False, said.append)
    assert said[-1].startswith("0 orphans")


def test_nothing_is_deleted_under_a_driver_or_without_a_sweep(sweep: SweepStudy, tmp_path: Path) -> None:
    before = keys(store_of(sweep.sweep, sweep.folder).objects)
    with (
        hold_lease("made-up", sweep.folder, sweep.lease_records),
        pytest.raises(InputError, match="already driven by process"),
    ):
        collect(sweep.folder, None, False, lambda _: None)
    assert keys(store_of(sweep.sweep, sweep.folder).objects) == before
    with pytest.raises(InputError, match="no sweep called 'nothing'"):
        collect(tmp_path / "nothing", None, True, lambda _: None)
