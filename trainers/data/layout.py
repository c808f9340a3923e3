"""What lies below a folder of pictures, and how people arrange it: class folders, splits, a wrapper around them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from zipfile import is_zipfile

from trainers.data.pictures import listed, suffixes
from trainers.errors import InputError, printable

#: Names of folders that are splits, in small letters, by what they serve: `val` is held out if there is no `test`.
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
}
#: Endings of archives, besides those that Python unpacks.
_ARCHIVES = (".7z", ".rar", ".zst", ".gz", ".bz2", ".xz")
_TEST_SHARE = 10


@dataclass(frozen=True)
class Tree:
    """The files below a folder by their paths relative to it, sorted; names that start with a dot do not count."""

    root: Path
    pictures: tuple[PurePath, ...]
    others: tuple[PurePath, ...]
    """Files that are no pictures by their endings, or no regular files."""
    folders: tuple[PurePath, ...]
    repeated: tuple[PurePath, ...]
    """Links to folders that were met already; what is below them is listed once."""


@dataclass(frozen=True)
class Part:
    """The pictures of one split, or of a folder without splits."""

    below: PurePath
    """The folder of the class folders."""
    pictures: tuple[PurePath, ...]
    """Relative to the root of the tree, as `below`, and sorted."""
    classes: tuple[str, ...]
    """Names of the class folders in the order of labels; empty if the pictures lie in no class folders."""

    @property
    def labels(self) -> list[int]:
        """The classes of the pictures."""
        numbers, depth = {name: number for number, name in enumerate(self.classes)}, len(self.below.parts)
        return [numbers[path.parts[depth]] if numbers else 0 for path in self.pictures]


@dataclass(frozen=True)
class Layout:
    """A data set of pictures in two splits."""

    train: Part
    test: Part
    notices: tuple[str, ...]
    """What was passed over or looked through."""


def class_order(names: Iterable[str]) -> list[str]:
    """The names in alphabetical order, but with numbers in them by their values: 1, 2, 10."""
    return sorted(names, key=lambda name: (_natural(name), name))


def tree_of(root: Path) -> Tree:
    """What lies below `root`; links are followed, and each folder is listed once.

    Raises InputError if there is no such folder, or if a folder cannot be read.
    """
    check_folder(root)
    found: dict[str, list[PurePath]] = {"pictures": [], "others": [], "folders": [], "repeated": []}
    folders, links, known = [PurePath()], list[PurePath](), set[tuple[int, int]]()
    endings = suffixes()
    while folders or links:
        here = folders.pop() if folders else links.pop(0)  # what can be reached without a link has no other name
        try:
            status = os.stat(root / here)
            if (status.st_dev, status.st_ino) in known:
                found["repeated"].append(here)
                continue
            known.add((status.st_dev, status.st_ino))
            with os.scandir(root / here) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    path = here / entry.name
                    if entry.name.startswith("."):
                        continue
                    if os.path.isdir(entry):
                        (links if entry.is_symlink() else folders).append(path)
                    elif path.suffix.lower() in endings and os.path.isfile(entry):
                        found["pictures"].append(path)
                    else:
                        found["others"].append(path)
        except OSError as error:
            raise InputError(f"{root / here}: cannot be listed ({error.strerror or error})") from error
        found["folders"].append(here)
    return Tree(root, **{kind: tuple(sorted(paths)) for kind, paths in found.items()})


def check_folder(root: Path) -> None:
    """Raises InputError if `root` is no folder; an archive is told apart from other files."""
    try:
        if stat.S_ISDIR(os.stat(root).st_mode):
            return
    except FileNotFoundError:
        raise InputError(f"there is no folder {root}; set `path` to a folder of pictures") from None
    except (OSError, ValueError) as error:  # ValueError for a name with a null byte
        raise InputError(f"folder {root} cannot be read ({error}); set `path` to another") from None
    archive = is_archive(root) or (root.is_file() and is_zipfile(root))
    kind = "an archive: unpack it and" if archive else "a file;"
    raise InputError(f"{root}: is {kind} set `path` to a folder of pictures")


def is_archive(path: PurePath) -> bool:
    """Whether the ending of a file is that of an archive."""
    endings = {ending for _, endings, _ in shutil.get_unpack_formats() for ending in endings}
    return path.name.lower().endswith((*endings, *_ARCHIVES))


def classes_below(tree: Tree, pictures: Sequence[PurePath], below: PurePath) -> Part:
    """The class folders in the folder `below` that hold `pictures`; there are none if the pictures lie in it directly.

    Raises InputError if pictures lie beside class folders.
    """
    depth = len(below.parts)
    names = {path.parts[depth] for path in pictures if len(path.parts) > depth + 1}
    if not names:
        return Part(below, tuple(pictures), ())
    if loose := next((path for path in pictures if len(path.parts) == depth + 1), None):
        raise InputError(
            f"{tree.root / loose}: lies beside the class folders {listed(class_order(names))}; move it into one of them"
        )
    return Part(below, tuple(pictures), tuple(class_order(names)))


def allowed() -> str:
    """The endings of pictures, as text."""
    return ", ".join(sorted(suffixes()))


def check_not_empty(tree: Tree) -> None:
    """Raises InputError if there are no pictures; an archive is named, since it may hold them."""
    if tree.pictures:
        return
    archive = next((path for path in tree.others if is_archive(path)), None)
    hint = f"; unpack {archive}" if archive else ""
    raise InputError(f"{tree.root}: no images; allowed are files ending in {allowed()}{hint}")


def arrange(tree: Tree) -> Layout:
    """The splits and classes of a data set.

    A single folder around everything is looked through. `train` beside `test` or `val` in any case are the splits; the
    held-out one is `test` if there is one. Without splits a tenth of the pictures is held out. Raises InputError if
    there are no pictures, for names of splits that are ambiguous, if the splits differ in their classes, or if a class
    is too small for two splits.
    """
    check_not_empty(tree)
    base = _unwrapped(tree, PurePath())
    notices = [f"{tree.root}: looked through the folder {base}, which holds everything"] if base.parts else []
    depth = len(base.parts)
    tops = {path.parts[depth] for path in tree.pictures if len(path.parts) > depth + 1}
    roles = {role: class_order(name for name in tops if SPLITS.get(name.lower()) == role) for role in SPLITS.values()}
    held = "test" if roles["test"] else "val"
    alone = {name for names in roles.values() for name in names} == tops
    if roles["train"] and roles[held]:
        train, test = (_only(tree, base, roles[role]) for role in ("train", held))
        if rest := class_order({path.parts[depth] for path in tree.pictures} - {train, test}):
            notices.append(f"{tree.root / base}: passed over beside {train} and {test}: {listed(rest)}")
        parts = (_split(tree, base / train), _split(tree, base / test))
        _check_same_classes(tree, *parts)
    elif alone and roles["train"]:
        below = base / _only(tree, base, roles["train"])
        notices.append(f"{tree.root / below}: has no test or val beside it; a tenth of it is held out")
        parts = _divided(tree, _split(tree, below))
    elif alone and tops:
        names = listed(class_order(tops))
        raise InputError(
            f"{tree.root / base}: has {names}, but no train; name the folder to train on train, or rename {names} if "
            "they are classes"
        )
    else:
        for name in class_order(name for names in roles.values() for name in names):
            notices.append(f"{tree.root / base / name}: taken for a class, since no other split lies beside it")
        parts = _divided(tree, classes_below(tree, tree.pictures, base))
    for part in parts:
        _check_class_folders(tree, part)
    return Layout(*parts, tuple(map(printable, [*notices, *_passed_over(tree, parts)])))


def _passed_over(tree: Tree, parts: Sequence[Part]) -> list[str]:
    """Sentences on what was not taken for a picture or a class."""
    found = []
    if tree.others:
        counts = Counter(path.suffix.lower() or "no ending" for path in tree.others)
        kinds = listed(
            [f"{ending} ({count:,})" for ending, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
        )
        found.append(f"{tree.root}: passed over {len(tree.others):,} files that are no pictures: {kinds}")
    if tree.repeated:
        names = listed([str(path) for path in tree.repeated])
        found.append(f"{tree.root}: passed over links to folders that are listed already: {names}")
    holders = {parent for path in (*tree.pictures, *tree.others) for parent in path.parents}
    bases = {part.below for part in parts if part.classes}
    if empty := [str(path) for path in tree.folders if path.parent in bases and path not in holders]:
        found.append(f"{tree.root}: these folders are empty and no classes: {listed(empty)}")
    return found


def _natural(name: str) -> list[tuple[int, int]]:
    """A key by which numbers come in the order of their values, and all else as in a plain sort."""
    tokens = re.findall(r"[0-9]+|[^0-9]", name, re.DOTALL)
    return [(ord("0"), int(token)) if token[0] in "0123456789" else (ord(token), 0) for token in tokens]


def _unwrapped(tree: Tree, base: PurePath) -> PurePath:
    """The folder below `base` that holds the class folders or splits: each folder around all others is looked through.

    A single folder of pictures is a class, not a wrapper.
    """
    pictures = [path for path in tree.pictures if _lies_in(path, base)]
    while True:
        depth = len(base.parts)
        tops = {path.parts[depth] for path in pictures}
        deeper = all(len(path.parts) > depth + 2 for path in pictures)
        if len(tops) != 1 or not deeper or next(iter(tops)).lower() in SPLITS:
            return base
        base = base / tops.pop()


def _check_class_folders(tree: Tree, part: Part) -> None:
    """Raises InputError if a folder beside the class folders has files, but no picture."""
    depth = len(part.below.parts)
    inside = [path for path in tree.others if len(path.parts) > depth + 1 and _lies_in(path, part.below)]
    empty = class_order({path.parts[depth] for path in inside} - set(part.classes))
    if part.classes and empty:
        raise InputError(
            f"{tree.root / part.below / empty[0]}: has files but no image, beside the class folders "
            f"{listed(part.classes)}; allowed are files ending in {allowed()}: convert them, or move the folder"
        )


def _lies_in(path: PurePath, folder: PurePath) -> bool:
    return path.parts[: len(folder.parts)] == folder.parts


def _only(tree: Tree, base: PurePath, names: Sequence[str]) -> str:
    if len(names) > 1:
        raise InputError(f"{tree.root / base}: {listed(names)} are names of one split; keep one of them, or join them")
    return names[0]


def _split(tree: Tree, below: PurePath) -> Part:
    pictures = [path for path in tree.pictures if _lies_in(path, below)]
    inner = _unwrapped(replace(tree, pictures=tuple(pictures)), below)
    return classes_below(tree, pictures, inner)


def _check_same_classes(tree: Tree, train: Part, test: Part) -> None:
    if train.classes != test.classes:
        raise InputError(
            f"{tree.root}: {train.below} and {test.below} differ in their class folders: {list(train.classes)} and "
            f"{list(test.classes)}"
        )


def _divided(tree: Tree, part: Part) -> tuple[Part, Part]:
    """The pictures in two parts by the hashes of their names: the tenth with the smallest is the test split.

    The tenth is that of all pictures if each class then has pictures in both parts; else it is that of each class.
    """

    def rank(path: PurePath) -> bytes:
        return hashlib.sha256(os.fsencode(path.as_posix())).digest()

    def smallest(paths: Sequence[PurePath]) -> list[PurePath]:
        return sorted(paths, key=rank)[: -(-len(paths) // _TEST_SHARE)]

    groups: dict[int, list[PurePath]] = {}
    for path, label in zip(part.pictures, part.labels, strict=True):
        groups.setdefault(label, []).append(path)
    for label, paths in groups.items():
        if len(paths) < 2:
            name = f"class {part.classes[label]}" if part.classes else "it"
            raise InputError(
                f"{tree.root}: too few images for a train and a test split: {name} has one, {paths[0]}; needed are two "
                "or more of each class"
            )
    test = set(smallest(part.pictures))
    if not all(0 < sum(path in test for path in paths) < len(paths) for paths in groups.values()):
        test = {path for paths in groups.values() for path in smallest(paths)}
    chosen = ([path for path in part.pictures if (path in test) == held] for held in (False, True))
    train, held_out = (replace(part, pictures=tuple(paths)) for paths in chosen)
    return train, held_out
