"""How texts, bytes and values are spoiled. Every function draws from the `Random` that it gets."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

#: A secret of every input that has one. It must appear in no output and in no file that the program writes.
MARKER = "m4rk3r-S3CR3T"

#: Values, as YAML text, that no key of a sweep file expects. Functions make the long ones.
ODD_VALUES: tuple[str | Callable[[Random], str], ...] = (
    "!!bool x",
    "!!timestamp x",
    "!!binary '%%%'",
    "!!set {a, b}",
    "!!omap [a: 1]",
    "!!int ''",
    "!!float 1__2",
    "!!null x",
    "!!python/object/apply:os.system [true]",
    "!unknown {a: 1}",
    "2026-02-30",
    "2026-02-03T99:99:99Z",
    "99999999999999999999",
    "-1",
    "0",
    "-0.0",
    "1e400",
    "-1e-400",
    ".inf",
    "-.inf",
    ".nan",
    "0x",
    "0o9",
    "1_000",
    "~",
    "null",
    "''",
    '"\\0"',
    '"\\ud800"',
    '"\\u202e\\u0007\\x1b[31m"',
    "ünï 😀",
    "[]",
    "{}",
    "[[]]",
    "{'': ''}",
    "{null: null}",
    "{[a, b]: c}",
    "{1: 2, 1.5: 3, true: 4}",
    "{choice: []}",
    "{choice: [1, 1, 1]}",
    "{choice: [[1], {a: b}]}",
    "{int: [1, 10000000000000000000]}",
    "{int: [5, 1]}",
    "{int: [1, 2, 3]}",
    "{int: [1.5, 2]}",
    "{uniform: [0, .inf]}",
    "{uniform: [.nan, 1]}",
    "{log_uniform: [0, 1]}",
    "{log_uniform: [1e-320, 1e308]}",
    "{every: 1e-9, until: 1e9}",
    "{every: 0, until: 0}",
    "{name: grid}",
    "{class: 'os:system'}",
    "{class: 'no.such:Thing'}",
    "{class: ':'}",
    "{trials: 1000000000000}",
    "{hours: 1e308}",
    "../../../etc/passwd",
    "/proc/self/mem",
    "/dev/zero",
    "CON",
    "a/b",
    ".",
    "..",
    "&a [*a]",
    "*undefined",
    "| \n  folded",
    "? a",
    "- a",
    "a: b: c",
    "'",
    '"',
    "[",
    "{",
    "%TAG",
    "@",
    "`",
    "\t",
    lambda random: "9" * random.choice([400, 5_000, 100_000]),
    lambda random: "0." + "9" * 20_000,
    lambda random: "a" * random.choice([300, 5_000, 200_000]),
    lambda random: "[" * random.choice([50, 3_000]),
    lambda random: "[" * (depth := random.choice([50, 3_000])) + "]" * depth,
    lambda random: "{a: " * (depth := random.choice([50, 3_000])) + "1" + "}" * depth,
    lambda random: "{" + ", ".join(f"k{i}: {i}" for i in range(random.choice([30, 60_000]))) + "}",
    lambda random: "[" + ", ".join(map(str, range(random.choice([30, 20_000])))) + "]",
    lambda random: "{choice: [" + ", ".join(map(str, range(random.choice([30, 20_000])))) + "]}",
    lambda random: address(random),
)

_PASSWORDS = (
    MARKER,
    f"{MARKER}/x",
    f"x#{MARKER}",
    f"x?{MARKER}",
    f"x@{MARKER}",
    f"{MARKER}@@",
    f"%{MARKER}",
    f"a:{MARKER}",
    f"{MARKER}[",
)
_SCHEMES = ("postgresql", "postgresql+psycopg2", "mysql", "http", "https", "s3", "HTTPS", "ray", "redis", "sqlite")
_SHAPES = (
    "{scheme}://u:{password}@h/db",
    "{scheme}://:{password}@h:5432/db",
    "{scheme}://u:{password}@[::1/db",
    "{scheme}://u:{password}@h:99999999/db",
    "{scheme}://u:{password}@h,h2/db",
    "https://{marker}@h/db",  # a token; the user of a database without a password is no secret
    "{scheme}://h/db?password={marker}",
    "{scheme}://h/db?sslmode=require&token={marker}",
    "{scheme}://h/db#access_token={marker}",
    " {scheme}://u:{password}@h",
)


ODD_BYTES = (b"\0", b"\xff\xfe", b"\n", b"\r\n", b"{", b"9" * 40, b"\x89PNG", b"%!PS")


def address(random: Random) -> str:
    """An address with MARKER in the place of a secret, as YAML text."""
    shape, scheme, password = random.choice(_SHAPES), random.choice(_SCHEMES), random.choice(_PASSWORDS)
    return json.dumps(shape.format(scheme=scheme, password=password, marker=MARKER))


def odd_value(random: Random) -> str:
    """A value, as YAML text, that hardly any key expects."""
    chosen = random.choice(ODD_VALUES)
    return chosen if isinstance(chosen, str) else chosen(random)


def spoiled_bytes(data: bytes, random: Random) -> bytes:
    """`data` with one to three faults: flipped bits, a zeroed block, a cut, a piece twice, odd bytes put in."""
    spoiled = bytearray(data)
    for _ in range(random.randint(1, 3)):
        if not spoiled:
            return b""
        start = random.randrange(len(spoiled))
        end = min(len(spoiled), start + random.choice([1, 4, 64, 4096]))
        kind = random.choice(["flip", "flip", "zero", "cut", "twice", "put in", "remove"])
        if kind == "flip":
            spoiled[start] ^= 1 << random.randrange(8)
        elif kind == "zero":
            spoiled[start:end] = bytes(end - start)
        elif kind == "cut":
            del spoiled[start:]
        elif kind == "twice":
            spoiled[start:start] = spoiled[start:end]
        elif kind == "put in":
            spoiled[start:start] = random.choice(ODD_BYTES)
        else:
            del spoiled[start:end]
    return bytes(spoiled)


def spoiled_lines(text: str, random: Random) -> str:
    """A sweep file's `text` with one to three faults in its lines or in its values."""
    lines = text.splitlines()
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(lines))
        key, colon, _ = lines[at].partition(":")
        kind = random.choice(["value", "value", "value", "value", "remove", "twice", "key", "indent", "swap"])
        if kind == "value" and colon:
            lines[at] = f"{key}: {odd_value(random)}"
        elif kind == "remove":
            lines[at] = ""
        elif kind == "twice":
            lines.insert(at, lines[at])
        elif kind == "key":
            lines.insert(at, f"{odd_value(random)[:300]}: {odd_value(random)}")
        elif kind == "indent":
            lines[at] = f"{random.choice([' ', '    ', chr(9), '- '])}{lines[at]}"
        else:
            other = random.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
    return "\n".join(lines) + "\n"


def spoiled_json(value: Any, random: Random) -> Any:
    """A copy of plain data with one value somewhere inside replaced by one of another kind."""
    copy = json.loads(json.dumps(value))
    parent: Any = {"": copy}
    key: Any = ""
    while isinstance(parent[key], (dict, list)) and parent[key] and random.random() < 0.75:
        parent = parent[key]
        key = random.choice(list(parent)) if isinstance(parent, dict) else random.randrange(len(parent))
    odd = [None, True, -1, 0, 10**30, 1e308, float("nan"), float("inf"), "", "x", "1" * 5000, [], {}, [[]], {"": 0}]
    if random.random() < 0.2 and isinstance(parent, dict) and key != "":
        del parent[key]
    else:
        parent[key] = random.choice(odd)
    return copy if parent is not None and key != "" else parent[""]
