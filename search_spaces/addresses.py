"""Addresses of databases and servers in a sweep file. None may hold a password: the file is kept with the study."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

#: Databases that keep a study or MLflow's records, with the way to give their clients a password.
DATABASES = {
    "sqlite": "a file has none",
    "postgresql": "set PGPASSWORD or write ~/.pgpass",
    "mysql": "write an option file and name it by ?read_default_file=FILE",
}
SERVERS = dict.fromkeys(("http", "https"), "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")

#: The drivers that are installed with this program, for databases whose default in SQLAlchemy is another.
_DRIVERS = {"postgresql": "postgresql+psycopg2"}


def database(url: str) -> str:
    """`url` if it names a database of `DATABASES`, as SQLAlchemy writes it. Raises ValueError."""
    return _checked(url, DATABASES, "sqlite:///FILE, postgresql://USER@HOST/DATABASE or mysql+DRIVER://...")


def tracking(uri: str) -> str:
    """`uri` if it names a database of `DATABASES` or a server of `SERVERS`. Raises ValueError."""
    servers = "http://HOST:PORT or https://..."
    return _checked(uri, DATABASES | SERVERS, f"sqlite:///FILE, postgresql://USER@HOST/DATABASE, {servers}")


def with_driver(url: str) -> str:
    """`url` with the installed driver if it names none."""
    scheme, separator, rest = url.partition("://")
    return f"{_DRIVERS.get(scheme, scheme)}{separator}{rest}"


def _checked(url: str, passwords: dict[str, str], allowed: str) -> str:
    parts = urlsplit(url)
    kind = parts.scheme.partition("+")[0]
    secret = parts.password or any("passw" in key.lower() for key, _ in parse_qsl(parts.query))
    if secret:
        hint = passwords.get(kind, "leave it out")
        raise ValueError(f"a password must not stand in a sweep file, which is kept and shown: {hint}")
    named = parts.path.strip("/") if kind == "sqlite" else parts.hostname or parts.query
    if kind not in passwords or not named or (kind == "sqlite" and not url.startswith("sqlite:///")):
        raise ValueError(f"expected {allowed} or null, got {url!r}")
    return url


S3 = "s3://"
_HINT = "keys come from the standard chain of AWS: environment, shared credentials file, or the machine's role"
#: What Amazon's key ids look like, wherever they stand.
_KEY_ID = re.compile(r"(?<![A-Z0-9])(AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*")


def store_path(path: str) -> str:
    """`path` if it is a folder's or s3://BUCKET/PREFIX. Raises ValueError, which does not repeat what may be secret."""
    if _KEY_ID.search(path) or ("://" in path and _holds_secret(path)):
        raise ValueError(f"a key must not stand in a sweep file, which is kept and shown: {_HINT}")
    if not path.startswith(S3):
        if re.match(r"[A-Za-z0-9+.-]+://", path):
            raise ValueError(f"expected a folder or s3://BUCKET/PREFIX, got {path!r}")
        return path
    parts = urlsplit(path)
    if not _BUCKET.fullmatch(parts.netloc):
        raise ValueError(
            "the name of a bucket is 3 to 63 small letters, digits, '-' and '.', between letters or digits, "
            f"got {parts.netloc!r}"
        )
    prefix = parts.path.strip("/")
    if prefix and (not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/"))):
        raise ValueError(f"a prefix is words of letters, digits, '.', '_', '=', '-' with '/' between, got {prefix!r}")
    return path


def endpoint(url: str) -> str:
    """`url` if it is a server's http(s)://HOST[:PORT]. Raises ValueError, which does not repeat what may be secret."""
    if _KEY_ID.search(url) or _holds_secret(url):
        raise ValueError(f"a key must not stand in a sweep file, which is kept and shown: {_HINT}")
    if not re.fullmatch(r"https?://(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?/?", url):
        raise ValueError(f"expected http://HOST:PORT, https://HOST or null, got {url!r}")
    return url


def masked(text: str) -> str:
    """`text` as it may be shown: with stars for user, password and query of a URL and for the id of a key."""
    text = re.sub(r"://\S*@", "://***@", _KEY_ID.sub("***", text))
    return re.sub(r"(://[^\s?#]*)[?#]\S*", r"\1?***", text)


def _holds_secret(url: str) -> bool:
    # User, password, query and fragment: no address needs them, and they may contain keys.
    return any(mark in url for mark in "@?#")
