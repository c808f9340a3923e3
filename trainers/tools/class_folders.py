"""The classes of generated images, which are told by the names of their folders."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from trainers.data.layout import class_order

#: So many names are shown in a message.
_SHOWN = 12


def labels_of(folders: Sequence[str], classes: Sequence[str]) -> dict[str, int] | None:
    """The label of each of `folders`, which is the position of its name in `classes`.

    Numbers in names are compared as numbers, so `01` is `1` and `run-007` is `run-7`, unless all names are equal as
    they are. None if a name is no class, or if two are the same class.
    """
    if set(folders) <= set(classes):
        return {name: classes.index(name) for name in folders}
    own, known = [_key(name) for name in folders], [_key(name) for name in classes]
    if len(set(own)) < len(own) or len(set(known)) < len(known) or not set(own) <= set(known):
        return None
    return {name: known.index(key) for name, key in zip(folders, own, strict=True)}


def shown(names: Sequence[str]) -> str:
    """Names in natural order for a message, the first ones and their number if there are many."""
    first = ", ".join(class_order(names)[:_SHOWN])
    return first if len(names) <= _SHOWN else f"{first}, ... ({len(names)} in all)"


def _key(name: str) -> tuple[int | str, ...]:
    """Equal for names that differ only in zeros before numbers or in composed letters."""
    parts = re.split(r"([0-9]+)", unicodedata.normalize("NFC", name))
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts))
