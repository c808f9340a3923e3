"""What a driver's own Ray keeps on this machine: a temporary folder and a token, which no other user can read."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

from orchestrator.cluster import guard, signals
from trainers.errors import InputError

#: The names of our folders begin with it.
PREFIX = "gansweep-"
#: A file in each of our folders. Its driver has it locked, and so has the guard of the driver.
LOCK = "gansweep-driver.lock"
#: Where Ray's temporary folder is, by precedence.
_VARIABLES = (guard.VARIABLE, "TMPDIR")
#: Short folders that a system has for temporary files.
_USUAL = ("/tmp", "/var/tmp")
#: The longest address of a Unix socket, in bytes: macOS has 103.
_LONGEST = 107 if sys.platform == "linux" else 103
#: The longest socket of Ray below that place: mkdtemp adds 8 characters to a prefix, and numbers have up to 7 digits.
_SOCKET = f"/{PREFIX}12345678/ray/session_2026-01-01_00-00-00_123456_1234567/sockets/plasma_store"


def place() -> tuple[Path, str | None]:
    """The folder for temporary folders of Ray, and why it is another one than the environment says, if it is.

    Raises InputError that names the variable if there is no such folder, or if no folder can be made in it.
    """
    name = next((each for each in _VARIABLES if os.environ.get(each)), None)
    wanted = Path(os.environ[name]).absolute() if name else Path(_USUAL[0])
    if reason := _unusable(wanted):
        remedy = "name a folder that can be written" if name else "TMPDIR can name another folder"
        raise InputError(f"{name or 'temporary files'}: {wanted} cannot be used: {reason}; {remedy}")
    if _fits(wanted):
        return wanted, None
    other = next((Path(each) for each in _USUAL if _fits(Path(each)) and not _unusable(Path(each))), None)
    if other is None:
        raise InputError(
            f"{name}: {wanted} is too long for Ray's sockets, and neither {' nor '.join(_USUAL)} is usable"
        )
    return other, f"{name}: {wanted} is too long for Ray's sockets: Ray's temporary files are in {other}"


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for the Ray that this process starts, named in the environment for as long as the block lasts.

    At its end, and if this process dies, all processes of that Ray are killed and the folder is removed. What earlier
    drivers have left, if their guards were killed too, is removed now. Raises InputError as `place`.
    """
    base, _ = place()
    _remove_leftovers(base)
    made = None
    try:
        with signals.postponed():
            folder, lock = made = _made(base)
        with _guarded(folder, lock), _environment(guard.VARIABLE, str(folder)):
            yield folder
    finally:
        if made is not None:
            folder, lock = made
            os.close(lock)
            _remove(folder)  # if the guard was not started yet, or has been killed


def use_private_token() -> None:
    """Has Ray use a token that no other user can read.

    That of the user's settings, if there is one; else one in the environment, where the processes of this Ray find it.
    By itself Ray would write one into the home folder that everybody can read.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    file = Path.home() / ".ray" / "auth_token"
    if not file.is_file():
        # For the rest of this process, since Ray's library reads it once.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    elif (found := file.stat()).st_uid == os.geteuid() and found.st_mode & 0o077:
        file.chmod(0o600)


def _fits(base: Path) -> bool:
    return len(os.fsencode(f"{base}{_SOCKET}")) <= _LONGEST


def _unusable(base: Path) -> str | None:
    """Why no folder can be made in `base`; None if one can."""
    try:
        with signals.postponed():
            Path(mkdtemp(prefix=PREFIX, dir=base)).rmdir()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _made(base: Path) -> tuple[Path, int]:
    """A new folder in `base`, and a descriptor: the folder is locked as long as a process that has it lives."""
    folder = Path(mkdtemp(prefix=PREFIX, dir=base))
    descriptor = None
    try:
        descriptor = os.open(folder / f".{LOCK}", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        (folder / f".{LOCK}").rename(folder / LOCK)  # only now: whoever finds it unlocked takes its driver for dead
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder, descriptor


@contextmanager
def _guarded(folder: Path, lock: int) -> Iterator[None]:
    """Starts the guard of `folder`; has it do its work at the end of the block."""
    command = [sys.executable, "-I", "-S", guard.__file__, str(folder)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # signals to the driver's group are not for it
        pass_fds=(lock,),
    ):
        yield  # leaving the block closes the pipe and waits


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _remove_leftovers(base: Path) -> None:
    for folder in base.glob(f"{PREFIX}*"):
        with suppress(OSError):  # somebody else's
            if _is_ours(folder):
                _remove(folder)


def _remove(folder: Path) -> None:
    """Kills what is left of the Ray in `folder` and removes the folder, unless its driver or its guard lives."""
    with suppress(OSError), open(folder / LOCK, "rb+") as lock:  # it is locked, or gone already
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        guard.clear(folder)


def _is_ours(folder: Path) -> bool:
    found = folder.lstat()
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    return private and found.st_uid == os.geteuid() and stat.S_ISREG((folder / LOCK).lstat().st_mode)
