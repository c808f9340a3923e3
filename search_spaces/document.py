"""YAML text as plain data with the place of each key, and plain data as canonical text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml
from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError
from yaml.composer import Composer
from yaml.reader import ReaderError

from search_spaces.addresses import holds_secret, masked
from trainers.errors import InputError, shortened

#: Keys from the top of the document.
Path = tuple[str, ...]
Problem = tuple[Path, str]

#: A message names no more problems.
MOST_PROBLEMS = 10

#: Sections that a plain word may stand for: `sampler: random` is `sampler: {name: random}`.
SHORTHANDS: frozenset[Path] = frozenset({("dataset",), ("score", "extractor"), ("sampler",), ("pruner",)})

#: YAML 1.2's core schema. PyYAML's own is 1.1, which reads 1e-5 as a word, off as false and 010 as eight.
_CORE_SCHEMA = {
    "tag:yaml.org,2002:null": r"~|null|Null|NULL|",
    "tag:yaml.org,2002:bool": r"true|True|TRUE|false|False|FALSE",
    "tag:yaml.org,2002:int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "tag:yaml.org,2002:float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    ),
}


#: Further tags that a value may have; all others, such as !!python/name, are refused.
_OTHER_TAGS = frozenset({"tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"})
#: Levels of lists and mappings inside each other; no sweep file needs more than ten.
_DEEPEST = 50
#: Digits of a whole number; 10**300 is written in fewer.
_MOST_DIGITS = 400


class _Loader(Composer, yaml.CSafeLoader):
    """Reads YAML 1.2's core schema and nothing else, so that constructing a value cannot fail.

    libyaml's parser is seven times faster than PyYAML's own.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own attribute; replaced, never shared)
    depth = 0

    def __init__(self, text: str) -> None:
        yaml.CSafeLoader.__init__(self, text)
        Composer.__init__(self)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark: Any = self.peek_event().start_mark  # type: ignore[union-attr]  # a document has an event left
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not supported", problem_mark=mark)
        if self.depth == _DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"more than {_DEEPEST} levels", problem_mark=mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None and (problem := _unreadable(node)):
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        return node


def _unreadable(node: yaml.Node) -> str | None:
    """Why a node is no value of the core schema; None if it is one."""
    kind = node.tag.rpartition(":")[2]
    if node.tag not in _CORE_SCHEMA and node.tag not in _OTHER_TAGS:
        return f"the tag {node.tag!r} is not supported"
    if not isinstance(node, yaml.ScalarNode):
        return None if kind in ("seq", "map") else f"a collection is no {kind}"
    if kind in ("seq", "map"):
        return f"a text is no {kind}"
    text: str = node.value
    if node.tag in _CORE_SCHEMA and not re.fullmatch(_CORE_SCHEMA[node.tag], text):
        return f"{masked(repr(text))[:40]} is no {kind}"
    if kind == "int" and len(text) > _MOST_DIGITS:
        return f"a whole number of {len(text):,} digits; allowed are {_MOST_DIGITS}"
    if "\0" in text:
        return "a text has a character that no file name or terminal can have: U+0000"
    return None


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


for _tag, _pattern in _CORE_SCHEMA.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), None)
_Loader.add_constructor("tag:yaml.org,2002:int", _int)


