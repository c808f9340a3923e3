"""Outlives a driver for a moment, and removes what is left of the Ray that the driver has started: processes, files.

    python -I -S guard.py FOLDER

`FOLDER` is the temporary folder of that Ray. The driver holds the other end of standard input, so the guard learns of
its end, however it ends. Every process of that Ray has the folder in its environment. Ray's own processes notice the
death of a driver too, but some of them only after 20 s, and none removes files. It needs /proc; without it, only files
are removed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

#: The variable that tells Ray its temporary folder, and by which its processes are known.
VARIABLE = "RAY_TMPDIR"
#: Seconds for which processes may resist SIGKILL, as one does that waits for a disk.
_PATIENCE = 10.0


def processes(folder: Path) -> list[int]:
    """The processes of the Ray whose temporary folder is `folder`, as far as this user may see them."""
    mark, found = os.fsencode(f"{VARIABLE}={folder}"), []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or is another user's
            if mark in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
    return [each for each in found if each != os.getpid()]


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
