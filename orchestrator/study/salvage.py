"""What can be kept of a damaged journal. Nothing is guessed: a record is kept as it was written, or not at all.

A line with a checksum says which one it is, so lines that were moved or copied are put back, and what is missing is
counted. Optuna numbers trials by the order of their creation. If the creation of a trial is lost, a failed trial takes
its place, so that all others keep their numbers, and with them their checkpoints in the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby, pairwise

from orchestrator.study.journal_lines import (
    CREATE_STUDY,
    CREATE_TRIAL,
    DELETE_STUDY,
    ENDED,
    INTERMEDIATE_VALUE,
    SET_STATE,
    Check,
    FaultError,
    Record,
    examine_rest,
    parsed,
)
from orchestrator.study.record_shapes import fault_in
from orchestrator.study.records import REASON

LOST = "its records in the study's journal were damaged"
#: The worker in records that a repair adds.
WORKER = "gansweep-repair-0"
#: A record has more bytes than this.
_SHORTEST = 90


@dataclass(frozen=True)
class _Line:
    number: int
    """In the file, from 1."""
    content: bytes
    record: Record
    check: Check | None

    @property
    def begins(self) -> bool:
        return bool(self.record["op_code"] == CREATE_STUDY)

    @property
    def creates(self) -> bool:
        return bool(self.record["op_code"] == CREATE_TRIAL)

    @property
    def writer(self) -> str:
        """The process that wrote it: Optuna's id of a worker without the number of the thread."""
        return str(self.record["worker_id"]).rpartition("-")[0]


@dataclass
class Salvage:
    """The records of a journal that are whole."""

    kept: list[tuple[int | None, Record]] = field(default_factory=list)
    """In order, each with the number of its trial; None for a record of the study."""
    lost: Counter[int] = field(default_factory=Counter)
    """The trials that cannot be kept, with the number of their whole records, which are left out."""
    faults: dict[int, str] = field(default_factory=dict)
    """What is wrong with the lines that are not kept, by their number in the file."""
    moved: bool = False
    """Whether lines stood in the wrong order."""
    missing: int | None = None
    """How many of the records that the checksums count are not whole; None if no line has a checksum."""
    most_lost: int = 0
    """No more records than this can be lost."""

    def drop(self, trials: AbstractSet[int]) -> None:
        """Leaves out the records of kept `trials`, which become failed ones."""
        self.lost.update(trial for trial, _ in self.kept if trial is not None and trial in trials)
        self.kept = [
            (trial, _failed_trial() if trial in trials else record)
            for trial, record in self.kept
            if trial not in trials or record["op_code"] == CREATE_TRIAL
        ]

    def reserve(self, trials: int) -> None:
        """Adds failed trials, in place of those that are lost at the end, until there are `trials`."""
        for number in range(sum(record["op_code"] == CREATE_TRIAL for _, record in self.kept), trials):
            self.lost[number] += 0
            self.kept.append((number, _failed_trial()))

    def reopen(self, trials: AbstractSet[int]) -> None:
        """Leaves out the ends of `trials`, which go on from their checkpoints."""
        self.kept = [
            (trial, record)
            for trial, record in self.kept
            if not (trial in trials and record["op_code"] == SET_STATE and record["state"] in ENDED)
        ]

    def forget_values(self, values: AbstractSet[tuple[int, int]]) -> None:
        """Leaves out the intermediate values with these trials and steps."""
        self.kept = [
            (trial, record)
            for trial, record in self.kept
            if record["op_code"] != INTERMEDIATE_VALUE or (trial, record["step"]) not in values
        ]


