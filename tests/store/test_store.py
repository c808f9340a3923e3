"""Laws of the store of a sweep, the same in a folder, on a real S3 server and in memory."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.store import (
    Objects,
    StaleAttemptError,
    TrialStore,
    store_of,
)
from orchestrator.store.checkpoints import contents
from orchestrator.store.folder import FolderObjects
from orchestrator.store.s3 import S3Objects
from search_spaces.settings import Keep, Store
from tests.support import made_up
from tests.support.objects import MemoryObjects, Watched, left_by, value_in
from tests.support.servers import S3Server
from trainers.checkpoint import MANIFEST, STATE, folder_name, prune
from trainers.errors import InputError

TRIAL = "trials/00003"
Open = Callable[..., TrialStore]


@pytest.fixture(params=["folder", "s3", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "folder":
        return FolderObjects(tmp_path / "store")
    if request.param == "memory":
        return MemoryObjects()
    server: S3Server = request.getfixturevalue("s3")
    return S3Objects(server.bucket(f"b-{uuid.uuid4().hex}"), "prefix", server.endpoint)


@pytest.fixture
def machine(objects: Objects, tmp_path: Path) -> Open:
    """Opens the store from a machine of a name, which has its own scratch folder."""

    def open_store(name: str = "one", **keep: int) -> TrialStore:
        store = TrialStore(objects, tmp_path / name, Store(keep=Keep(**keep)))
        store.patience = 0
        return store

    return open_store


def publish(store: TrialStore, images: int, value: float, attempt: int = 1, best: tuple[int, ...] = ()) -> None:
    """As a trial does: what a store of files need not keep is deleted by whoever writes there."""

    def write(folder: Path) -> Path:
        written = left_by(images, value)(folder)
        prune(folder / "checkpoints", best, store.keep.last)
        return written

    store.publish(3, attempt, write, best)


def newest(store: TrialStore) -> float | None:
    with store.newest(3) as found:
        return None if found is None else value_in(found)


def images_there(objects: Objects) -> set[int]:
    return {int(name[:10]) for name in contents(objects, TRIAL)}


def damage(objects: Objects, images: int, file: str, how: Callable[[bytes], bytes]) -> None:
    """Changes a file of the checkpoint at `images` behind the store's back."""
    for each in objects.find(f"{TRIAL}/checkpoints/{folder_name(images)}"):
        if each.key.endswith(file):
            objects.put(each.key, how(objects.get(each.key)[0]))


def test_a_later_attempt_fences_off_an_earlier_one(machine: Open) -> None:
    store = machine()
    store.claim(3, 1)
    store.check(3, 1)
    machine("two").claim(3, 2)
    store.check(3, 2)
    with pytest.raises(StaleAttemptError, match="attempt 1 was superseded by attempt 2"):
        store.check(3, 1)
    with pytest.raises(StaleAttemptError):
        store.claim(3, 1)
    store.check(4, 1)


def test_an_attempt_that_was_superseded_publishes_nothing(machine: Open, objects: Objects) -> None:
    store = machine()
    store.claim(3, 1)
    publish(store, 100, 1.0)
    machine("two").claim(3, 2)
    before = {each.key: objects.get(each.key) for each in objects.find("")}
    with pytest.raises(StaleAttemptError):
        publish(store, 200, 2.0, attempt=1)
    assert {each.key: objects.get(each.key) for each in objects.find("")} == before
    assert store.spool.waiting() == []
    assert newest(machine("two")) == 1.0


def test_a_request_reaches_the_trial_for_its_rung_alone(machine: Open) -> None:
    driver, trial = machine("driver"), machine("trial")
    assert trial.requested(3, 100) is None
    driver.request(3, 100, 4000)
    assert trial.requested(3, 100) == 4000
    assert trial.requested(3, 200) is None
    assert trial.requested(4, 100) is None
    driver.request(3, 200, 8000)
    assert (trial.requested(3, 100), trial.requested(3, 200)) == (None, 8000)


def test_grids_are_found_by_images_from_every_machine(machine: Open) -> None:
    assert machine().grids(3) == {}
    for images in (100, 2000):
        publish(machine(), images, images / 100)
    for _ in range(2):
        found = machine("driver").grids(3)
        assert list(found) == [100, 2000]
        assert [Image.open(path).getpixel((0, 0)) for path in found.values()] == [(1, 1, 1), (20, 20, 20)]
    assert machine("driver").grids(4) == {}


def test_half_written_grids_are_not_found(tmp_path: Path) -> None:
    store, samples = store_of(made_up.sweep(), tmp_path), tmp_path / "store/trials/00007/samples"
    samples.mkdir(parents=True)
    for name in ("0000010000.png", "0000002000.png", ".0000020000.png.tmp"):
        (samples / name).touch()
    assert list(store.grids(7)) == [2000, 10000]


def test_the_key_of_a_grid_chooses_no_place_on_this_machine(tmp_path: Path) -> None:
    objects = MemoryObjects()
    for name in ("../../../evil.png", "/evil.png", "0000000100.png/../../evil.png", "evil.png", "0000000200.png"):
        objects.put(f"{TRIAL}/samples/{name}", b"pixels")
    assert list(TrialStore(objects, tmp_path / "scratch").grids(3)) == [200]
    assert [path.name for path in tmp_path.rglob("*.png")] == ["0000000200.png"]


