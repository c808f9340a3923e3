"""A store that is away ends nothing: what trials leave waits on their machine, in order, within bounds."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
from PIL import Image
from safetensors import SafetensorError

from orchestrator.store import SpoolFullError, StaleAttemptError, TrialStore, UnavailableError, spool
from orchestrator.store.checkpoints import contents
from orchestrator.store.folder import FolderObjects
from search_spaces.settings import Spool, Store
from tests.support.objects import MemoryObjects, Watched, left_by, value_in
from trainers import checkpoint
from trainers.checkpoint import prune

TRIAL = "trials/00003"


class Network:
    """Lets operations through, or not; `until` so many have failed."""

    def __init__(self) -> None:
        self.away, self.back_after = False, 10**9
        self.done: list[str] = []

    def __call__(self, operation: str, key: str) -> None:
        if self.away:
            self.back_after -= 1
            self.away = self.back_after > 0
            raise UnavailableError("nobody answers")
        self.done.append(f"{operation} {key}")

    def leaves(self, back_after: int = 10**9) -> None:
        self.away, self.back_after = True, back_after


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_LONGEST_PAUSE_S", 0.001)


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def memory() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def store(network: Network, memory: MemoryObjects, tmp_path: Path) -> TrialStore:
    return opened(network, memory, tmp_path)


def opened(
    network: Network, memory: MemoryObjects, tmp_path: Path, max_gb: float = 10, patience: float = 0
) -> TrialStore:
    store = TrialStore(Watched(memory, network), tmp_path, Store(spool=Spool(max_gb=max_gb)))
    store.patience = patience
    return store


def write(images: int, best: tuple[int, ...] = ()) -> Callable[[Path], Path]:
    def written(folder: Path) -> Path:
        found = left_by(images, images / 100)(folder)
        prune(folder / "checkpoints", best)
        return found

    return written


def newest(memory: MemoryObjects, tmp_path: Path) -> float | None:
    with TrialStore(memory, tmp_path / "elsewhere").newest(3) as found:
        return None if found is None else value_in(found)


def test_a_trial_goes_on_without_its_store_and_nothing_is_lost(
    store: TrialStore, network: Network, memory: MemoryObjects, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.claim(3, 1)
    store.publish(3, 1, write(100), ())
    network.leaves()
    for images in (200, 300, 400):
        store.publish(3, 1, write(images), ())
    assert newest(memory, tmp_path) == 1.0
    assert "trial 3 waits in the spool" in caplog.text
    assert store.spool.waiting() == [(3, 1)]
    network.away = False
    store.publish(3, 1, write(500), ())
    assert store.spool.waiting() == []
    assert newest(memory, tmp_path) == 5.0
    assert sorted(store.grids(3)) == [100, 200, 300, 400, 500]


def test_what_waited_is_published_in_order(
    store: TrialStore, network: Network, memory: MemoryObjects, tmp_path: Path
) -> None:
    store.claim(3, 1)
    network.leaves()
    for images in (100, 200):
        store.publish(3, 1, write(images), ())
    network.away, network.done = False, []
    store.publish(3, 1, write(300, best=(100, 200)), (100, 200))
    manifests = [int(call.split("/")[3][:10]) for call in network.done if call.startswith("put ") and "manif" in call]
    assert manifests == [100, 200, 300]


def test_the_spool_keeps_no_more_checkpoints_than_the_store_would(store: TrialStore, network: Network) -> None:
    store.claim(3, 1)
    network.leaves()
    for images in range(100, 1100, 100):
        store.publish(3, 1, write(images, best=(300,)), (300,))
    folder = store.spool.of(3, 1)
    assert sorted(int(path.name) for path in (folder / "checkpoints").iterdir()) == [300, 900, 1000]
    assert len(list((folder / "samples").iterdir())) == 10


def test_a_full_spool_is_said_with_what_can_be_done_and_holds_nothing_broken(
    network: Network, memory: MemoryObjects, tmp_path: Path
) -> None:
    store = opened(network, memory, tmp_path, max_gb=2e-6)
    store.claim(3, 1)
    network.leaves()
    store.publish(3, 1, write(100), ())
    best = (100, 200, 300)

    def go_on() -> None:
        for images in (200, 300, 400, 500):
            store.publish(3, 1, write(images, best), best)

    with pytest.raises(SpoolFullError) as caught:
        go_on()
    said = str(caught.value)
    for word in (str(tmp_path / "spool"), "2e-06 GB", "memory:", "nobody answers", "raise store.spool.max_gb"):
        assert word in said
    assert "\n" not in said
    kept = sorted((store.spool.of(3, 1) / "checkpoints").iterdir())
    assert len(kept) >= 2
    assert [value_in(folder) for folder in kept] == [int(folder.name) / 100 for folder in kept]
    network.away = False
    opened(network, memory, tmp_path).claim(3, 2)
    assert newest(memory, tmp_path) == int(kept[-1].name) / 100


def test_a_full_spool_waits_for_the_store_before_it_gives_up(
    network: Network, memory: MemoryObjects, tmp_path: Path
) -> None:
    store = opened(network, memory, tmp_path, max_gb=1e-9, patience=60)
    store.claim(3, 1)
    network.leaves(back_after=5)
    store.publish(3, 1, write(100), ())
    assert newest(memory, tmp_path) == 1.0


@pytest.mark.parametrize("final", [True, False])
def test_the_last_rung_alone_waits_for_the_store(
    network: Network, memory: MemoryObjects, tmp_path: Path, final: bool
) -> None:
    store = opened(network, memory, tmp_path, patience=60)
    store.claim(3, 1)
    network.leaves(back_after=5)
    store.publish(3, 1, write(100), (), final=final)
    assert newest(memory, tmp_path) == (1.0 if final else None)


def test_the_last_rung_of_a_store_that_stays_away_is_left_for_later(
    store: TrialStore, network: Network, memory: MemoryObjects, tmp_path: Path
) -> None:
    store.claim(3, 1)
    network.leaves()
    store.publish(3, 1, write(100), (), final=True)
    store.drain(wait=True)
    assert newest(memory, tmp_path) is None
    network.away = False
    store.drain(wait=False)
    assert newest(memory, tmp_path) == 1.0


# The disk


def full_disk(*_: object, **__: object) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_a_full_disk_gives_the_same_sentence_and_leaves_nothing_broken(
    store: TrialStore, network: Network, memory: MemoryObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.claim(3, 1)
    network.leaves()
    store.publish(3, 1, write(100), ())
    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", full_disk)
        with pytest.raises(SpoolFullError, match=r"the spool .* is full: .*No space left on device.*free the disk"):
            store.publish(3, 1, write(200), ())
    left = [path.name for path in (store.spool.of(3, 1) / "checkpoints").iterdir()]
    assert left == [checkpoint.folder_name(100)]
    network.away = False
    opened(network, memory, tmp_path).claim(3, 2)
    assert newest(memory, tmp_path) == 1.0


def test_a_full_disk_is_emptied_into_the_store_and_the_trial_goes_on(
    network: Network, memory: MemoryObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(network, memory, tmp_path, patience=60)
    store.claim(3, 1)
    network.leaves(back_after=1)
    store.publish(3, 1, write(100), ())
    save = safetensors.torch.save_file

    def save_where_there_is_room(*arguments: object, **options: object) -> None:
        if newest(memory, tmp_path) is None:
            full_disk()
        save(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(safetensors.torch, "save_file", save_where_there_is_room)
    store.publish(3, 1, write(200), ())
    assert newest(memory, tmp_path) == 2.0
    assert store.spool.waiting() == []


def test_a_full_disk_under_a_folder_of_checkpoints_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TrialStore(FolderObjects(tmp_path / "store"), tmp_path)
    store.publish(3, 1, write(100), ())
    monkeypatch.setattr(safetensors.torch, "save_file", full_disk)
    with pytest.raises(SpoolFullError, match=r"the disk of the store .* is full"):
        store.publish(3, 1, write(200), ())
    with store.newest(3) as found:
        assert found is not None
        assert value_in(found) == 1.0


def test_other_faults_of_a_disk_are_not_taken_for_a_full_one(
    store: TrialStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(safetensors.torch, "save_file", broken)
    with pytest.raises(OSError, match="Input/output error") as caught:
        store.publish(3, 1, write(100), ())
    assert not isinstance(caught.value, SpoolFullError)


# Several processes of one machine


def publish_into_the_spool(store: TrialStore, network: Network) -> None:
    """Publishes a rung of trial 3 while the store is unavailable, which it is no longer at the end."""
    store.claim(3, 1)
    network.leaves()
    store.publish(3, 1, write(100), ())
    network.away = False


def test_what_a_dead_process_left_is_published_by_the_next_trial_of_its_machine(
    store: TrialStore, network: Network, memory: MemoryObjects, tmp_path: Path
) -> None:
    publish_into_the_spool(store, network)
    opened(network, memory, tmp_path).claim(8, 1)
    assert newest(memory, tmp_path) == 1.0
    assert store.spool.waiting() == []


def test_what_a_live_process_is_writing_is_left_to_it(
    store: TrialStore, network: Network, memory: MemoryObjects, tmp_path: Path
) -> None:
    publish_into_the_spool(store, network)
    with store.spool.held(3, 1, wait=True):
        opened(network, memory, tmp_path).drain(wait=False)
        assert newest(memory, tmp_path) is None
    opened(network, memory, tmp_path).drain(wait=False)
    assert newest(memory, tmp_path) == 1.0


def test_what_a_superseded_attempt_left_is_dropped(
    store: TrialStore, network: Network, memory: MemoryObjects, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.claim(3, 1)
    network.leaves()
    store.publish(3, 1, write(100), ())
    TrialStore(memory, tmp_path / "elsewhere").claim(3, 2)
    network.away = False
    store.drain(wait=False)
    assert newest(memory, tmp_path) is None
    assert store.spool.waiting() == []
    assert "attempt 1 was superseded" in caplog.text
    with pytest.raises(StaleAttemptError):
        store.publish(3, 1, write(200), ())


def test_a_checkpoint_that_was_damaged_while_it_waited_is_not_published(
    store: TrialStore, network: Network, memory: MemoryObjects, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.claim(3, 1)
    network.leaves()
    for images in (100, 200):
        store.publish(3, 1, write(images), ())
    state = store.spool.of(3, 1) / "checkpoints" / checkpoint.folder_name(200) / checkpoint.STATE
    state.write_bytes(state.read_bytes()[:-1])
    network.away = False
    store.drain(wait=False)
    assert newest(memory, tmp_path) == 1.0
    assert "damaged checkpoint in the spool" in caplog.text
    assert [int(name[:10]) for name in contents(memory, TRIAL)] == [100]


# What cannot be put off


def test_what_must_be_read_is_waited_for(network: Network, memory: MemoryObjects, tmp_path: Path) -> None:
    store = opened(network, memory, tmp_path, patience=60)
    TrialStore(memory, tmp_path / "elsewhere").publish(3, 1, write(100), ())
    network.leaves(back_after=3)
    store.claim(3, 2)
    network.leaves(back_after=3)
    with store.newest(3) as found:
        assert found is not None
        assert value_in(found) == 1.0


def test_after_all_patience_the_store_is_said_to_be_away(store: TrialStore, network: Network) -> None:
    network.leaves()
    with pytest.raises(UnavailableError, match="has not answered for 0 s: nobody answers"):
        store.claim(3, 1)
    with pytest.raises(UnavailableError), store.newest(3):
        pass


def test_grids_that_are_required_are_never_left_out(store: TrialStore, network: Network) -> None:
    store.claim(3, 1)
    store.publish(3, 1, write(100), ())
    network.leaves()
    assert store.grids(3) == {}
    with pytest.raises(UnavailableError, match="nobody answers"):
        store.grids(3, required=True)
    network.away = False
    assert list(store.grids(3, required=True)) == [100]


def test_a_request_that_does_not_get_through_is_no_request(
    store: TrialStore, network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    network.leaves()
    store.request(3, 100, 4000)
    assert store.requested(3, 100) is None
    assert "trial 3 is not scored again: nobody answers" in caplog.text


def test_a_trial_that_knows_its_store_to_be_away_does_not_ask_it(store: TrialStore, network: Network) -> None:
    store.claim(3, 1)
    store.request(3, 100, 4000)
    network.leaves()
    store.publish(3, 1, write(100), ())
    network.away, network.done = False, []
    assert store.requested(3, 100) is None
    assert network.done == []
    store.drain(wait=False)
    assert store.requested(3, 100) == 4000


def test_pictures_that_were_seen_are_there_without_the_store(store: TrialStore, network: Network) -> None:
    store.publish(3, 1, write(100), ())
    assert list(store.grids(3)) == [100]
    network.leaves()
    (path,) = store.grids(3).values()
    assert Image.open(path).size == (2, 2)
