"""The command `gansweep`: its app and console, and the arguments and options that several commands share.

Help, completion and usage errors must be quick. So the modules of this room that hold commands import at their top
only what the parser needs, and a command imports in its body what it works with: no torch, optuna, ray or mlflow before
the command line is understood.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from orchestrator.paths import sweep_names
from search_spaces.addresses import ELSEWHERE, holds_secret, masked, refusal
from trainers.errors import InputError

if TYPE_CHECKING:
    from orchestrator.study.study import SweepStudy

PROGRAM = "gansweep"
DEFAULT_ROOT = Path("runs")
#: Options whose values are addresses, by the keys of a sweep file that are checked alike.
_ADDRESSES = {"--storage": ("study", "storage")}
#: What `gansweep list` can list.
LISTS = ("systems", "datasets", "search-spaces")


class _Commands(TyperGroup):
    """The commands. No argument may hold a secret: others see the arguments of a process, and messages repeat them."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        if not extra.get("resilient_parsing"):  # it completes a word
            for before, word in pairwise(["", *args]):
                _refuse_secret(before, word)
        return super().make_context(info_name, args, parent, **extra)


def _refuse_secret(before: str, word: str) -> None:
    option, _, value = word.partition("=") if word.startswith("--") else (before, "", word)
    key = option
    path: tuple[str, ...] = _ADDRESSES.get(option, ())
    if option == "--set" and ":" not in (name := value.partition("=")[0]):
        key, path, value = f"--set {name}", tuple(name.split(".")), value.partition("=")[2]
        if value.startswith(("{", "[")):
            return  # a collection, whose texts are looked at when it is read
    if holds_secret(value):
        text = f"a secret must not stand on a command line, which others can see: {ELSEWHERE}"
        place = key if key.startswith("-") else "command line"
        raise InputError(f"{place}: {refusal(path, value) if path else text}")


def _folder(root: Path | None) -> Path | None:
    if root is not None and ":/" in str(root):
        raise InputError(f"--root {masked(str(root))}: expected a folder of this machine, not an address")
    return root


app = typer.Typer(
    cls=_Commands,
    help="Search the hyper-parameters of GANs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text takes a third of the time of boxes, and fits beside `train --help`
)
console = Console()


def say(lines: Iterable[str]) -> None:
    """Prints each line as it is: no markup, no colours for numbers, no line breaks of the console's own."""
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def print_json(content: Any) -> None:
    """Prints plain data as JSON, which has no number that is not finite: such a number becomes its name, a string."""
    typer.echo(json.dumps(_finite(content), indent=1, allow_nan=False))


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return str(content) if isinstance(content, float) and not math.isfinite(content) else content


def open_study(folder: Path, storage: str | None = None) -> SweepStudy:
    """The study of the sweep in `folder`; if there is no such folder, the study of that name in the database `storage`.

    Raises InputError that lists the sweeps beside it if there is none.
    """
    from orchestrator.study.missing import missing_sweep
    from orchestrator.study.study import SweepStudy

    study = SweepStudy.open(folder, storage)
    if study is None:
        raise missing_sweep(folder, storage)
    return study


def complete_sweep(context: typer.Context, incomplete: str) -> list[str]:
    """Names of sweeps below --root that begin with `incomplete`."""
    root = Path(context.params.get("root") or DEFAULT_ROOT)
    return [name for name in sweep_names(root) if name.startswith(incomplete)]


def complete_file(incomplete: str) -> Iterator[str]:
    """Names of shipped sweep files, sweep files and folders that begin with `incomplete`."""
    from search_spaces import shipped

    yield from (name for name in shipped() if name.startswith(incomplete))
    folder = incomplete.rpartition("/")[0] + "/" if "/" in incomplete else ""
    for path in sorted(Path(folder).glob("*")):
        if path.is_dir() or path.suffix == ".yaml":
            found = f"{folder}{path.name}{'/' if path.is_dir() else ''}"
            if found.startswith(incomplete) and (incomplete or not path.name.startswith(".")):
                yield found


def complete_list(incomplete: str) -> list[str]:
    """What can be listed and begins with `incomplete`."""
    return [each for each in LISTS if each.startswith(incomplete)]


def _name(written: str | None) -> str | None:
    """The name of a sweep, without the slash that a shell completes. Raises InputError for what is no name."""
    name = written.removesuffix("/") if written else written
    if name is None:
        return None
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise InputError(f"NAME {written!r}: expected the name of a folder below --root, not a path")
    return name


def _root(written: str | Path) -> Path:
    if not str(written) or "\0" in str(written):
        raise InputError(f"--root {str(written)!r}: expected the path of a folder")
    return Path(written)


Name = Annotated[
    str,
    typer.Argument(help="Name of a sweep below --root.", callback=_name, autocompletion=complete_sweep),
]
AnyName = Annotated[
    str | None,
    typer.Argument(
        help="Name of a sweep below --root; default: all of them.",
        callback=_name,
        autocompletion=complete_sweep,
    ),
]
File = Annotated[str, typer.Argument(help="A sweep file, or the name of a shipped one.", autocompletion=complete_file)]
NewName = Annotated[str | None, typer.Option("--name", help="Name of the sweep; default: the file's.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override any key.")]
Root = Annotated[
    Path,
    typer.Option(
        envvar="GANSWEEP_HOME",
        help="Folder of all sweeps.",
        metavar="PATH",
        parser=_root,
        show_default="$GANSWEEP_HOME or ./runs",
        callback=_folder,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Database = Annotated[
    str | None,
    typer.Option("--storage", help="Database of the study, if this machine has no folder of the sweep."),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster: auto or HOST:PORT of its head, from one of its nodes; ray://HOST:PORT from anywhere."
    ),
]


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        typer.echo(f"{PROGRAM} {version(PROGRAM)}")
    except PackageNotFoundError:
        typer.echo(f"{PROGRAM}, version unknown: it runs from a folder, not from an installation")
    raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options that stand before a command."""