def test_what_is_published_is_fetched_on_another_machine(machine: Open, tmp_path: Path) -> None:
    assert newest(machine()) is None
    publish(machine(), 100, 1.0)
    publish(machine(), 200, 2.0)
    assert newest(machine("two")) == 2.0
    with machine("two").at(3, 100) as found:
        assert value_in(found) == 1.0
    with pytest.raises(InputError, match=f"no checkpoint called checkpoints/{folder_name(300)}"), machine().at(3, 300):
        pass
    left = [path for path in tmp_path.rglob("*") if path.is_file() and "store" not in path.parts]
    assert all(path.name.endswith(".lock") for path in left), left


def test_a_checkpoint_has_a_place_that_others_can_be_told(machine: Open, objects: Objects) -> None:
    publish(machine(), 100, 1.0)
    place = machine("two").location(3, 100)
    assert place is not None
    assert f"trials/00003/checkpoints/{folder_name(100)}" in place
    assert machine("two").location(3, 200) is None


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "truncated state": (STATE, lambda data: data[:-1]),
    "flipped state": (STATE, lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    "empty state": (STATE, lambda data: b""),
    "truncated manifest": (MANIFEST, lambda data: data[:-5]),
    "flipped manifest": (MANIFEST, lambda data: data.replace(b'"value": 2.0', b'"value": 3.0')),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning_and_made_again(
    machine: Open, objects: Objects, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    for images in (100, 200):
        publish(machine(), images, images / 100)
    damage(objects, 200, *DAMAGES[how])
    assert newest(machine("two")) == 1.0
    assert "damaged checkpoint passed over" in caplog.text
    assert folder_name(200) in caplog.text
    with pytest.raises(InputError, match=folder_name(200)), machine("two").at(3, 200):
        pass
    publish(machine("two"), 200, 2.0)
    assert newest(machine("three")) == 2.0


@pytest.mark.parametrize("file", [STATE, MANIFEST])
def test_the_loss_of_the_latest_checkpoint_is_noticed(
    machine: Open, objects: Objects, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    for images in (100, 200):
        publish(machine(), images, images / 100)
    objects.delete([each.key for each in objects.find(f"{TRIAL}/checkpoints/{folder_name(200)}") if file in each.key])
    assert newest(machine("two")) == 1.0
    assert folder_name(200) in caplog.text


@pytest.mark.parametrize("latest", [None, b"", b"\xff\xfe", b"../../secret", b"0000000900-00000000"])
def test_checkpoints_are_found_without_a_sound_latest(machine: Open, objects: Objects, latest: bytes | None) -> None:
    for images in (100, 200):
        publish(machine(), images, images / 100)
    objects.delete([f"{TRIAL}/latest"])
    if latest is not None:
        objects.put(f"{TRIAL}/latest", latest)
    assert newest(machine("two")) == 2.0


def test_of_two_states_of_one_rung_the_one_published_last_counts(machine: Open, objects: Objects) -> None:
    for value in (1.0, 2.0, 1.0):
        publish(machine(), 100, value)
        assert newest(machine("two")) == value
    assert len(contents(objects, TRIAL)) == 1


@pytest.mark.parametrize(
    ("keep", "best", "kept"),
    [
        ({}, (), {400, 500}),
        ({}, (100,), {100, 400, 500}),
        ({}, (100, 500), {100, 400, 500}),
        ({"last": 1}, (200,), {200, 500}),
        ({"last": 3}, (), {300, 400, 500}),
    ],
)
def test_the_newest_and_the_best_checkpoints_are_kept(
    machine: Open, objects: Objects, keep: dict[str, int], best: tuple[int, ...], kept: set[int]
) -> None:
    for images in (100, 200, 300, 400, 500):
        publish(machine(**keep), images, images / 100, best=best)
    assert images_there(objects) == kept
    assert len(machine("two").grids(3)) == 5


def test_a_rung_that_is_measured_again_sends_its_state_once(tmp_path: Path) -> None:
    sent: list[str] = []
    memory = MemoryObjects()
    store = TrialStore(Watched(memory, lambda operation, key: sent.append(f"{operation} {key}")), tmp_path)
    store.publish(3, 1, left_by(100, 1.0), ())
    store.publish(3, 1, left_by(100, 1.0, history=(5.0,)), ())
    assert sum("put_file" in call and STATE in call for call in sent) == 1
    assert sum(call.startswith("put ") and MANIFEST in call for call in sent) == 2
    with store.newest(3) as found:
        assert found is not None
        assert b"5.0" in (found / MANIFEST).read_bytes()


def test_data_are_published_before_the_manifest_and_the_manifest_before_latest(tmp_path: Path) -> None:
    puts: list[str] = []

    def note(operation: str, key: str) -> None:
        if operation.startswith("put"):
            puts.append(key.rsplit("/", 1)[1])

    TrialStore(Watched(MemoryObjects(), note), tmp_path).publish(3, 1, left_by(100, 1.0), ())
    assert puts == ["0000000100.png", STATE, MANIFEST, "latest"]


def test_a_store_named_in_the_sweep_keeps_sweeps_apart(tmp_path: Path, s3: S3Server) -> None:
    assert store_of(made_up.sweep(f"store.path={tmp_path}"), Path("x")).objects.local("") == tmp_path / "made-up"
    assert store_of(made_up.sweep(), Path("x")).objects.local("") == Path("x/store")
    found = store_of(made_up.sweep("store.path=s3://bucket/some/where/"), tmp_path)
    assert found.objects.uri("trials") == "s3://bucket/some/where/made-up/trials"
    assert store_of(made_up.sweep("store.path=s3://bucket"), tmp_path).objects.uri("x") == "s3://bucket/made-up/x"
