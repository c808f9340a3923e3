"""The GAN that trainers/README.md adds is added here in its words: one file, one line, one search space."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support import sweeps
from trainers import checkpoint
from trainers.advice import warnings_of
from trainers.catalogue import SYSTEMS
from trainers.config import overlay
from trainers.data.images import ImageData
from trainers.gan import Batch
from trainers.trainer import Trainer

README = (sweeps.REPOSITORY / "trainers" / "README.md").read_text()
NAME = "ragan"
LOGITS = [0.7, -1.2, 0.1], [-0.4, 2.0, -0.9]
#: What `make golden` does for all systems, for this one alone.
GOLDEN = f"""
import torch
from tests.support import golden
torch.set_num_threads(1)
trainer = golden.new_trainer("{NAME}", torch.float64)
golden.write({{"{NAME}": golden.curves(golden.advance(trainer, golden.STEPS))}})
"""


def blocks(language: str) -> list[str]:
    """The README's code blocks in one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands(program: str) -> list[list[str]]:
    """The arguments of the README's commands of one program."""
    lines = [shlex.split(line, comments=True) for block in blocks("bash") for line in block.splitlines()]
    return [words[1:] for words in lines if words[0] == program]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path, mnist_mini_lenet: object) -> Path:
    """The repository with the README's additions and a trained extractor."""
    folder = tmp_path_factory.mktemp("copy")
    for package in ("orchestrator", "search_spaces", "trainers", "tests"):
        shutil.copytree(sweeps.REPOSITORY / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(sweeps.REPOSITORY / "pyproject.toml", folder)
    sweeps.prepare(folder, cache_dir)
    (file,), (addition,), (space,) = blocks("python"), blocks("diff"), blocks("yaml")
    (folder / "trainers" / "gans" / f"{NAME}.py").write_text(file)
    (folder / "search_spaces" / f"{NAME}.yaml").write_text(space)
    names = folder / "trainers" / "names.py"
    assert (addition[0], addition.count("\n")) == ("+", 1)
    names.write_text(re.sub(r"(?<=FAMILIES = \{\n)", addition[1:], names.read_text(), count=1))
    return folder


@pytest.fixture(scope="module")
def module(copy: Path) -> ModuleType:
    """The README's file as a module beside this repository's."""
    spec = importlib.util.spec_from_file_location(NAME, copy / "trainers" / "gans" / f"{NAME}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def python(*arguments: str, cwd: Path) -> str:
    """The output of a Python process that finds the packages below `cwd` first."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=sweeps.environment(), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_catalogue_lists_it_after_one_line(copy: Path) -> None:
    assert NAME not in SYSTEMS
    done = sweeps.gansweep("list", "systems", "--json", cwd=copy)
    listed = {row["id"]: row for row in json.loads(done.stdout)}
    assert listed.keys() == {NAME, *SYSTEMS}
    assert listed[NAME]["shape"] == [1, 28, 28]


@pytest.mark.slow
def test_its_commands_run_and_a_value_its_fields_forbid_is_refused(copy: Path) -> None:
    dry_run, train = commands("gansweep")
    planned = sweeps.gansweep(*dry_run, cwd=copy)
    assert planned.returncode == 0, planned.stderr
    assert "plan: 16 trials of 50 kimg in 10 rungs" in planned.stdout
    refused = sweeps.gansweep(*dry_run, "--set", "search.opponent=nobody", cwd=copy)
    assert refused.returncode == 2
    assert "opponent" in refused.stderr
    assert "'average' or 'one'" in refused.stderr

    trained = sweeps.gansweep(*train, cwd=copy)
    assert trained.returncode == 0, trained.stderr
    rungs = [line for line in trained.stdout.splitlines() if "loss_g" in line]
    assert len(rungs) == 2
    assert all(math.isfinite(float(value)) for line in rungs for value in re.findall(r"loss_\w (\S+)", line))
    folder = copy / "runs" / "train" / NAME / "checkpoints"
    early, late = (checkpoint.read(folder / checkpoint.folder_name(images))[0] for images in (1000, 2000))
    weights = [name for name in early if name.startswith("net.") and name.endswith("weight")]
    assert len(weights) == 8
    assert not any(torch.equal(early[name], late[name]) for name in weights)


def test_the_laws_for_every_system_hold_it_by_its_entry_alone(copy: Path) -> None:
    python("-c", GOLDEN, cwd=copy)
    (laws,) = commands("python")
    told = python(*laws, "-q", cwd=copy)
    passed = re.search(r"(\d+) passed", told)
    assert passed
    assert int(passed[1]) >= 10
    assert "skipped" not in told


class Fixed(nn.Module):
    """Stands for g, whose images are its noise."""

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return x


class Mean(nn.Module):
    """Stands for d: the logit of an image is its mean."""

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return x.flatten(1).mean(1)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.mark.parametrize("opponent", ["average", "one"])
def test_its_loss_is_the_papers(opponent: str, module: ModuleType) -> None:
    system = module.SYSTEMS[NAME]
    gan = system.gan(overlay(system.defaults, {"opponent": opponent}), 10)
    real, fake = (torch.tensor(logits)[:, None, None, None].expand(-1, 1, 2, 2) for logits in LOGITS)
    labels = torch.zeros(3, dtype=torch.int64)
    batch = Batch(real=real, labels=labels, z=fake, fake_labels=labels)
    nets: dict[str, nn.Module] = {"g": Fixed(), "d": Mean()}
    means = [sum(logits) / 3 for logits in LOGITS]
    leads = [
        (r - (means[1] if opponent == "average" else f), f - (means[0] if opponent == "average" else r))
        for r, f in zip(*LOGITS, strict=True)
    ]
    d = sum(softplus(-of_real) + softplus(of_fake) for of_real, of_fake in leads) / 3
    g = sum(softplus(of_real) + softplus(-of_fake) for of_real, of_fake in leads) / 3
    assert gan.loss("d", nets, batch)["loss_d"].item() == pytest.approx(d, rel=1e-6)
    assert gan.loss("g", nets, batch)["loss_g"].item() == pytest.approx(g, rel=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"lipschitz": "penalty", "penalty_weight": 3.0},
        {"lipschitz": "clip+spectral", "clip_value": 0.05},
        {"opponent": "one", "smoothing": "two-sided", "label_flip": 0.1, "dropout": 0.3, "ema_decay": 0.9},
    ],
)
def test_it_obeys_the_fields_that_it_shares(
    settings: dict[str, Any], module: ModuleType, mnist_mini: tuple[ImageData, ImageData]
) -> None:
    system = module.SYSTEMS[NAME]
    finite: dict[str, dict[str, float]] = {}
    for name, values in {"plain": {}, "set": settings}.items():
        config = overlay(system.defaults, {"width": 0.125, "batch": 10, **values})
        assert warnings_of(system, config) == []
        finite[name] = Trainer(system, config, mnist_mini[1]).advance(50)
        assert all(math.isfinite(value) for value in finite[name].values())
    assert finite["plain"]["loss_d"] != finite["set"]["loss_d"]
