"""Outlives a driver for a moment, and removes what is left of the Ray that the driver has started: processes, files.

    python -I -S guard.py FOLDER

`FOLDER` is the temporary folder of that Ray. The driver holds the other end of standard input, so the guard learns of
its end, however it ends. Ray's own processes notice the death of a driver too, but some of them only after 20 s, and
none removes files. The guard needs /proc; without it, only files are removed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: The variable that tells Ray its temporary folder.
VARIABLE = "RAY_TMPDIR"
#: The names that agents and workers give themselves begin with it.
_NAMED = b"ray::"
#: Seconds for which processes may resist SIGKILL, as one does that waits for a disk.
_PATIENCE = 10.0


def processes(folder: Path) -> list[int]:
    """The processes of the Ray whose temporary folder is `folder`, as far as this user may see them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if _belongs(process, folder):
                found.append(int(process.name))
    return [each for each in found if each != os.getpid()]


def _belongs(process: Path, folder: Path) -> bool:
    """Whether the process of this folder in /proc is one of the Ray in `folder`."""
    if os.fsencode(f"{VARIABLE}={folder}") in (process / "environ").read_bytes().split(b"\0"):
        return True
    if not (process / "cmdline").read_bytes().startswith(_NAMED):
        return False
    # A process that names itself overwrites its environment as others see it. Its log is in the folder, and open.
    return any(file.startswith(f"{folder.resolve()}/") for file in _open_files(process))


def _open_files(process: Path) -> Iterator[str]:
    for file in (process / "fd").iterdir():
        with suppress(FileNotFoundError):  # it has been closed
            yield os.readlink(file)


def clear(folder: Path) -> None:
    """Kills the processes of the Ray whose temporary folder is `folder`, and removes the folder."""
    end = time.monotonic() + _PATIENCE
    while (left := processes(folder)) and time.monotonic() < end:
        for each in left:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Waits for the end of the driver."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    sys.stdin.buffer.read()
    clear(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
