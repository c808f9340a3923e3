"""What is searched: the sweep file as typed data, and the sweep files that come with the program."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from trainers.errors import InputError


def shipped() -> dict[str, Path]:
    """The sweep files of this package by name, in alphabetical order."""
    folder = Path(str(files(__name__)))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def summary(path: Path) -> str:
    """The first line of a sweep file, which is a comment that says what it is for."""
    with path.open(encoding="utf-8") as lines:
        return lines.readline().lstrip("#").strip()


def resolve(text: str) -> Path:
    """The file `text`, or else the sweep of this package with that name: quickstart, quickstart.yaml, and
    search_spaces/quickstart.yaml are the same.

    Raises InputError that lists the names.
    """
    path = Path(text)
    if path.is_file():
        return path
    known = shipped()
    bare = path.parent == Path(".") or path.parent == Path(__name__)
    name = path.stem if path.suffix == ".yaml" else path.name
    if bare and name in known:
        return known[name]
    raise InputError(f"{text}: no such sweep file; give a path, or one of {', '.join(known)}")
