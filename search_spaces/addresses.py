"""Addresses of databases, servers and buckets, and secrets, which no text that is kept or shown may hold.

An address may have no password, no token, and no option that could be one: the sweep file is kept with the study, and
others see the arguments of a process. Where a secret belongs instead is said by `INSTEAD`.

Only regular expressions look at what may hold a secret: the exceptions of parsers of URLs repeat what they parse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl

#: Keys from the top of a document.
Path = tuple[str, ...]

_AWS = "keys come from the standard chain of AWS: environment, shared credentials file, or the machine's role"
_MLFLOW = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
#: How a client gets its secret, by the scheme of the address.
INSTEAD = {
    "sqlite": "a file has none",
    "postgresql": "set PGPASSWORD or PGPASSFILE, or write ~/.pgpass",
    "mysql": "write an option file and name it by ?read_default_file=FILE",
    "http": _MLFLOW,
    "https": _MLFLOW,
    "s3": _AWS,
}
#: The same if the scheme does not tell.
ELSEWHERE = "clients take it from PGPASSFILE, MLFLOW_TRACKING_TOKEN, the chain of AWS, or other environment variables"
_DATABASES, _SERVERS = ("sqlite", "postgresql", "mysql"), ("http", "https")

#: The drivers that are installed with this program, for databases whose default in SQLAlchemy is another.
_DRIVERS = {"postgresql": "postgresql+psycopg2"}

S3 = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*")

_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::[0-9]{1,5})?"
_SERVER = re.compile(rf"https?://{_HOST}(/[\w.~/-]*)?")
_SQL_SERVER = re.compile(
    rf"(?:postgresql|mysql)(?:\+\w+)?://(?:[\w.~-]+(?:%40[\w.-]+)?@)?(?P<hosts>(?:{_HOST}(?:,{_HOST})*)?)"
    r"(?:/[\w.~-]*)?(?:\?(?P<options>[^#?]*))?"
)
_SQL_FILE = re.compile(r"sqlite:///(?P<file>[^?#]+)(?:\?(?P<options>[^#?]*))?")
#: Options of libpq, MySQL's clients and SQLite that hold no secret.
_OPTION = re.compile(
    r"ssl(?!\w*passw)\w*|gss\w*|keepalives\w*|\w*timeout|(fallback_)?application_name|read_default_(file|group)|host|"
    r"hostaddr|port|user|dbname|service|passfile|options|unix_socket|charset|client_encoding|use_unicode|compress|"
    r"local_infile|target_session_attrs|load_balance_hosts|replication|require_auth|requirepeer|channel_binding|"
    r"krbsrvname|mode|cache|uri|vfs|immutable|nolock|check_same_thread|isolation_level"
)

#: What the ids of keys and tokens of well-known services look like, wherever they stand.
_KEY = re.compile(r"(?<![A-Za-z0-9])((AKIA|ASIA)[A-Z0-9]{16}|(gh[opsu]|github_pat|glpat|hf)[_-]\w{16,})(?![A-Za-z0-9])")
_NAMES = r"(?:passw(?:or)?d|passwd|pwd|secret|token|api_?key|access_?key|account_?key|signature|sig|credentials?)"
_SECRET_NAME = re.compile(rf"(?i){_NAMES}\Z")
_ASSIGNED = re.compile(rf"(?i){_NAMES}\s*=\s*\S")
#: A value with the name of a secret: password=..., 'token': ...
_NAMED = re.compile(rf"(?i)({_NAMES}['\"]?\s*[=:]\s*)('[^']*'|\"[^\"]*\"|[^\s,;&}}\]'\"]+)")


def masked(text: str) -> str:
    """`text` as it may be shown: with stars for whatever may be a secret of an address in it, and for keys.

    In each line these are: all from `:/` to the last `@`, since a password may contain any character; a word up to an
    `@` that has a `:` before; all from `?` or `#` to the end of the word in an address; values with names such as
    `password`; and what has the form of a key. A part too much is better than one too few.
    """
    named = _NAMED.sub(r"\1***", _KEY.sub("***", text))
    return "\n".join(map(_masked_line, named.split("\n")))


def _masked_line(line: str) -> str:
    start, end = line.find(":/"), line.rfind("@")
    if 0 <= start < end:
        line = f"{line[:start]}://***{line[end:]}"
    return "".join(map(_masked_word, re.split(r"(\s+)", line)))


def _masked_word(word: str) -> str:
    if ":/" not in word:
        before, at, after = word.rpartition("@")
        return f"***@{after}" if at and ":" in before else word
    scheme, _, rest = word.partition(":/")
    found = re.match("[^?#]*[?#]", rest)
    return f"{scheme}:/{found[0][:-1]}?***" if found else word


def reason(error: Exception) -> str:
    """The first line of what an exception of a library says, as it may be shown: at most 200 characters."""
    return masked((str(error).strip() or type(error).__name__).splitlines()[0])[:200]


def holds_secret(text: str) -> bool:
    """Whether `text` may hold a secret: it has the form of a key, or is an address with more than a place.

    A user alone is none in the address of a database.
    """
    if _KEY.search(text):
        return True
    return not _is_database(text) and (_is_suspicious(text) or _ASSIGNED.search(text) is not None)


def secrets_in(data: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """The place of each text in plain `data` that may hold a secret, keys included, with a sentence on what to do."""
    if isinstance(data, dict):
        for key, value in data.items():
            name = str(key)
            if holds_secret(name) or (isinstance(value, str) and value and _SECRET_NAME.fullmatch(name)):
                yield (*path, name), _refusal("secret")
            else:
                yield from secrets_in(value, (*path, name))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from secrets_in(value, (*path, str(index)))
    elif isinstance(data, str) and holds_secret(data):
        yield path, refusal(path, data)


def refusal(path: Path, text: str) -> str:
    """Why `text`, which may hold a secret, is refused as the value of the key at `path`, and where a secret belongs."""
    try:
        _CHECKS.get(path, str)(text)
    except ValueError as error:
        return str(error)
    return _refusal("secret", INSTEAD.get(_kind(text), ELSEWHERE))


def database(url: str) -> str:
    """`url` if it names a database, as SQLAlchemy writes it. Raises ValueError, which repeats no secret."""
    return _checked(url, _DATABASES, "sqlite:///FILE, postgresql://USER@HOST/DATABASE or mysql+DRIVER://...")


def tracking(uri: str) -> str:
    """`uri` if it names a database or a server of MLflow. Raises ValueError, which repeats no secret."""
    servers = "http://HOST:PORT or https://..."
    return _checked(uri, _DATABASES + _SERVERS, f"sqlite:///FILE, postgresql://USER@HOST/DATABASE, {servers}")


def with_driver(url: str) -> str:
    """`url` with the installed driver if it names none."""
    scheme, separator, rest = url.partition("://")
    return f"{_DRIVERS.get(scheme, scheme)}{separator}{rest}"


def artifacts(place: str) -> str:
    """`place` if it holds no secret, and a proper bucket if it is on S3. Raises ValueError, which repeats no secret."""
    if holds_secret(place):
        raise ValueError(f"{_refusal('key', _AWS)}; expected a folder or s3://BUCKET/PREFIX")
    if place.startswith(S3):
        _check_bucket(place)
    return place


def store_path(path: str) -> str:
    """`path` if it is a folder's or s3://BUCKET/PREFIX. Raises ValueError, which repeats no secret."""
    if holds_secret(path):
        raise ValueError(f"{_refusal('key', _AWS)}; expected a folder or s3://BUCKET/PREFIX")
    if not path.startswith(S3):
        if re.match(r"[A-Za-z0-9+.-]+://", path):
            raise ValueError(f"expected a folder or s3://BUCKET/PREFIX, got {path!r}")
        return path
    _check_bucket(path)
    prefix = path.removeprefix(S3).partition("/")[2].strip("/")
    if prefix and (not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/"))):
        raise ValueError(f"a prefix is words of letters, digits, '.', '_', '=', '-' with '/' between, got {prefix!r}")
    return path


def endpoint(url: str) -> str:
    """`url` if it is a server's http(s)://HOST[:PORT]. Raises ValueError, which repeats no secret."""
    if holds_secret(url) or set("@?#") & set(url):
        raise ValueError(f"{_refusal('key', _AWS)}; expected http://HOST:PORT, https://HOST or null")
    if not re.fullmatch(r"https?://(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?/?", url):
        raise ValueError(f"expected http://HOST:PORT, https://HOST or null, got {url!r}")
    return url


#: The keys of a sweep file that are addresses.
_CHECKS: dict[Path, Callable[[str], str]] = {
    ("study", "storage"): database,
    ("tracking", "uri"): tracking,
    ("tracking", "artifacts"): artifacts,
    ("store", "path"): store_path,
    ("store", "endpoint"): endpoint,
}


def _checked(url: str, kinds: tuple[str, ...], allowed: str) -> str:
    kind = _kind(url)
    fits = _is_database(url) if kind in _DATABASES else _SERVER.fullmatch(url)
    if kind in kinds and fits and not _KEY.search(url):
        return url
    if holds_secret(url) or set("@?#") & set(url):
        raise ValueError(f"{_refusal('password', INSTEAD.get(kind, 'leave it out'))}; expected {allowed} or null")
    raise ValueError(f"expected {allowed} or null, got {url!r}")


def _check_bucket(path: str) -> None:
    bucket = path.removeprefix(S3).partition("/")[0]
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(
            "the name of a bucket is 3 to 63 small letters, digits, '-' and '.', between letters or digits, "
            f"got {bucket!r}"
        )


def _kind(url: str) -> str:
    """The scheme of an address without its driver, in small letters."""
    return url.partition(":")[0].partition("+")[0].lower()


def _is_suspicious(text: str) -> bool:
    """Whether a word has `:` before `@`, or anything follows `:/` that is more than a place."""
    place = text.partition(":/")[2]
    return bool(set("@?#") & set(place)) or any(":" in word.rpartition("@")[0] for word in text.split())


def _is_database(url: str) -> bool:
    """Whether `url` is the address of a database in the form that `database` allows."""
    if found := _SQL_FILE.fullmatch(url):
        return not _is_suspicious(found["file"]) and _are_harmless(found["options"])
    found = _SQL_SERVER.fullmatch(url)
    return found is not None and bool(found["hosts"] or found["options"]) and _are_harmless(found["options"])


def _are_harmless(options: str | None) -> bool:
    pairs = parse_qsl(options or "", keep_blank_values=True)
    return all(_OPTION.fullmatch(name) and not holds_secret(value) and "@" not in value for name, value in pairs)


def _refusal(what: str, instead: str = ELSEWHERE) -> str:
    return f"a {what} must not stand in a sweep file, which is kept and shown: {instead}"
