"""Addresses of databases and servers in a sweep file. None may hold a password: the file is kept with the study."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

#: Databases that keep a study or MLflow's records, with where their clients look for a password.
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
    """`url` with the installed driver where it names none."""
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
