"""Tries many hostile inputs of every kind, and prints a table.

    FUZZ=pictures,journals FUZZ_INPUTS=1-5000 FUZZ_COMMAND=1-40 python -m tests.fuzz [RESULTS]

The inputs of FUZZ_INPUTS are given to the program in this process, those of FUZZ_COMMAND to the command in a process of
its own. An input depends on its kind and its number alone, so one that breaks a law is made again by its number.
Counts are appended to RESULTS (default fuzz.jsonl) after every hundred inputs; what it has already is not run again.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import logging
import os
import re
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.kinds import KINDS, prepare
from tests.fuzz.laws import violations, violations_of_command

#: Inputs between two lines of the results.
PART = 100
#: Bytes of address space, so that an input that asks for more fails here and leaves the machine alone.
MEMORY = 16 << 30
WAYS = {"in process": ("FUZZ_INPUTS", "1-500"), "command": ("FUZZ_COMMAND", "1-5")}
Broken = list[str]


def broken_laws(kind: str, number: int, way: str, place: Path) -> Broken:
    """The laws that the input `number` of `kind` breaks; `place` has what `prepare` wrote."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        attack = KINDS[kind](Random(f"{kind}-{number}"), Path(folder), place)
        if way == "command":
            return violations_of_command(attack.arguments, Path(folder), attack.own)
        return violations(attack.run, Path(folder), attack.own, attack.call is None and "--json" in attack.arguments)


def main() -> int:
    faulthandler.enable()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    kinds = [kind for kind in os.environ.get("FUZZ", ",".join(KINDS)).split(",") if kind]
    if unknown := set(kinds) - set(KINDS):
        print(f"FUZZ: unknown {', '.join(sorted(unknown))}; allowed are {', '.join(KINDS)}", file=sys.stderr)
        return 2
    results = Path(sys.argv[1] if len(sys.argv) > 1 else "fuzz.jsonl")
    parts = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    known = {(part["kind"], part["way"], part["first"], part["last"]) for part in parts}
    with tempfile.TemporaryDirectory() as place:
        prepare(Path(place))
        for kind, way, first, last in _missing(kinds, known):
            parts.append(_run(kind, way, range(first, last + 1), Path(place)))
            with open(results, "a") as file:
                file.write(json.dumps(parts[-1]) + "\n")
            gc.collect()
    return _table(parts)


def _missing(kinds: list[str], known: set[tuple[str, str, int, int]]) -> Iterator[tuple[str, str, int, int]]:
    for way, (variable, usual) in WAYS.items():
        written = os.environ.get(variable, usual)
        if (found := re.fullmatch(r"(\d+)-(\d+)", written)) is None:
            raise SystemExit(f"{variable}={written}: must be a range of numbers such as 1-5000")
        start, end = map(int, found.groups())
        for first in range(start, end + 1, PART):
            part = first, min(end, first + PART - 1)
            yield from ((kind, way, *part) for kind in kinds if (kind, way, *part) not in known)


def _run(kind: str, way: str, numbers: range, place: Path) -> dict[str, Any]:
    start, broken = time.monotonic(), {}
    for number in numbers:
        if found := broken_laws(kind, number, way, place):
            broken[number] = found
            print(f"{kind} {number} ({way}): {'; '.join(found)}", flush=True)
    seconds = round(time.monotonic() - start, 1)
    return {"kind": kind, "way": way, "first": numbers[0], "last": numbers[-1], "broken": broken, "seconds": seconds}


def _table(parts: list[dict[str, Any]]) -> int:
    print(f"\n{'kind':<14}{'way':<12}{'inputs':>8}{'broken':>8}{'ms each':>9}")
    of: Callable[[dict[str, Any]], tuple[str, str]] = lambda part: (part["kind"], part["way"])  # noqa: E731
    for key in dict.fromkeys(map(of, parts)):
        own = [part for part in parts if of(part) == key]
        inputs = sum(part["last"] - part["first"] + 1 for part in own)
        each = 1000 * sum(part["seconds"] for part in own) / inputs
        print(f"{key[0]:<14}{key[1]:<12}{inputs:>8}{sum(len(part['broken']) for part in own):>8}{each:>9.0f}")
    total = sum(part["last"] - part["first"] + 1 for part in parts)
    bad = sum(len(part["broken"]) for part in parts)
    print(f"{total} inputs, {bad} broken")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
