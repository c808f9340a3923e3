"""Where a study is kept: a journal file in the sweep's folder, or a database that several machines reach."""

from __future__ import annotations

import errno
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from sqlalchemy import event, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.paths import JOURNAL, SWEEP_FILE
from orchestrator.study.journal import Journal
from orchestrator.study.lease import Lease, LeaseLostError
from search_spaces.addresses import database, reason, with_driver
from search_spaces.sweep import Sweep, read_kept
from trainers.data.files import replaced
from trainers.errors import InputError

#: The note on a study that tells it from others of the same name.
ID = "id"
#: What SQLite's codes mean for its file: they are no mistakes of the program.
_ERRNO = {
    sqlite3.SQLITE_CANTOPEN: errno.ENOENT,
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_READONLY: errno.EROFS,
}
#: The methods of a storage that write nothing. The lease is checked before all others.
READS = frozenset(
    {
        "check_trial_is_updatable",
        "get_all_studies",
        "get_all_trials",
        "get_best_trial",
        "get_n_trials",
        "get_study_directions",
        "get_study_id_from_name",
        "get_study_name_from_id",
        "get_study_system_attrs",
        "get_study_user_attrs",
        "get_trial",
        "get_trial_id_from_study_id_trial_number",
        "get_trial_number_from_id",
        "get_trial_param",
        "get_trial_params",
        "get_trial_system_attrs",
        "get_trial_user_attrs",
        "remove_session",
    }
)


def _delegate(name: str) -> Callable[..., Any]:
    """A method that checks the lease, unless it only reads, and calls the method `name` of the inner storage."""

    @wraps(getattr(BaseStorage, name), updated=())  # not the mark of an abstract method
    def method(self: FencedStorage, *arguments: Any, **named: Any) -> Any:
        if name not in READS:
            self.check()
        return getattr(self.inner, name)(*arguments, **named)

    return method


METHODS = tuple(name for name in dir(BaseStorage) if not name.startswith("_"))
# All methods, not only the abstract ones: the others would run BaseStorage's version instead of the inner one.
_Delegating: Any = type("_Delegating", (BaseStorage,), {name: _delegate(name) for name in METHODS})


class FencedStorage(_Delegating):  # type: ignore[misc]
    """The storage that Optuna built, cache included, behind the lease of a driver.

    `inner` does all the work. As soon as there is a lease, it is checked before each write.
    """

    def __init__(self, inner: BaseStorage) -> None:
        self.inner = inner
        self._lease: Lease | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A lease belongs to a process: a copy elsewhere has none."""
        return {"inner": self.inner, "_lease": None}

    def check(self) -> None:
        """Raises LeaseLostError if another driver has taken over, or may do so, since the lease was given back.

        A thread that a signal left behind in a call of Ray or of a sampler may try to write then.
        """
        if self._lease is None:
            return
        self._lease.check()
        if not self._lease.held:
            raise LeaseLostError("this driver has given the lease back")

    def fence(self, lease: Lease) -> None:
        """From now on every write checks `lease`. A journal checks it again while it holds the lock on its file."""
        self._lease = lease
        if (journal := self._journal) is not None:
            journal.fence = lease.fence

    def transaction(self) -> AbstractContextManager[None]:
        """A journal keeps what the block writes at its end, in one step; a database keeps each write at once."""
        journal = self._journal
        return nullcontext() if journal is None else journal.transaction()

    @property
    def _journal(self) -> Journal | None:
        backend = getattr(self.inner, "_backend", None)
        return backend if isinstance(backend, Journal) else None


def create_study(folder: Path, url: str | None, name: str, directions: list[str]) -> optuna.Study:
    """The study called `name` in the database at `url`, or in the journal in `folder`; made if there is none."""
    storage = _journal(folder) if url is None else _database(url)
    return optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)


def with_id(study: optuna.Study) -> optuna.Study:
    """`study`, which gets an id if it has none."""
    if ID not in study.user_attrs:
        study.set_user_attr(ID, uuid.uuid4().hex)
    return study


def keep_sweep(folder: Path, sweep: Sweep) -> None:
    """Writes the sweep's text to `folder`. The file is whole at any moment."""
    with replaced(folder / SWEEP_FILE) as temporary:
        temporary.write_text(sweep.normalised(), encoding="utf-8")


