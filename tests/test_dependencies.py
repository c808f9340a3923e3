"""The direction of imports is enforced: every contract holds, and catches what it forbids."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("orchestrator", "search_spaces", "trainers")
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"

LAYERS = "orchestrator -> search_spaces -> trainers"
ALONE = "trainers know no cluster, study, tracker or store"
IMAGES_ONLY = "evaluation takes images, never models"
APART = "GAN files never import each other"
HOMES = {name: f"{name} has one home" for name in ("optuna", "ray", "mlflow", "boto3")}

PLANTS = [
    ("search_spaces/space.py", "from orchestrator import status", LAYERS),
    ("trainers/config.py", "import search_spaces.space", LAYERS),
    ("trainers/run.py", "from orchestrator.study.status import read_status", LAYERS),
    ("trainers/losses.py", "import optuna", ALONE),
    ("trainers/run.py", "import mlflow", ALONE),
    ("trainers/checkpoint.py", "import boto3", ALONE),
    ("trainers/evaluation/kid.py", "from ray import tune", ALONE),
    ("search_spaces/sweep.py", "import ray", ALONE),
    ("search_spaces/space.py", "def late():\n    import optuna", ALONE),
    ("trainers/evaluation/kid.py", "from trainers import trainer", IMAGES_ONLY),
    ("trainers/evaluation/scores.py", "import trainers.gans.narman", IMAGES_ONLY),
    ("trainers/evaluation/scores.py", "from trainers import SYSTEMS", IMAGES_ONLY),
    ("trainers/evaluation/lenet.py", "from trainers.gan import System", IMAGES_ONLY),
    ("trainers/gans/narman.py", "from trainers.gans import monir", APART),
    ("trainers/gans/monir.py", "from trainers.gans.narman import SHAPE", APART),
    ("orchestrator/cli.py", "import optuna", HOMES["optuna"]),
    ("orchestrator/tune.py", "from optuna.trial import Trial", HOMES["optuna"]),
    ("orchestrator/report/charts.py", "import optuna", HOMES["optuna"]),
    ("orchestrator/study.py", "import ray", HOMES["ray"]),
    ("orchestrator/trial.py", "from ray import tune", HOMES["ray"]),
    ("orchestrator/status.py", "import mlflow", HOMES["mlflow"]),
    ("orchestrator/sweep.py", "import boto3", HOMES["boto3"]),
    ("orchestrator/tracking.py", "import botocore.exceptions", HOMES["boto3"]),
    ("orchestrator/store/folder.py", "import boto3", HOMES["boto3"]),
    ("orchestrator/store/trials.py", "from botocore.config import Config", HOMES["boto3"]),
]


def _copy(target: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, target / package, ignore=lambda folder, names: [n for n in names if n.startswith("mnist_")]
        )
    shutil.copy(ROOT / "pyproject.toml", target)
    return target


def _lint(folder: Path) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-c", LINT],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    return ended.returncode, ended.stdout + ended.stderr


def _broken(output: str) -> set[str]:
    return {line.split(" BROKEN")[0].strip() for line in output.splitlines() if " BROKEN" in line}


def test_every_contract_is_kept() -> None:
    code, output = _lint(ROOT)
    assert code == 0, output
    assert "0 broken" in output


def test_a_copy_without_a_plant_is_clean(tmp_path: Path) -> None:
    code, output = _lint(_copy(tmp_path))
    assert (code, _broken(output)) == (0, set()), output


def test_every_contract_has_a_plant() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert {contract["name"] for contract in contracts} == {contract for *_, contract in PLANTS}


@pytest.mark.parametrize(("file", "plant", "contract"), PLANTS)
def test_a_forbidden_import_breaks_its_contract(file: str, plant: str, contract: str, tmp_path: Path) -> None:
    path = _copy(tmp_path) / file
    path.write_text(path.read_text() + f"\n{plant}\n")
    code, output = _lint(tmp_path)
    assert code != 0
    assert contract in _broken(output), output
