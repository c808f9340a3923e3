"""Laws of the fence around a storage: it delegates everything, and asks the lease before each write."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import optuna
import pytest
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage

from orchestrator.study.journal import Journal
from orchestrator.study.lease import Lease, LeaseLostError
from orchestrator.study.storage import METHODS, READS, FencedStorage, create_study

#: What Optuna's storages write by. A method that a new version adds must be sorted into one of the two sets.
WRITES = {
    "create_new_study",
    "create_new_trial",
    "delete_study",
    "set_study_system_attr",
    "set_study_user_attr",
    "set_trial_intermediate_value",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_system_attr",
    "set_trial_user_attr",
}


class Lost:
    """A lease that another driver has taken."""

    def check(self) -> None:
        raise LeaseLostError("another driver has it")

    def fence(self, notes: dict[str, Any]) -> None:
        self.check()


def lost() -> Lease:
    return cast(Lease, Lost())


def test_every_method_of_a_storage_is_known_as_a_read_or_a_write() -> None:
    assert set(METHODS) == READS | WRITES
    assert not READS & WRITES


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_that_of_the_storage_inside(name: str) -> None:
    inner = Mock(spec=BaseStorage)
    arguments = [object() for _ in list(inspect.signature(getattr(BaseStorage, name)).parameters)[1:]]
    answer = getattr(FencedStorage(inner), name)(*arguments)
    getattr(inner, name).assert_called_once_with(*arguments)
    assert answer is getattr(inner, name).return_value


@pytest.mark.parametrize("name", METHODS)
def test_a_lost_lease_stops_every_write_and_no_read(name: str) -> None:
    inner = Mock(spec=BaseStorage)
    storage = FencedStorage(inner)
    storage.fence(lost())
    if name in READS:
        getattr(storage, name)()
        return
    with pytest.raises(LeaseLostError):
        getattr(storage, name)()
    assert not getattr(inner, name).called


def test_a_journal_asks_the_lease_once_more_in_its_lock(tmp_path: Path) -> None:
    """A driver that passed its check and then stood still finds out before anything is in the file."""
    storage = FencedStorage(JournalStorage(Journal(str(tmp_path / "journal"))))
    study = optuna.create_study(storage=storage)
    before = (tmp_path / "journal").read_bytes()
    lease = Mock(spec=Lease)
    lease.fence.side_effect = LeaseLostError("another driver has it")
    storage.fence(lease)
    with pytest.raises(LeaseLostError):
        study.set_user_attr("key", 1)
    assert lease.check.called
    assert (tmp_path / "journal").read_bytes() == before


def test_a_block_of_writes_to_a_journal_is_one_write_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = create_study(tmp_path, None, "s", ["minimize"])
    storage = cast(FencedStorage, study._storage)
    appended: list[int] = []
    append = Journal.append_logs

    def counting(journal: Journal, logs: list[dict[str, Any]]) -> None:
        size = Path(journal._path).stat().st_size
        append(journal, logs)
        appended.extend([len(logs)] * (Path(journal._path).stat().st_size > size))

    monkeypatch.setattr(Journal, "append_logs", counting)
    with storage.transaction():
        study.set_user_attr("a", 1)
        study.set_user_attr("b", 2)
        assert appended == []
    assert appended == [2]

    def fails() -> None:
        with storage.transaction():
            study.set_user_attr("c", 3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert study.user_attrs == {"a": 1, "b": 2}


def test_the_cache_before_a_database_stays(tmp_path: Path) -> None:
    study = create_study(tmp_path, f"sqlite:///{tmp_path / 'studies.db'}", "s", ["minimize"])
    storage = cast(FencedStorage, study._storage)
    assert type(storage.inner).__name__ == "_CachedStorage"
    assert isinstance(storage.inner._backend, RDBStorage)
    with storage.transaction():  # a database keeps each write at once
        study.set_user_attr("a", 1)
        assert study.user_attrs == {"a": 1}


def test_a_copy_elsewhere_has_no_lease() -> None:
    storage = FencedStorage(InMemoryStorage())
    storage.fence(lost())
    copy = FencedStorage.__new__(FencedStorage)
    copy.__dict__.update(storage.__getstate__())
    copy.create_new_study([optuna.study.StudyDirection.MINIMIZE])
    assert len(copy.get_all_studies()) == 1
