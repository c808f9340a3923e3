"""Version numbers of the formats in which things are kept, and migrations that read what earlier releases wrote.

docs/formats.md specifies each format. This module knows two of them: the manifest of a checkpoint, and the settings of
a run. The table of each other format is beside the code that reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainers.errors import InputError

#: The key under which data carry the number of their format.
VERSION = "format"

Data = dict[str, Any]
Migration = Callable[[Data], Data]
"""Makes plain data of one version from those of the version before; does not change its argument."""


@dataclass(frozen=True)
class Format:
    """A format that has had `len(migrations) + 1` versions. Data without a number are of version 1."""

    migrations: tuple[Migration, ...] = ()
    """The one at index i takes data from version i + 1 to version i + 2."""

    @property
    def newest(self) -> int:
        """The version that this program writes, and the newest one that it reads."""
        return len(self.migrations) + 1

    def stamped(self, data: Data) -> Data:
        """`data` of the newest version with its number."""
        return {VERSION: self.newest, **data}

    def read(self, data: Data, source: str, unnumbered: int = 1) -> Data:
        """`data` in the newest version, with its number; without a number they are of version `unnumbered`.

        Raises InputError that names `source` if the number is no version, or newer than this program.
        """
        version = data.get(VERSION, unnumbered)
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise InputError(f"{source}: {VERSION}: expected a whole number from 1 to {self.newest}, got {version!r}")
        if version > self.newest:
            raise InputError(
                f"{source}: it has format {version}, and this program reads formats up to {self.newest}; "
                "install a newer gansweep"
            )
        if version == self.newest and VERSION in data:
            return data
        plain = {key: value for key, value in data.items() if key != VERSION}
        for migration in self.migrations[version - 1 :]:
            plain = migration(plain)
        return self.stamped(plain)


def unchanged(data: Data) -> Data:
    """The migration to a version that differs from the one before only in what it may hold besides."""
    return data


def renamed(old: str, new: str) -> Migration:
    """The migration after which the key `old` is called `new`."""

    def migrate(data: Data) -> Data:
        return {new if key == old else key: value for key, value in data.items()}

    return migrate


def removed(name: str, implied: Any) -> Migration:
    """The migration after which there is no key `name`, and everything behaves as it did with the value `implied`.

    It raises InputError for any other value, which would no longer have its effect.
    """

    def migrate(data: Data) -> Data:
        if data.get(name, implied) != implied:
            raise InputError(f"{name} is {data[name]!r}, which no longer works: the program does as with {implied!r}")
        return {key: value for key, value in data.items() if key != name}

    return migrate


#: The manifest of a checkpoint. A key that a checkpoint must share with the run that continues it (`Run._identity`) may
#: be added with a migration that gives it the value which held for all runs before.
MANIFEST = Format(
    (
        # Version 2 numbers itself; the settings in its header may lack fields that have a default.
        unchanged,
    )
)

#: Changes of the fields of `Config` and its subclasses, by the name of the class that has the field, oldest first.
#: They carry no version numbers: a name is never used again, so that a change does nothing to newer settings. A new
#: field with a default needs no entry.
SETTINGS: dict[str, tuple[Migration, ...]] = {}