@dataclass
class Document:
    """A mapping read from `source`; `origins` has the place of each key: file:line, or an override."""

    source: str
    data: dict[str, Any]
    origins: dict[Path, str] = field(default_factory=dict)

    def set(self, override: str) -> None:
        """Applies `a.b.c=value`, the value in YAML. Raises InputError that names the override."""
        dotted, equals, text = override.partition("=")
        shown = "***" if holds_secret(text) or masked(override) != override else text
        origin = f"--set {masked(dotted)}{equals}{shown if len(shown) <= 80 else shown[:77] + '...'}"
        path = tuple(part.strip() for part in dotted.split("."))
        if ":" in dotted and holds_secret(override):
            raise InputError("--set ***: expected KEY=VALUE, such as search.g_lr=0.001")
        if not equals or not all(path):
            raise InputError(f"{origin}: expected KEY=VALUE, such as search.g_lr=0.001")
        self.put(path, value_of(text, origin), origin)

    def put(self, path: Path, value: Any, origin: str) -> None:
        """Sets the key at `path`, written at `origin`. Raises InputError if a key above it has no keys below it."""
        node = self.data
        for depth, key in enumerate(path[:-1], start=1):
            if isinstance(node.get(key), str) and path[:depth] in SHORTHANDS:
                node[key] = {"name": node[key]}
            if key in node and path[depth] == "class" and path[:depth] in SHORTHANDS:
                node[key] = {}  # another kind: its keys are others
            child = node.setdefault(key, {})
            if not isinstance(child, dict):
                shown = shortened(masked(repr(child)))
                raise InputError(f"{origin}: {'.'.join(path[:depth])} is {shown}, which has no keys below it")
            node = child
        node[path[-1]] = value
        self.origins = {key: place for key, place in self.origins.items() if key[: len(path)] != path}
        self.origins[path] = origin

    def raise_errors(self, problems: Iterable[Problem]) -> NoReturn:
        """Raises InputError with one line per problem: origin, key, what is wrong; MOST_PROBLEMS and their number."""
        found = list(problems)
        lines = [
            f"{self.origin(path)}: {shortened(masked('.'.join(path)))}: {shortened(text)}"
            for path, text in found[:MOST_PROBLEMS]
        ]
        if len(found) > MOST_PROBLEMS:
            lines.append(f"{self.source}: {len(found) - MOST_PROBLEMS:,} more problems like these")
        raise InputError("\n".join(lines))

    def origin(self, path: Path) -> str:
        """The place of the key at `path`, or else of the nearest key above it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.origins:
                return self.origins[path[:end]]
        return self.source


def read(text: str, source: str) -> Document:
    """The document in `text`. Raises InputError for broken YAML, duplicate keys, aliases, or no mapping at the top."""
    document = Document(source, {})
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if isinstance(root, yaml.MappingNode):
            if duplicates := list(_index(root, (), document)):
                document.raise_errors(duplicates)
            document.data = loader.construct_document(root)
    except (yaml.YAMLError, ValueError) as error:
        place = f"{source}{_line(error, text)}"
        raise InputError(f"{place}: not YAML as a sweep file needs it: {_problem(error)}") from None
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{source}: a sweep file is a mapping of keys to values, such as `system: narman-cgan`")
    return document


def value_of(text: str, origin: str) -> Any:
    """The one value that `text` has as YAML. Raises InputError that names `origin`, the place of the text."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{origin}: not YAML as a sweep file needs it: {_problem(error)}") from None


def dump(data: dict[str, Any]) -> str:
    """Canonical text of plain data: keys in the order of `data`, innermost collections on one line."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
    return text


def pydantic_error(problems: Sequence[Problem]) -> ValidationError:
    """Problems as pydantic's error, so that a validator can name keys below the one it validates."""
    return ValidationError.from_exception_data(
        "sweep",
        [
            InitErrorDetails(type=PydanticCustomError("value_error", "{text}", {"text": text}), loc=path, input=None)
            for path, text in problems
        ],
    )


def _index(node: yaml.Node, path: Path, document: Document) -> Iterable[Problem]:
    """Fills `document.origins` for everything below `node`; yields each key written twice."""
    if isinstance(node, yaml.SequenceNode):
        children = [(str(index), child, child) for index, child in enumerate(node.value)]
    elif isinstance(node, yaml.MappingNode):
        children = [(str(key.value), key, child) for key, child in node.value]
    else:
        return
    for name, place, child in children:
        first = document.origins.get((*path, name))
        document.origins[*path, name] = f"{document.source}:{place.start_mark.line + 1}"
        if first:
            yield (*path, name), f"duplicate key, first written at {first}"
        yield from _index(child, (*path, name), document)


def _line(error: Exception, text: str) -> str:
    """`:LINE` of a mistake in `text`; empty if the error has no line."""
    if isinstance(error, ReaderError):
        return f":{text.encode().count(10, 0, error.position) + 1}"  # libyaml counts bytes
    mark = getattr(error, "problem_mark", None)
    return f":{mark.line + 1}" if mark else ""


def _problem(error: Exception) -> str:
    if isinstance(error, ReaderError):
        return f"the character {chr(error.character)!r} is not allowed"
    if isinstance(error, UnicodeEncodeError):  # a byte of the command line that is no UTF-8
        return f"the character {error.object[error.start]!r} is not allowed"
    return masked(getattr(error, "problem", None) or str(error))