def salvage(data: bytes, name: str | None) -> Salvage:
    """What is whole of the journal with the bytes `data`, of the study `name`; None: of the first one in it.

    Raises NewerRecordError if a newer program wrote one of its lines.
    """
    found = Salvage()
    lines, contents = _read(data, found)
    ordered = _in_order(lines, found)
    found.moved = any(before.number > after.number for before, after in pairwise(ordered))
    _Rebuilding(found, ordered, name).run()
    last = max((line.number for line in ordered if line.check), default=0)
    uncounted = [contents[number - 1] for number in found.faults if number > last]
    found.most_lost = (found.missing or 0) + sum(1 + len(content) // _SHORTEST for content in uncounted)
    return found


def _read(data: bytes, found: Salvage) -> tuple[list[_Line], list[bytes]]:
    """The lines that are whole, and the content of all."""
    contents, lines = data.split(b"\n"), []
    for number, content in enumerate(contents, 1):
        content = content.removesuffix(b"\r")
        try:
            if number == len(contents):
                examine_rest(content)
                break
            record, check = parsed(content)
            if check is None and (fault := fault_in(record)) is not None:
                raise FaultError(fault)
        except FaultError as error:
            found.faults[number] = str(error)
        else:
            lines.append(_Line(number, content, record, check))
    return lines, contents


def _in_order(lines: Sequence[_Line], found: Salvage) -> list[_Line]:
    """`lines` as they were written, without copies and without lines of another journal."""
    journal = next((line.check.journal for line in lines if line.check), None)
    known: dict[int, _Line] = {}
    ambiguous: set[int] = set()
    others: list[tuple[int, _Line]] = []
    before = 0
    for line in lines:
        if line.check is None:
            others.append((before, line))
            continue
        before = line.check.line
        if line.check.journal != journal:
            found.faults[line.number] = "is a record of another journal"
        elif before not in known:
            known[before] = line
        elif known[before].content == line.content:
            found.faults[line.number] = f"is a copy of line {known[before].number}"
        else:
            ambiguous.add(before)
            found.faults[line.number] = f"line {known[before].number} is another record of the same place"
    for place in ambiguous:
        line = known.pop(place)
        found.faults[line.number] = "another line is another record of the same place"
    return _merged(known, others, found)


def _merged(known: dict[int, _Line], others: Sequence[tuple[int, _Line]], found: Salvage) -> list[_Line]:
    """The lines with checksums by their places, and between them `others`, each with the place before it in the file.

    Lines without a checksum are kept if there is room for them. Those at the beginning of the file always are: they
    were written before journals had checksums.
    """
    places, last = sorted(known), max(known, default=0)
    missing = last - len(known)
    placed = [(place, 0, line) for place, line in known.items()]
    for before, group in groupby(others, key=lambda pair: pair[0]):
        run = [line for _, line in group]
        after = next((place for place in places if place > before), None)
        room = after - before - 1 if after is not None else 0 if missing > 0 else len(run)
        if before and len(run) > room:
            found.faults |= {line.number: "has no checksum, and its place is unknown" for line in run}
            continue
        placed += [(before, line.number, line) for line in run]
        missing -= min(room, len(run)) if after is not None else 0
    found.missing = max(0, missing) if known else None
    return [line for *_, line in sorted(placed, key=lambda each: each[:2])]


class _Rebuilding:
    """Goes through the lines in order and gives each creation of a trial its number."""

    def __init__(self, found: Salvage, lines: Sequence[_Line], name: str | None) -> None:
        self._found, self._lines = found, lines
        self._trials = 0
        self._ended: set[int] = set()
        self._created: set[bytes] = set()
        begun = [line for line in lines if line.begins]
        name = name or (begun[0].record["study_name"] if begun else None)
        self._beginning = next((line for line in begun if line.record["study_name"] == name), None)
        self._strangers = {line.writer for line in begun if line.record["study_name"] != name}
        self._first_damage = min(found.faults, default=len(lines) + 1)
        self._named = Counter(line.record.get("trial_id") for line in lines if line.check is None)
        self._most_trials = max((line.check.trials for line in lines if line.check), default=len(lines))

    def run(self) -> None:
        """Fills the salvage with the records."""
        if self._beginning is not None:
            self._found.kept.append((None, self._beginning.record))
        for place, line in enumerate(self._lines):
            if line is self._beginning:
                continue
            if line.begins or line.writer in self._strangers:
                self._leave_out(line, "belongs to another study, or begins this one again")
            elif line.record["op_code"] == DELETE_STUDY:
                self._leave_out(line, "deletes the study")
            elif line.creates:
                self._keep_creation(place, line)
            else:
                self._keep(line)

    def _leave_out(self, line: _Line, fault: str) -> None:
        self._found.faults[line.number] = fault
        self._first_damage = min(self._first_damage, line.number)

    def _replace_lost(self, trials: int) -> None:
        if trials > self._trials:
            self._found.reserve(trials)
            self._trials = trials

    def _keep_creation(self, place: int, line: _Line) -> None:
        if line.check is None and line.content in self._created:
            return self._leave_out(line, "is a copy of an earlier line")
        number = self._number(place, line)
        if number is None:
            return self._leave_out(line, "creates a trial whose number is unknown, since no other line names it")
        if number < self._trials:
            return self._leave_out(line, f"creates trial {number}, which other lines have named before")
        self._replace_lost(number)
        self._created.add(line.content)
        self._found.kept.append((number, line.record))
        self._trials += 1

    def _number(self, place: int, line: _Line) -> int | None:
        """The number of the trial that `line` creates; None if that is unknown."""
        if line.check is not None:
            return line.check.trials - 1
        named: Counter[int] = Counter()
        for later in self._lines[place + 1 :]:  # a driver writes the parameters of a trial after it has created it
            if later.record["worker_id"] == line.record["worker_id"]:
                if later.creates:
                    break
                named[later.record.get("trial_id", -1)] += 1
        for trial, _ in named.most_common():
            if trial == self._trials or trial in self._found.lost or self._existed(trial, line):
                return trial
        return None if self._first_damage < line.number else self._trials

    def _existed(self, trial: int, line: _Line) -> bool:
        """Whether a trial whose creation was not met before `line` must have existed, since `line` names it."""
        if not self._trials <= trial < self._most_trials:
            return False
        return self._named[trial] > 1 or self._first_damage < line.number

    def _keep(self, line: _Line) -> None:
        if line.check is not None:
            self._replace_lost(line.check.trials)
        trial = line.record.get("trial_id")
        if trial is not None:
            if self._existed(trial, line):
                self._replace_lost(trial + 1)
            if trial >= self._trials:
                return self._leave_out(line, f"names trial {trial}, which does not exist")
            if trial in self._found.lost:
                self._found.lost[trial] += 1
                return
            if line.check is None and trial in self._ended:
                return self._leave_out(line, f"names trial {trial}, which has ended before")
            if line.record["op_code"] == SET_STATE and line.record["state"] in ENDED:
                self._ended.add(trial)
        self._found.kept.append((trial, line.record))


def _failed_trial() -> Record:
    now = datetime.now(UTC).isoformat()
    times = {"datetime_start": now, "datetime_complete": now}
    notes = {"user_attrs": {REASON: LOST}}
    return {"op_code": CREATE_TRIAL, "worker_id": WORKER, "study_id": 0, "state": 3, **times, **notes}
