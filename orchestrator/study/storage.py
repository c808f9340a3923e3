"""Where a study is kept: a journal file in the sweep's folder, or a database that several machines reach."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.paths import JOURNAL, SWEEP_FILE
from orchestrator.study.journal import Journal
from search_spaces.addresses import database, masked, with_driver
from search_spaces.sweep import Sweep, read_kept
from trainers.errors import InputError


def create_study(folder: Path, url: str | None, name: str, directions: list[str]) -> optuna.Study:
    """The study called `name` in the database at `url`, or in the journal in `folder`; made where there is none."""
    storage = _journal(folder) if url is None else _database(url)
    return optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)


def together(study: optuna.Study) -> AbstractContextManager[None]:
    """What the block writes to `study` is kept at its end, in one go; by a database one by one, as ever."""
    backend = getattr(study._storage, "_backend", None)
    return backend.together() if isinstance(backend, Journal) else nullcontext()


def fenced(study: optuna.Study, fence: Callable[[dict[str, Any]], None]) -> None:
    """Has `fence` told of others' claims before anything is written; by a database that is not done."""
    backend = getattr(study._storage, "_backend", None)
    if isinstance(backend, Journal):
        backend.fence = fence


def keep_sweep(folder: Path, sweep: Sweep) -> None:
    """Leaves the sweep's text in `folder`, whole at any moment."""
    temporary = folder / f".{SWEEP_FILE}.{os.getpid()}"
    temporary.write_text(sweep.normalised())
    temporary.replace(folder / SWEEP_FILE)


def find_study(folder: Path, url: str | None, recorded: str) -> tuple[optuna.Study | None, str | None]:
    """The study of the sweep in `folder`, with its database, None for the journal; (None, None) where there is none.

    It is looked for in the journal, in the database that the folder's sweep names, and then in the one at `url`. A
    study without the attribute `recorded` does not count: its driver died before anything was asked. Raises InputError
    where `url` is none, or has a password, where a database cannot be reached, or where the study is kept elsewhere.
    """
    if url is not None:
        try:
            database(url)
        except ValueError as error:
            raise InputError(f"the study's database: {error}") from None
    known: list[str | None] = []
    if (folder / JOURNAL).exists():
        known.append(None)
    elif (folder / SWEEP_FILE).exists():
        known.append(read_kept((folder / SWEEP_FILE).read_text()).study.storage)
    for place in dict.fromkeys([*known, *([url] if url is not None else [])]):
        study = _named(_journal(folder) if place is None else _database(place), folder.name if place else None)
        if study is None or recorded not in study.user_attrs:
            continue
        if url is not None and place != url:
            raise InputError(f"{folder.name}: its study is kept in {place or folder / JOURNAL}, not in {url}")
        return study, place
    return None, None


def check_tables(url: str) -> None:
    """Whether this program can read the tables of studies in the database at `url`, which has them; makes none.

    Raises RuntimeError where another version of Optuna made them, and what SQLAlchemy does.
    """
    storage = RDBStorage(with_driver(url), skip_table_creation=True)
    storage.remove_session()
    storage.engine.dispose()


def _named(storage: BaseStorage, name: str | None) -> optuna.Study | None:
    """The study called `name`, or the only one."""
    found = [study.study_name for study in storage.get_all_studies()]
    if name is None and found:
        name = found[0]
    return optuna.load_study(study_name=name, storage=storage) if name in found else None


def _journal(folder: Path) -> JournalStorage:
    return JournalStorage(Journal(str(folder / JOURNAL)))


def _database(url: str) -> RDBStorage:
    try:
        # A connection that a restart of the server has broken is replaced before it is used.
        return RDBStorage(with_driver(url), engine_kwargs={"pool_pre_ping": True})
    except (SQLAlchemyError, ImportError, RuntimeError) as error:  # the last one for tables of another Optuna
        reason = masked(str(error).strip().splitlines()[0])
        raise InputError(f"the study's database {url} cannot be opened: {reason}") from None
