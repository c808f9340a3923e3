"""Optuna's own conformance suites on our parts: the storage with its fence, and the study as samplers see it.

The suites come with Optuna (`optuna.testing`), so a new version of it brings its new demands along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage, RDBStorage, get_storage
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)
from optuna.testing.pytest_storages import StorageTestCase

from orchestrator.study.journal import Journal
from orchestrator.study.lease import Claim, ClaimNotes, Lease, clock
from orchestrator.study.sampler_view import SampledStudy
from orchestrator.study.samplers import DistinctNsga2
from orchestrator.study.storage import FencedStorage
from search_spaces.sweep import Sweep
from tests.support import made_up


class CountingLease(Lease):
    """A lease that is never lost, and counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__(ClaimNotes(dict, lambda key, note: None), Claim(1, "here:1:x", "m", 1e6, clock(), 0.0))
        self.checks = self.fences = 0

    def check(self) -> None:
        self.checks += 1
        super().check()

    def fence(self, notes: Mapping[str, Any]) -> None:
        self.fences += 1
        super().fence(notes)


class _Fenced(StorageTestCase):  # type: ignore[misc]  # optuna is not checked
    """Every write of the suite goes through a lease; a case that writes without asking it fails."""

    def test_the_lease_is_asked(self, storage: FencedStorage) -> None:
        lease: Any = storage._lease
        storage.create_new_study([optuna.study.StudyDirection.MINIMIZE])
        assert lease.checks == 1


class TestJournal(_Fenced):
    """The journal file of a sweep."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> FencedStorage:
        lease = CountingLease()
        storage = FencedStorage(JournalStorage(Journal(str(tmp_path / "study.journal"))))
        storage.fence(lease)
        return storage

    def test_the_lease_is_asked_again_in_the_lock_of_the_file(self, storage: FencedStorage) -> None:
        lease: Any = storage._lease
        storage.create_new_study([optuna.study.StudyDirection.MINIMIZE])
        assert lease.fences == 1


class TestDatabase(_Fenced):
    """A database, with the cache that Optuna puts before it."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[FencedStorage]:
        lease = CountingLease()
        inner = get_storage(RDBStorage(f"sqlite:///{tmp_path / 'studies.db'}"))
        storage = FencedStorage(inner)
        storage.fence(lease)
        yield storage
        storage.remove_session()


def _seen(sweep: Sweep) -> Callable[..., SampledStudy]:
    """`optuna.create_study` for a study that its sampler sees through our view."""
    plain = optuna.create_study

    def create(sampler: BaseSampler | None = None, **named: Any) -> SampledStudy:
        study = SampledStudy(plain(**named), sweep)
        study.sampler = sampler or RandomSampler()
        return study

    return create


class _View:
    """The suite's studies are seen through the view of a sweep without pauses."""

    overrides: tuple[str, ...] = ()

    @pytest.fixture(autouse=True)
    def view(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Trials of the suite have no parameters of a sweep and no rungs: the view must leave them as they are.
        monkeypatch.setattr(optuna.study, "create_study", _seen(made_up.sweep("pruner=none", *self.overrides)))


class TestTpe(_View, BasicSamplerTestCase, MultiObjectiveSamplerTestCase):  # type: ignore[misc]
    """As `samplers.sampler_of` makes it, with groups of dimensions that exist together."""

    overrides = ("sampler=tpe",)

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: TPESampler(seed=0, n_startup_trials=0, multivariate=True, group=True)


class TestTpeWithoutGroups(_View, RelativeSamplerTestCase):  # type: ignore[misc]
    """With groups, Optuna's TPE does not pass this suite on Optuna's own study either."""

    overrides = ("sampler=tpe",)

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: TPESampler(seed=0, n_startup_trials=0, multivariate=True)


class TestGp(_View, BasicSamplerTestCase):  # type: ignore[misc]
    """The Gaussian process."""

    overrides = ("sampler=gp", "search={g_lr: {log_uniform: [2e-5, 5e-3]}, batch: 100}")

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: GPSampler(seed=0, n_startup_trials=0)


@pytest.mark.slow  # a process is fitted a thousand times; CI runs it
class TestGpTogether(TestGp, RelativeSamplerTestCase):  # type: ignore[misc]
    """The Gaussian process over several dimensions."""


class TestCmaEs(_View, BasicSamplerTestCase, SingleOnlySamplerTestCase):  # type: ignore[misc]
    """CMA-ES."""

    overrides = ("sampler=cmaes", "search={g_lr: {log_uniform: [2e-5, 5e-3]}, batch: 100}")

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: CmaEsSampler(seed=0, n_startup_trials=0, warn_independent_sampling=False)


class TestNsga2(_View, BasicSamplerTestCase, MultiObjectiveSamplerTestCase):  # type: ignore[misc]
    """NSGA-II whose children repeat no trial."""

    overrides = ("sampler=nsga2", "search={g_lr: {log_uniform: [2e-5, 5e-3]}, batch: 100}")

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: DistinctNsga2(seed=0, population_size=10)


class TestRandom(_View, BasicSamplerTestCase, MultiObjectiveSamplerTestCase):  # type: ignore[misc]
    """Independent draws."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: RandomSampler(seed=0)
