"""The README's commands do what it says: each is run as a newcomer would type it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cluster.nodes import check_shared
from search_spaces.load import parse_sweep
from tests.support import sweeps

README = (sweeps.REPOSITORY / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The README's code blocks in one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_every_everyday_command_runs(
    tmp_path: Path, cache_dir: Path, mnist_mini_lenet: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.driver.estimate.SECONDS_PER_TRIAL", 0.01)
    sweeps.prepare(tmp_path, cache_dir)
    commands = [shlex.split(line, comments=True) for block in blocks("bash") for line in block.splitlines()]
    everyday = [words[1:] for words in commands if words and words[0] == "gansweep"]
    assert {words[0] for words in everyday} == {"launch", "status", "resume", "report", "list", "train", "score"}
    for words in everyday:
        quick = "--dry-run" in words or words[0] in ("status", "report", "list")
        done = (sweeps.in_process if quick else sweeps.gansweep)(*words, cwd=tmp_path)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    assert (tmp_path / "small.html").exists()


def test_the_two_commands_and_every_target_that_is_named_exist() -> None:
    makefile = (sweeps.REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    assert {"setup", "demo", "test", "test-all", "faults", "check", "bench", "clean"} <= targets
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets


def test_the_example_is_a_sweep_file_and_so_it_is_with_the_keys_of_a_cluster() -> None:
    laptop, cluster = blocks("yaml")
    assert parse_sweep(laptop, "example.yaml").systems == ("narman-cgan",)
    on_cluster = {line.partition(":")[0] for line in cluster.splitlines()}
    kept = "".join(line for line in laptop.splitlines(True) if line.partition(":")[0] not in on_cluster)
    sweep = parse_sweep(kept + cluster, "example.yaml")
    assert sweep.resources.workers_per_trial == 4
    check_shared(sweep)


def test_the_folder_tree_names_folders_that_exist() -> None:
    (tree,) = [block for block in blocks("text") if "search_spaces/" in block]
    for name in re.findall(r"^(\S+)/", tree, flags=re.MULTILINE):
        assert (sweeps.REPOSITORY / name).is_dir(), name
    assert (sweeps.REPOSITORY / "docs/report.png").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_help_is_at_hand(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "orchestrator.cli", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Usage" in done.stdout or "usage" in done.stdout
