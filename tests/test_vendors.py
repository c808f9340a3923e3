"""Everything private of a vendor that this program uses is in one table, and the installed versions have it.

A release of a vendor may change such a name without a word. A new use is found in the source and must enter the table.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from mlflow import MlflowClient
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from trainers.data.vision import import_torchvision

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("orchestrator", "search_spaces", "trainers")
#: The standard library documents these names: of named tuples, and of `os`.
PUBLIC = {"_asdict", "_exit", "_fields", "_replace"}


@cache
def journal(folder: Path) -> optuna.Study:
    return optuna.create_study(storage=JournalStorage(JournalFileBackend(str(folder / "journal"))))


#: Private names by their vendor. Each is looked up by a function that is given an empty folder; AttributeError,
#: ImportError or a false value say that it is not there.
PRIVATE: dict[str, dict[str, Callable[[Path], Any]]] = {
    "optuna": {
        "_storage": lambda folder: journal(folder)._storage,
        "_study_id": lambda folder: isinstance(journal(folder)._study_id, int),
        "_get_trials": lambda folder: journal(folder)._get_trials(deepcopy=False, states=None, use_cache=False) == [],
        "_backend": lambda folder: journal(folder)._storage._backend,
        "_trial_id": lambda folder: isinstance(asked(folder)._trial_id, int),
        "_cached_frozen_trial": lambda folder: asked(folder)._cached_frozen_trial.user_attrs == {"key": "value"},
    },
    "ray": {
        "ray._private.worker": lambda folder: hasattr(import_module("ray._private.worker"), "_global_node"),
        "_global_node": lambda folder: import_module("ray._private.node").Node.kill_all_processes,
        "ray._private.state.state": lambda folder: import_module("ray._private.state").state.get_draining_nodes,
    },
    "mlflow": {
        "_tracking_client": lambda folder: has_replaceable_sessions(MlflowClient(f"sqlite:///{folder / 'a.db'}")),
    },
    "torch": {
        "_foreach_lerp_": lambda folder: torch._foreach_lerp_,
        "_BatchNorm": lambda folder: issubclass(torch.nn.BatchNorm2d, torch.nn.modules.batchnorm._BatchNorm),
        "_check_input_dim": lambda folder: torch.nn.BatchNorm2d(3)._check_input_dim,
        "_standard_gamma": lambda folder: torch._standard_gamma,
        "_sample_dirichlet": lambda folder: torch._sample_dirichlet,
    },
}
#: Names that are not private by their spelling, and yet in no documentation: module, and attribute in it.
UNDOCUMENTED = [
    ("cleanfid.fid", "build_resizer"),
    ("cleanfid.fid", "get_batch_features"),
    ("cleanfid.inception_torchscript", "InceptionV3W"),
    ("importlinter.cli", "lint_imports"),
    ("mlflow.store.tracking.sqlalchemy_store", "SqlAlchemyStore.sanitize_metric_value"),
    ("mlflow.store.tracking.dbmodels.models", "SqlMetric.__table__"),
    ("mlflow.tracking.multimedia", "compress_image_size"),
    ("ray.tune.execution.class_cache", "ENV_VARS_TO_PROPAGATE"),
]


def asked(folder: Path) -> optuna.Trial:
    trial = journal(folder).ask()
    trial.set_user_attr("key", "value")
    return trial


def has_replaceable_sessions(client: MlflowClient) -> bool:
    store = client._tracking_client.store
    with store.ManagedSessionMaker(read_only=False) as session:
        return session.connection() is not None and "ManagedSessionMaker" in vars(store)


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in {"_", *PUBLIC}


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text())


@cache
def own() -> set[str]:
    """Private names that this program defines: functions, classes, variables and attributes of its own objects."""
    found = set()
    for _, tree in modules():
        for node in ast.walk(tree):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    found.add(name)
                case ast.Name(id=name, ctx=ast.Store()):
                    found.add(name)
                case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                    found.add(name)
    return found


def uses(tree: ast.Module) -> Iterator[str]:
    """Private names in a module that may be a vendor's."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
                if private(name) and name not in own():
                    yield name
            case ast.Attribute(attr=name):
                if private(name):
                    yield name
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr" | "hasattr" | "delattr"), args=[_, ast.Constant(str(name)), *_]
            ):
                if private(name):
                    yield name
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases if any(map(private, alias.name.split("."))))
            case ast.ImportFrom(module=str(module), names=aliases) if not module.startswith(PACKAGES):
                for alias in aliases:
                    if any(map(private, module.split("."))):
                        yield f"{module}.{alias.name}"
                    elif private(alias.name):
                        yield alias.name


def test_every_private_name_in_use_is_in_the_table() -> None:
    known = {name for names in PRIVATE.values() for name in names}
    unknown = {f"{path}: {name}" for path, tree in modules() for name in uses(tree) if name not in known}
    assert unknown == set(), "if it is a vendor's, it belongs into PRIVATE"


def test_every_name_in_the_table_is_in_use() -> None:
    source = "\n".join(ast.unparse(tree) for _, tree in modules())
    names = {name.rpartition(".")[2] for names in PRIVATE.values() for name in names}
    assert {name for name in names if name not in source} == set()


@pytest.mark.parametrize(("vendor", "name"), [(vendor, name) for vendor, names in PRIVATE.items() for name in names])
def test_the_installed_version_has_it(vendor: str, name: str, tmp_path: Path) -> None:
    assert PRIVATE[vendor][name](tmp_path)


@pytest.mark.parametrize(("module", "attribute"), UNDOCUMENTED)
def test_the_installed_version_has_what_no_documentation_names(module: str, attribute: str) -> None:
    import_torchvision()  # which clean-fid could not import by itself everywhere
    attrgetter(attribute)(import_module(module))


def test_a_new_use_is_found() -> None:
    tree = ast.parse(
        "from ray._private import worker\nfrom torch.nn import _reduction\n"
        "a = study._thread_local\nb = getattr(study, '_hidden')\nself._of_a_base_class()\n"
        "self._study = 1\nsuper()._overridden()"
    )
    assert set(uses(tree)) == {
        "ray._private.worker",
        "_reduction",
        "_thread_local",
        "_hidden",
        "_of_a_base_class",
        "_overridden",
    }
