"""Classes of other packages that a sweep file names, such as a pruner or a sampler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import signature
from typing import Any

from orchestrator.study.lease import LeaseLostError
from search_spaces.addresses import masked
from trainers.errors import InputError


def import_class(path: str, base: type, key: str) -> type:
    """The class at `path`, "package.module:Name", a subclass of `base`.

    Raises InputError that names `key`, the section of the sweep file, and what is wrong with the class.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name)
    except Exception as error:  # importing runs code of others, which may raise anything
        text = f"{path} cannot be imported: {_said(error)}"
        raise InputError(f"{key}.class: {text}; install its package where the driver runs") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(f"{key}.class: {path} is {found!r}; allowed is a subclass of optuna's {base.__name__}")
    return found


def make_object(path: str, arguments: dict[str, Any], base: type, key: str) -> Any:
    """An object of the class at `path`, made with `arguments`.

    Raises InputError as `import_class` does, or if the class refuses them."""
    found = import_class(path, base, key)
    try:
        return found(**arguments)
    except Exception as error:  # whatever its constructor raises
        shown = ", ".join(f"{name}: {value!r}" for name, value in arguments.items()) or "no arguments"
        raise InputError(f"{key}.class: {path} does not take {shown}: {_said(error)}") from error


@contextmanager
def naming_class(path: str, key: str) -> Iterator[None]:
    """Raises InputError that names the class at `path` if the code of the class raises in the block."""
    try:
        yield
    except (InputError, LeaseLostError):
        raise
    except Exception as error:  # code of others may raise anything
        raise InputError(f"{key}.class: {path} raised {_said(error)}") from error


def takes_argument(kind: type, argument: str) -> bool:
    """Whether the constructor of `kind` has a parameter called `argument`."""
    try:
        return argument in signature(kind).parameters
    except (TypeError, ValueError):  # a class written in C may have no signature
        return False


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {masked(str(error))}"
