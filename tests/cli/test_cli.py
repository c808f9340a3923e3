"""The command line: what it lists, plans and refuses. Sweeps that run are in test_sweeps.py."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from orchestrator.cli import __main__ as cli
from orchestrator.cli.__main__ import main
from orchestrator.study.lease import LeaseLostError
from tests.search_spaces.test_mistakes import BAD
from tests.support import sweeps
from tests.support.class_folders import write_classes
from tests.support.sweep_texts import sweep_text

Command = Callable[..., tuple[int, str, str]]
#: A sweep on the folder `pictures`, to be followed by more dimensions.
PICTURES = """\
system: hamed-dcgan
dataset: {name: folder, path: pictures}
rungs: [0.064]
budget: {trials: 2}
search:
  g_lr: {log_uniform: [1e-5, 1e-3]}
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line in an empty folder with a sweep file: exit code, standard output, standard error."""
    (tmp_path / "tiny.yaml").write_text(sweeps.TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GANSWEEP_HOME", raising=False)
    monkeypatch.setattr(
        "orchestrator.driver.estimate.SECONDS_PER_TRIAL", 0.01
    )  # a dry run's figures are its own tests'

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gansweep", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_list_names_what_a_sweep_file_may_name(command: Command) -> None:
    for what, expected in (
        ("systems", {"narman-cgan", "narman-dcgan", "monir-dcgan"}),
        ("datasets", {"mnist-mini", "mnist", "cifar10", "folder", "shapes32"}),
        ("search-spaces", {"quickstart"}),
    ):
        code, out, _ = command("list", what, "--json")
        assert code == 0
        assert expected <= {row["id"] for row in json.loads(out)}
        assert command("list", what)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (("launch", "no-such-file.yaml"), "no-such-file.yaml"),
        (("launch", "tiny.yaml", "--set", "system=narman-cgam"), "narman-cgan"),
        (("launch", "tiny.yaml", "--set", "serch.g_lr=1"), "serch"),
        (("launch", "tiny.yaml", "--trials", "0"), "budget.trials"),
        (("launch", "tiny.yaml", "--set", "dataset={name: mnist, path: nowhere}"), "nowhere"),
        (("launch", "tiny.yaml", "--set", "search.g_lr={log_uniform: [0.1, 0.01]}"), "search.g_lr"),
        (("launch", "tiny.yaml", "--name", "../x"), "../x"),
        (("resume", "nothing"), "nothing"),
        (("status", "nothing"), "nothing"),
        (("report", "nothing"), "nothing"),
        (("stop", "nothing"), "nothing"),
        (("stop", "nothing", "--trial", "3"), "nothing"),
        (("pause", "nothing"), "nothing"),
        (("add-trials", "nothing", "3"), "nothing"),
        (("launch", "tiny.yaml", "--set", "budget={target: 3}"), "would never end"),
        (("list", "everything"), "everything"),
        (("train", "narman-cgam"), "narman-cgan"),
        (("ui",), "no sweeps"),
        (("status", "--root", "nowhere"), "nowhere: there is no such folder"),
        (("status", "--root", "tiny.yaml"), "tiny.yaml: is not a folder"),
        (("status", "--root", ""), "--root ''"),
        (("launch", "tiny.yaml", "--root", ""), "--root ''"),
        (("status", "x\0y"), "expected the name of a folder"),
        (("status", "x", "--root", "a\0b"), "--root 'a\\x00b'"),
        (("report", "../other"), "NAME '../other'"),
        (("resume", ".."), "NAME '..'"),
        (("add-trials", "", "3"), "NAME ''"),
        (("gc", "nothing", "--root", "/proc/none"), "/proc/none: there is no such folder"),
        (("resume", "nothing", "--root", "n/" * 2100), "/nothing/study.journal: File name too long"),
        (("launch", "tiny.yaml", "--name", "n" * 256), "name: allowed are 255 characters, got 256"),
        (("launch", "tiny.yaml", "--name", "two words"), "name: allowed are letters"),
        (("launch", "tiny.yaml", "--root", "tiny.yaml"), "tiny.yaml"),
        (("launch", "tiny.yaml", "--root", "/proc/none"), "/proc/none"),
    ],
)
def test_bad_input_ends_with_one_message_and_leaves_nothing_behind(
    command: Command, tmp_path: Path, arguments: tuple[str, ...], fragment: str
) -> None:
    code, _, err = command(*arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert fragment in err
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize("sections", [sections for sections, _ in BAD], ids=[expected[:60] for _, expected in BAD])
def test_each_bad_sweep_file_ends_with_code_2_and_leaves_nothing_behind(
    command: Command, tmp_path: Path, sections: dict[str, str | None]
) -> None:
    (tmp_path / "tiny.yaml").write_text(sweep_text(**sections))
    code, _, err = command("launch", "tiny.yaml")
    assert code == 2
    assert err.startswith("error: tiny.yaml:")
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_dry_run_prints_the_plan_and_starts_nothing(command: Command, tmp_path: Path) -> None:
    code, out, _ = command("launch", "tiny.yaml", "--dry-run", "--set", "finals={trials: 2}")
    assert code == 0
    assert "finals: the 2 best on 10,000 images each, by clean-fid too" in out.replace("\n", " ")
    assert "plan: 5 trials of 2 kimg in 4 rungs" in out
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_dry_run_prints_what_a_budget_of_money_pays(command: Command) -> None:
    code, out, _ = command("launch", "tiny.yaml", "--dry-run", "--set", "budget={money: 2, price_per_gpu_hour: 1}")
    assert code == 0
    assert "plan: as many trials as {money: 2, price_per_gpu_hour: 1} allows, each of 2 kimg" in out.replace("\n", " ")
    assert "2 CPU-hours, 2.00 money, if nothing is pruned" in out.replace("\n", " ")


def test_a_dry_run_refuses_what_a_launch_would_refuse(command: Command) -> None:
    code, _, err = command("launch", "tiny.yaml", "--dry-run", "--set", "dataset={name: mnist, path: nowhere}")
    assert code == 2
    assert "nowhere" in err


def test_what_does_not_suit_the_data_is_told_with_its_line_before_anything_starts(
    command: Command, tmp_path: Path
) -> None:
    write_classes(tmp_path / "pictures", ["a", "b"], 20, 32)
    (tmp_path / "tiny.yaml").write_text(PICTURES + "  batch:\n    choice: [16, 64]\n")
    for options in ((), ("--dry-run",), ("--dry-run", "--read-data")):
        code, _, err = command("launch", "tiny.yaml", *options)
        assert code == 2
        assert err.startswith("error: tiny.yaml:7: search.batch: batch 64 is more than the 36 training images")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "tiny.yaml"]


def test_damaged_pictures_are_told_with_the_line_of_the_data(command: Command, tmp_path: Path) -> None:
    write_classes(tmp_path / "pictures", ["a", "b"], 20, 32)
    (tmp_path / "tiny.yaml").write_text(PICTURES + "  batch: 32\n")
    assert command("launch", "tiny.yaml", "--dry-run", "--read-data")[0] == 0
    for number in range(3, 13):
        (tmp_path / "pictures" / "b" / f"1-{number:03d}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert command("launch", "tiny.yaml", "--dry-run")[0] == 0
    for options in (("--dry-run", "--read-data"), ()):
        code, _, err = command("launch", "tiny.yaml", *options)
        assert code == 2
        assert err.startswith("error: tiny.yaml:2: dataset: ")
        assert "1-007.png" in err
        # Those that are left are counted.
        code, _, err = command("launch", "tiny.yaml", *options, "--set", "dataset.skip_damaged=true")
        assert code == 2
        assert err.startswith("error: tiny.yaml:7: search.batch: batch 32 is more than the 2")


def test_trials_that_must_be_identical_are_told_before_the_start(command: Command) -> None:
    code, _, err = command("launch", "tiny.yaml", "--dry-run", "--set", "search={n_critic: {int: [1, 2]}}")
    assert code == 0
    assert err.startswith("warning: the search space has 2 points, but budget.trials is 5: further trials are id")


def test_the_doctor_takes_other_settings(command: Command) -> None:
    code, out, _ = command("doctor", "tiny.yaml", "--json", "--set", "dataset={name: mnist, path: nowhere}")
    assert code == 1
    (data,) = (finding for finding in json.loads(out) if finding["name"] == "data")
    assert data["verdict"] == "failed"
    assert "nowhere" in data["found"]
    assert command("doctor", "tiny.yaml", "--set", "dataset.nam=x")[0] == 2


def test_the_environment_names_the_root(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANSWEEP_HOME", str(tmp_path / "elsewhere"))
    assert str(tmp_path / "elsewhere" / "tiny") in command("launch", "tiny.yaml", "--dry-run")[1].replace("\n", "")


def test_a_lost_lease_is_one_line_and_code_3(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(prog_name: str) -> None:
        raise LeaseLostError("lost the lease to process 7 on elsewhere, which drives the sweep now")

    monkeypatch.setattr(cli, "app", lost)
    code, _, err = command("launch", "tiny.yaml")
    assert code == 3
    assert err.startswith("error: lost the lease to process 7 on elsewhere")
    assert err.count("\n") == 1


def test_a_program_that_is_not_installed_has_no_version(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    code, out, _ = command("--version")
    assert code == 0
    assert out.startswith("gansweep, version unknown")


def test_a_status_of_all_sweeps_is_a_list(command: Command) -> None:
    code, out, _ = command("status", "--json")
    assert (code, json.loads(out)) == (0, [])