def kept_sweep(folder: Path) -> Sweep:
    """The sweep whose text lies in `folder`. Raises InputError if it cannot be read."""
    try:
        return read_kept((folder / SWEEP_FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / SWEEP_FILE}: cannot be read as a sweep file: {error}") from None


def find_study(folder: Path, url: str | None, recorded: str) -> tuple[optuna.Study | None, str | None]:
    """The study of the sweep in `folder` and its database, None for the journal; (None, None) if there is none.

    It is looked for in the journal, in the database that the folder's sweep names, and then in the one at `url`. A
    study without the attribute `recorded` does not count: its driver died before it asked for a trial. Raises
    InputError if `url` is no database or has a password, if a database cannot be reached, or if the study is kept
    elsewhere.
    """
    if url is not None:
        try:
            database(url)
        except ValueError as error:
            raise InputError(f"the study's database: {error}") from None
    known: list[str | None] = []
    if (folder / JOURNAL).exists():
        known.append(None)
    elif (folder / SWEEP_FILE).exists() and (kept := kept_sweep(folder).study.storage) is not None:
        known.append(kept)
    for place in dict.fromkeys([*known, *([url] if url is not None else [])]):
        if place is not None and not _may_exist(place):
            continue
        study = _named(_journal(folder) if place is None else _database(place), folder.name if place else None)
        if study is None or recorded not in study.user_attrs:
            continue
        if url is not None and place != url:
            raise InputError(f"{folder.name}: its study is kept in {place or folder / JOURNAL}, not in {url}")
        return study, place
    return None, None


def begun_id(folder: Path, url: str | None) -> str | None:
    """The id of the study that `find_study` looks for, even if it does not count yet; None if there is none."""
    study, _ = find_study(folder, url, ID)
    return None if study is None else str(study.user_attrs[ID])


def check_tables(url: str) -> None:
    """Checks that this program can read the tables of studies in the database at `url`; it must have them already.

    Raises RuntimeError if another version of Optuna made them, and what SQLAlchemy raises.
    """
    storage = RDBStorage(with_driver(url), skip_table_creation=True)
    storage.remove_session()
    storage.engine.dispose()


def _named(storage: BaseStorage, name: str | None) -> optuna.Study | None:
    """The study called `name`, by default the only one; None if there is none."""
    found = [study.study_name for study in storage.get_all_studies()]
    if name is None and found:
        name = found[0]
    return optuna.load_study(study_name=name, storage=storage) if name in found else None


def _journal(folder: Path) -> FencedStorage:
    return FencedStorage(JournalStorage(Journal(str(folder / JOURNAL))))


def _may_exist(url: str) -> bool:
    """Whether there may be a database at `url`; SQLite would make a file that is missing."""
    place = make_url(with_driver(url))
    file = place.get_backend_name() == "sqlite" and "uri" not in place.query
    return not file or place.database is None or Path(place.database).exists()


def _name_file(context: ExceptionContext) -> None:
    """Raises what SQLite says of its file or disk as an OSError that names the file; lets other errors be."""
    cause, engine = context.original_exception, context.engine
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # extended codes have more bits
    if code in _ERRNO and engine is not None:
        raise OSError(_ERRNO[code], str(cause), engine.url.database) from cause


def _database(url: str) -> FencedStorage:
    try:
        # A connection that a restart of the server has broken is replaced before it is used.
        built = RDBStorage(with_driver(url), engine_kwargs={"pool_pre_ping": True})
        event.listen(built.engine, "handle_error", _name_file)
    except (SQLAlchemyError, StorageInternalError, ImportError, RuntimeError) as error:
        # A RuntimeError says that another version of Optuna made the tables.
        raise InputError(f"the study's database {url} cannot be opened: {reason(error)}") from None
    return FencedStorage(optuna.storages.get_storage(built))
