"""The direction of imports is enforced: every contract holds, and catches what it forbids."""

from __future__ import annotations

import ast
import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("orchestrator", "search_spaces", "trainers")
#: How a module may be imported: at once, late, or for types alone.
FORMS = itertools.cycle(
    [
        "\nimport {}\n",
        "\ndef _late() -> None:\n    import {}\n",
        "\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import {}\n",
    ]
)
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
CONTRACTS: dict[str, dict[str, Any]] = {
    contract["name"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}

PACKAGE_LAYERS = "orchestrator -> search_spaces -> trainers"
ROOMS = "rooms of orchestrator"
CIRCLES = "no circles"
PURE = "decisions are pure"
ALONE = "trainers and search spaces know no cluster, study, tracker or store"
IMAGES_ONLY = "evaluation takes images, never models"
APART = "GAN files never import each other"
LAYERS = [layer.split(" | ") for layer in CONTRACTS[ROOMS]["layers"]]


def module_in(room: str) -> str:
    """A module of a room of the orchestrator; the room itself if it is one module."""
    folder = ROOT / "orchestrator" / room
    if not folder.is_dir():
        return f"orchestrator.{room}"
    return f"orchestrator.{room}.{min(path.stem for path in folder.glob('*.py') if path.stem != '__init__')}"


def upward() -> Iterator[tuple[str, str]]:
    """Imports that leave a room for the one above it, or for one beside it."""
    for above, below in itertools.pairwise(LAYERS):
        yield from ((module_in(low), module_in(high)) for low in below for high in above)
    for layer in LAYERS:
        yield from ((module_in(one), module_in(other)) for one, other in itertools.permutations(layer, 2))


def impure() -> Iterator[tuple[str, str]]:
    """One import of each module that decisions must not know: vendors, clocks, the environment, files."""
    folders = ("orchestrator/decisions", "search_spaces/pruners")
    found = sorted(path for folder in folders for path in (ROOT / folder).glob("*.py") if path.stem != "__init__")
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in found]
    yield from zip(itertools.cycle(modules), CONTRACTS[PURE]["forbidden_modules"], strict=False)


def homeless(contract: str) -> Iterator[tuple[str, str]]:
    """An import of each vendor of a contract from each folder that is not its home."""
    for source in CONTRACTS[contract]["source_modules"]:
        room = source.removeprefix("orchestrator.")
        importer = {"search_spaces": "search_spaces.space", "trainers": "trainers.losses"}.get(source) or module_in(
            room
        )
        yield from ((importer, vendor) for vendor in CONTRACTS[contract]["forbidden_modules"])


#: Imports that must not be, by the contract that forbids them: importing and imported module.
PLANTS: dict[str, list[tuple[str, str]]] = {
    PACKAGE_LAYERS: [
        ("search_spaces.space", "orchestrator.study.status"),
        ("trainers.config", "search_spaces.space"),
        ("trainers.run", "orchestrator.study.records"),
    ],
    ROOMS: list(upward()),
    CIRCLES: [
        ("trainers.losses", "trainers.trainer"),
        ("trainers.data.spec", "trainers.data.catalogue"),
        ("search_spaces.space", "search_spaces.sweep"),
        ("orchestrator.study.records", "orchestrator.study.study"),
    ],
    PURE: list(impure()),
    ALONE: [
        ("trainers.losses", "optuna"),
        ("trainers.run", "mlflow"),
        ("trainers.checkpoint", "boto3"),
        ("trainers.evaluation.kid", "ray"),
        ("search_spaces.sweep", "ray"),
        ("search_spaces.space", "typer"),
    ],
    IMAGES_ONLY: [
        ("trainers.evaluation.kid", "trainers.trainer"),
        ("trainers.evaluation.scores", "trainers.gans.narman"),
        ("trainers.evaluation.lenet", "trainers.gan"),
    ],
    APART: [("trainers.gans.narman", "trainers.gans.monir"), ("trainers.gans.monir", "trainers.gans.narman")],
    **{name: list(homeless(name)) for name in CONTRACTS if name.endswith(" has one home")},
}


def lint(folder: Path) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-c", LINT],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    return ended.returncode, ended.stdout + ended.stderr


def copied(target: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, target / package, ignore=shutil.ignore_patterns("mnist_*", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", target)
    return target


def plant(folder: Path, imports: Sequence[tuple[str, str]]) -> None:
    for importer, imported in imports:
        path = folder / importer.replace(".", "/")
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        with path.open("a") as file:
            file.write(next(FORMS).format(imported))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the linter says of a copy with all plants in it."""
    folder = copied(tmp_path_factory.mktemp("planted"))
    for imports in PLANTS.values():
        plant(folder, imports)
    code, output = lint(folder)
    assert code == 1, output
    return output


def section(output: str, contract: str) -> str:
    """The part of the linter's report on one contract that is broken."""
    parts = re.split(r"^(.+)\n-+\n", output.partition("Broken contracts")[2], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True)).get(contract, "")


def test_every_contract_is_kept() -> None:
    code, output = lint(ROOT)
    assert code == 0, output
    assert "0 broken" in output


def test_a_copy_without_a_plant_is_clean(tmp_path: Path) -> None:
    code, output = lint(copied(tmp_path))
    assert code == 0, output


def test_every_contract_has_a_plant_and_no_exception() -> None:
    assert {name for name, imports in PLANTS.items() if imports} == set(CONTRACTS)
    assert not [name for name, contract in CONTRACTS.items() if "ignore_imports" in contract]


@pytest.mark.parametrize("contract", PLANTS)
def test_each_forbidden_import_breaks_its_contract(contract: str, planted: str) -> None:
    found = section(planted, contract)
    for importer, imported in PLANTS[contract]:
        said = f"{importer} -> {imported}"
        if contract == CIRCLES:  # between the modules of one folder
            said = f".{importer.rpartition('.')[2]} -> .{imported.rpartition('.')[2]}"
        assert re.search(rf"{re.escape(said)}\b", found), f"{said} is not in: {found}"


def test_decisions_open_and_print_nothing() -> None:
    for path in (ROOT / "orchestrator/decisions").glob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert names.isdisjoint({"__import__", "eval", "exec", "input", "open", "print"}), path.name
