"""What to say if a sweep is not found: whether the root is wrong, the name, or what is left of the sweep."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.paths import JOURNAL, SWEEP_FILE, sweep_names
from orchestrator.study.storage import kept_sweep
from trainers.errors import InputError

#: Names that a message lists.
_MOST_NAMES = 20


def known_sweeps(root: Path) -> list[str]:
    """Names of the sweeps below `root`. Raises InputError if it is no folder, OSError if it cannot be read."""
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "there is no such folder"
        raise InputError(f"{root}: {what}; name the folder of the sweeps by --root or GANSWEEP_HOME")
    os.scandir(root).close()  # which fails if the folder cannot be read; a search would find nothing
    return sweep_names(root)


def missing_sweep(folder: Path, storage: str | None = None) -> InputError:
    """The error to raise if neither `folder` nor the database `storage`, if there is one, has the study of a sweep."""
    elsewhere = f" nor in {storage}" if storage else ""
    if (folder / JOURNAL).exists():
        text = f"its study has not begun, since its driver ended before; launch its file again, or delete {folder}"
        return InputError(f"{folder.name}: {text}")
    if (folder / SWEEP_FILE).exists():
        url = kept_sweep(folder).study.storage
        if url is None:
            text = f"{folder / JOURNAL} is missing, which had its study; put it back from a copy"
        else:
            text = f"{folder / SWEEP_FILE} says that its study is in {url}, which has no study called {folder.name}"
        return InputError(f"{folder.name}: {text}")
    head = f"no sweep called {folder.name!r} in {folder.parent}{elsewhere}"
    try:
        known = known_sweeps(folder.parent)
    except InputError as error:
        return InputError(f"{head}: {error}")
    names = ", ".join(known[:_MOST_NAMES]) + (f" and {len(known) - _MOST_NAMES:,} more" if known[_MOST_NAMES:] else "")
    there = f"there are: {names}" if known else "there are no sweeps; name the folder of the sweeps by --root"
    return InputError(f"{head}; {there}")
