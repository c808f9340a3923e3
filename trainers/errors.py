"""The exception for mistakes of the user, apart from the modules that raise it, and sentences on faults of files."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: The disk is full, broken or may not be written. No mistake of a program has these numbers.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: Characters of a path in a sentence.
_LONGEST_PATH = 300
_DISK = (*_FULL, errno.EROFS, errno.EIO)


class InputError(Exception):
    """The user gave bad input. Commands show the message without a traceback and end with exit code 2.

    The message names the file or option, the key, the value, and what is allowed.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """`text` with backslash escapes for what cannot be printed.

    Python keeps the bytes of a file name that are no UTF-8 as lone surrogates, which no stream takes.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def shortened(text: str, most: int = 2000) -> str:
    """`text`, without its middle if it has more than `most` characters."""
    return text if len(text) <= most else f"{text[: most // 2]} [...] {text[-most // 2 :]}"


@contextmanager
def named(path: Path, *others: Path) -> Iterator[None]:
    """An error of the block about the disk, or about one of the files `others`, becomes an OSError that names `path`.

    A write that fails names no file by itself, and a temporary file means nothing to people.
    """
    try:
        yield
    except OSError as error:
        files = {error.filename, error.filename2} - {None}
        if files & {str(other) for other in others} if files else error.errno in _DISK:
            error.filename, error.filename2 = str(path), None
        raise
    except Exception as error:
        # Libraries in Rust report faults of the disk as a text with their number: "I/O error: ... (os error 28)".
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def fault_of_file(error: BaseException) -> str | None:
    """One sentence on an error that a file or its disk caused: the path and the reason.

    None for any other error, which may be a mistake of the program; an error that names no file may be one too.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and (cause.errno in _DISK or (cause.filename is not None and cause.strerror)):
            file = cause.filename if cause.filename2 is None else cause.filename2
            place = "" if file is None else f"{shortened(str(file), _LONGEST_PATH)}: "
            remedy = "; make space, then give the same command again" if cause.errno in _FULL else ""
            return printable(f"{place}{cause.strerror}{remedy}")
        cause = cause.__cause__
    return None
