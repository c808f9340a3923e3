"""The source is made of rooms of short files, in plain words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("benchmarks", "orchestrator", "search_spaces", "trainers")
MOST_LINES = 400
#: In many sentences that begin so, "where" stands for "if"; some are true relative clauses.
WHERE = re.compile(r"\bwhere (it|there|a|an|the|that|they|this|no|one|its|all)\b", re.IGNORECASE)
MOST_WHERE = 90


def files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def test_the_orchestrator_is_made_of_rooms() -> None:
    assert {path.name for path in (ROOT / "orchestrator").glob("*.py")} == {"__init__.py", "paths.py"}


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files(*FOLDERS, "tests")}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_what_decides_opens_no_file_and_prints_nothing() -> None:
    """What contracts of imports cannot see: calls of built-in functions."""
    pure = [*files("orchestrator/decisions", "search_spaces/pruners")]
    calls = [node for path in pure for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    called = {node.func.id for node in calls if isinstance(node.func, ast.Name)}
    assert "min" in called
    assert not called & {"open", "print", "input", "exec", "eval", "__import__"}


def test_where_seldom_stands_for_if() -> None:
    found = {str(path.relative_to(ROOT)): len(WHERE.findall(path.read_text())) for path in files(*FOLDERS)}
    assert sum(found.values()) <= MOST_WHERE, {name: count for name, count in found.items() if count}
