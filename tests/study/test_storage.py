"""Laws of the study hold wherever it is kept: in a journal file, in SQLite, in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from typer.testing import CliRunner

from orchestrator.cli.__main__ import app
from orchestrator.paths import JOURNAL, sweep_names
from orchestrator.study.status import read_status, status_of
from orchestrator.study.storage import keep_sweep
from orchestrator.study.study import Decision, SweepStudy
from search_spaces.addresses import with_driver
from search_spaces.sweep import Sweep
from tests.support import made_up
from trainers.errors import InputError

STORAGES = ("journal", "sqlite", "postgresql")


@pytest.fixture(params=STORAGES)
def sweep(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Sweep]:
    """Makes sweeps whose studies are kept in one of the storages."""
    urls: dict[str, Callable[[], str]] = {
        "journal": lambda: "null",
        "sqlite": lambda: f"sqlite:///{tmp_path / 'study.db'}",
        "postgresql": lambda: request.getfixturevalue("postgres").database(),
    }
    url = urls[request.param]()
    return lambda *overrides: made_up.sweep("name=kept", f"study.storage={url}", *overrides)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept"


def again(study: SweepStudy) -> SweepStudy:
    """As another process opens it."""
    found = SweepStudy.open(study.folder, study.sweep.study.storage)
    assert found is not None
    return found


def test_a_study_goes_on_where_a_dead_driver_left_it(sweep: Callable[..., Sweep], folder: Path) -> None:
    study = SweepStudy.create(folder, sweep("pruner=none"))
    first, second = study.next_ticket(), study.next_ticket()
    assert first is not None
    assert second is not None
    study.report(1, made_up.history(3.0))
    diverged = made_up.rung(2000, 0.0, diverged="loss_g is nan")
    study.report(0, [*made_up.history(3.0), diverged])
    heir = again(study)
    assert heir.sweep == study.sweep
    assert heir.id == study.id
    orphan = heir.next_ticket()
    assert orphan is not None
    assert (orphan.number, orphan.params, orphan.attempt) == (1, second.params, 2)
    assert heir.report(1, made_up.history(3.0)) is Decision.CONTINUE
    assert heir.report(1, made_up.history(3.0, 1.0, 2.0)) is Decision.COMPLETE
    assert str(again(heir).records()) == str(heir.records())  # as text, since nan differs from itself
    old, new = heir.records()
    assert (old.state, old.reason) == ("pruned", "diverged at 2 kimg: loss_g is nan")
    assert [rung.images for rung in new.rungs] == [1000, 2000, 3000]
    assert new.best is not None
    assert new.best.images == 2000


def test_a_study_hands_out_exactly_its_budget(sweep: Callable[..., Sweep], folder: Path) -> None:
    study = SweepStudy.create(folder, sweep())
    while (ticket := study.next_ticket()) is not None:
        decision = Decision.CONTINUE
        for passed in range(1, 4):
            if decision is Decision.CONTINUE:
                curve = made_up.history(*(3.0 + ticket.number - step for step in range(passed)))
                decision = study.report(ticket.number, curve)
    assert [record.number for record in study.records()] == [0, 1, 2, 3, 4]
    assert status_of(study).state == "complete"
    assert {record.state for record in study.records()} == {"complete", "pruned"}


def test_a_study_is_found_by_its_folder_s_sweep_or_in_an_empty_folder_by_its_storage(
    sweep: Callable[..., Sweep], folder: Path, tmp_path: Path
) -> None:
    study = SweepStudy.create(folder, sweep())
    keep_sweep(folder, study.sweep)
    assert study.next_ticket() is not None
    assert len(read_status(folder).records) == 1
    assert sweep_names(tmp_path) == ["kept"]
    storage = study.sweep.study.storage
    if storage is None:
        with pytest.raises(InputError, match=r"its study is kept in .*study\.journal, not in sqlite"):
            SweepStudy.open(folder, f"sqlite:///{tmp_path / 'other.db'}")
        return
    elsewhere = SweepStudy.open(tmp_path / "empty" / "kept", storage)
    assert elsewhere is not None
    assert [record.params for record in elsewhere.records()] == [record.params for record in study.records()]
    assert SweepStudy.open(tmp_path / "empty" / "unkept", storage) is None
    assert SweepStudy.open(tmp_path / "empty" / "kept") is None


def test_resuming_in_an_empty_folder_by_the_storage_makes_the_folder_whole(folder: Path, tmp_path: Path) -> None:
    storage, root = f"sqlite:///{tmp_path / 'study.db'}", tmp_path / "elsewhere"
    settings = ("name=kept", f"study.storage={storage}", "budget.trials=1", "finals.trials=0")
    study = SweepStudy.create(folder, made_up.sweep(*settings))
    assert study.next_ticket() is not None
    assert study.report(0, made_up.history(3.0, 1.0, 2.0)) is Decision.COMPLETE
    done = CliRunner().invoke(app, ["resume", "kept", "--storage", storage, "--root", str(root)])
    assert done.exit_code == 0, done.output
    assert "sweep kept is complete" in done.output
    assert len(read_status(root / "kept").records) == 1


def test_studies_in_one_database_do_not_mix(sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    studies = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        studies.append(SweepStudy.create(tmp_path / name, sweep(f"name={name}")))
    assert studies[0].next_ticket() is not None
    assert [len(again(study).records()) for study in studies] == [1, 0]
    assert studies[0].id != studies[1].id


def test_a_database_that_cannot_be_reached_is_named_with_the_reason(tmp_path: Path) -> None:
    url = f"postgresql://nobody@/studies?host={tmp_path}"
    with pytest.raises(InputError, match=r"the study's database .* cannot be opened: .*connection to server"):
        SweepStudy.open(tmp_path / "kept", url)


@pytest.mark.parametrize("url", ["postgresql://me:secret@db/studies", "study.db"])
def test_a_storage_that_is_none_or_has_a_password_is_refused_before_it_is_kept(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match=r"the study's database: (a password must not|expected sqlite)") as caught:
        SweepStudy.open(tmp_path / "kept", url)
    assert "secret" not in str(caught.value)


def test_the_official_dashboard_opens_a_study(sweep: Callable[..., Sweep], folder: Path) -> None:
    from optuna_dashboard import wsgi  # type: ignore[import-untyped]

    study = SweepStudy.create(folder, sweep())
    assert study.next_ticket() is not None
    study.report(0, made_up.history(3.0, 1.0, 2.0))
    storage = study.sweep.study.storage
    journal = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    application = wsgi(journal if storage is None else with_driver(storage))

    def ask(path: str) -> Any:
        environment = {"PATH_INFO": path}
        setup_testing_defaults(environment)
        answered: list[str] = []
        body = b"".join(application(environment, lambda status, headers, error=None: answered.append(status)))
        assert answered == ["200 OK"], body
        return json.loads(body)

    (summary,) = ask("/api/studies")["study_summaries"]
    assert summary["study_name"] == "kept"
    detail = ask(f"/api/studies/{summary['study_id']}")
    (trial,) = detail["trials"]
    assert trial["state"] == "Complete"
    assert trial["values"] == [1.0]
    assert [(point["step"], point["value"]) for point in trial["intermediate_values"]] == [
        (1000, 3.0),
        (2000, 1.0),
        (3000, 2.0),
    ]
