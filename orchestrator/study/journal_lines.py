"""The lines of a journal: how each is written, and what is wrong with one that is damaged.

A line is a record of Optuna's as JSON, with one more key that Optuna's own backend passes over:

    "check": "2 JOURNAL LINE TRIALS CRC"

2 is the version of this key; JOURNAL (8 hexadecimal digits, drawn at random) tells journals apart; LINE is the number
of the line; TRIALS is how many trials exist after it; CRC is the CRC-32 of the whole line before it, in 8 digits. So a
flipped bit is noticed, and so are lines that are missing, copied, moved, or another journal's.

Lines without the key are written by earlier releases and by other programs that use Optuna. Nothing but their meaning
can be checked: `record_shapes` knows what such a line may hold.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

CHECK = "check"
VERSION = 2
#: Optuna's codes of the operations that this program has to know.
CREATE_STUDY, DELETE_STUDY, STUDY_NOTE, CREATE_TRIAL = 0, 1, 2, 4
SET_STATE, INTERMEDIATE_VALUE, TRIAL_NOTE = 6, 7, 8
#: The states of a trial that has ended, as Optuna numbers them: complete, pruned, failed.
ENDED = (1, 2, 3)
#: How every record begins; of a write that was interrupted at least a part of this is left.
_BEGINNING = b'{"op_code":'

Record = dict[str, Any]


class FaultError(Exception):
    """What is wrong with a line, in words that follow its number."""


class NewerRecordError(Exception):
    """A newer program wrote the line, which is whole."""


@dataclass(frozen=True)
class Check:
    """What a line says of its place."""

    journal: str
    line: int
    """From 1."""
    trials: int
    """Trials that exist after it."""


def parsed(content: bytes) -> tuple[Record, Check | None]:
    """The record in a line without its end, and what it says of its place; None if it carries no checksum.

    Raises FaultError if it is no record or if its checksum does not fit, and NewerRecordError.
    """
    if not content.strip():
        raise FaultError("is empty")
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise FaultError("is no record of a study") from None
    if not isinstance(record, dict):
        raise FaultError("is no record of a study")
    if (text := record.pop(CHECK, None)) is None:
        return record, None
    before, crc = content[:-10], content[-10:-2]
    if content[-2:] != b'"}' or crc != b"%08x" % crc32(before):
        raise FaultError("its checksum does not fit")
    version, *parts = str(text).split(" ")
    if version != str(VERSION):
        raise NewerRecordError(
            f"has version {version}, and this program reads up to {VERSION}; install a newer gansweep"
        )
    journal, line, trials, _ = parts
    return record, Check(journal, int(line), int(trials))


def written(records: Iterable[Record], lines: int, trials: int, journal: str = "") -> bytes:
    """`records` as lines that follow `lines` lines with `trials` trials, in the journal with the id `journal`.

    By default the journal gets a new id.
    """
    journal, text = journal or secrets.token_hex(4), bytearray()
    for line, record in enumerate(records, lines + 1):
        trials += record.get("op_code") == CREATE_TRIAL
        plain = json.dumps(record, separators=(",", ":"))
        before = f'{plain[:-1]},"{CHECK}":"{VERSION} {journal} {line} {trials} '.encode()
        text += b'%s%08x"}\n' % (before, crc32(before))
    return bytes(text)


@dataclass
class Lines:
    """Reads the lines of one journal in order; knows what those before say of the next one."""

    count: int = 0
    """Lines so far."""
    trials: int = 0
    journal: str = ""
    """The id in the lines with a checksum; empty before the first."""
    _ended: set[int] = field(default_factory=set)
    _created: set[bytes] = field(default_factory=set)

    def read(self, content: bytes) -> Record:
        """The record in the next line, given without its end.

        Raises FaultError, after which the line counts as not read, and NewerRecordError.
        """
        record, check = parsed(content)
        new = record.get("op_code") == CREATE_TRIAL
        if check is None:
            self._examine(record, content, new)
        else:
            if check.journal != (self.journal or check.journal):
                raise FaultError("is a record of another journal")
            if check.line != self.count + 1:
                raise FaultError(f"was written as line {check.line}: lines are missing, copied or moved")
            if check.trials != self.trials + new:
                raise FaultError("records of trials before it are missing")
            self.journal = check.journal
        self.count += 1
        self.trials += new
        if record.get("op_code") == SET_STATE and record["state"] in ENDED:
            self._ended.add(record["trial_id"])
        return record

    def _examine(self, record: Record, content: bytes, new: bool) -> None:
        """Raises FaultError if a record without a checksum cannot stand here."""
        from orchestrator.study.record_shapes import fault_in  # takes time to build, and newer journals need none of it

        if reason := fault_in(record):
            raise FaultError(reason)
        if (record["op_code"] == CREATE_STUDY) != (self.count == 0):
            raise FaultError("begins another study" if self.count else "does not begin a study")
        trial = record.get("trial_id", -1)
        if trial >= self.trials:
            raise FaultError(f"names trial {trial}, which does not exist yet")
        if trial in self._ended:
            raise FaultError(f"names trial {trial}, which has ended before")
        if new:
            if content in self._created:
                raise FaultError("is a copy of an earlier line")
            self._created.add(content)


def examine_rest(rest: bytes) -> None:
    """Raises FaultError if what follows the last end of a line cannot be a record that was cut off."""
    rest = rest.removesuffix(b"\r")
    begins = rest.startswith(_BEGINNING) or _BEGINNING.startswith(rest)
    if not begins or any(byte < 32 or byte > 126 for byte in rest):
        raise FaultError("is no record of a study")
    try:
        _, end = json.JSONDecoder().raw_decode(rest.decode())
    except (ValueError, RecursionError):
        return
    if end < len(rest):
        raise FaultError("has something behind its record")
