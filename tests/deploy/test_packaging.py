"""The wheel holds all it needs: installed elsewhere it lists, launches and trains."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.support import sweeps


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the repository's tracked files alone."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    tracked = subprocess.run(listed, cwd=sweeps.REPOSITORY, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, tracked):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((sweeps.REPOSITORY / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a fresh environment with the wheel; the dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    # A path file's folder is searched, but its own path files, the editable install among them, are not read.
    (Path(purelib) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, env=sweeps.environment())
    return python


def run(python: Path, *arguments: str, cwd: Path) -> str:
    """The output of a command of the fresh environment."""
    command = [str(python), *arguments]
    environment = {name: value for name, value in sweeps.environment().items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_names_its_packages_and_data_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {
        "orchestrator",
        "search_spaces",
        "trainers",
    }
    for needed in (
        "search_spaces/quickstart.yaml",
        "orchestrator/report/report.html.j2",
        "trainers/data/mnist_mini/train-images-idx3-ubyte.gz",
        "trainers/data/mnist_mini/LICENSE.md",
        *(f"{package}/py.typed" for package in ("orchestrator", "search_spaces", "trainers")),
    ):
        assert needed in names
    size = sum(item.file_size for item in zipfile.ZipFile(wheel).infolist() if "mnist_mini" in item.filename)
    assert size < 3_000_000


@pytest.mark.slow
def test_the_installed_wheel_lists_and_finishes_a_sweep_from_another_folder(
    python: Path, tmp_path: Path, cache_dir: Path, mnist_mini_lenet: object
) -> None:
    where = run(python, "-c", "import trainers; print(trainers.__file__)", cwd=tmp_path)
    assert str(python.parent.parent) in where
    gansweep = str(python.parent / "gansweep")
    systems = json.loads(run(python, gansweep, "list", "systems", "--json", cwd=tmp_path))
    assert {"narman-cgan", "narman-dcgan", "monir-dcgan"} <= {row["id"] for row in systems}
    spaces = json.loads(run(python, gansweep, "list", "search-spaces", "--json", cwd=tmp_path))
    assert "quickstart" in {row["id"] for row in spaces}
    sweeps.prepare(tmp_path, cache_dir)
    settings = ["--set", "rungs=[1]", "--set", "score.samples=100", "--set", "search.width=0.1"]
    run(python, gansweep, "launch", "quickstart", "--trials", "2", *settings, cwd=tmp_path)
    found = json.loads(run(python, gansweep, "status", "quickstart", "--json", cwd=tmp_path))
    assert (found["state"], found["trials"]["complete"]) == ("complete", 2)
