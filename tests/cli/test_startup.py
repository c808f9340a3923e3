"""What the parser answers by itself, it answers without the libraries that take seconds to import."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orchestrator.cli.__main__ import app
from orchestrator.study.study import SweepStudy
from tests.support import made_up, sweeps

#: None of them is imported before a command begins to work. Typer itself may convert arguments by pydantic.
HEAVY = (
    *("torch", "torchvision", "optuna", "ray", "mlflow", "boto3", "botocore"),
    *("yaml", "numpy", "scipy", "sqlalchemy", "plotly", "jinja2", "PIL", "cleanfid", "sklearn"),
)
#: Runs each case of standard input in turn: arguments, then variables of the environment; after each it notes the exit
#: code, both outputs, and which of the modules in argv are imported. A process for each case would take half a minute.
RUNNER = """
import io, json, os, sys
from contextlib import redirect_stderr, redirect_stdout
from orchestrator.cli.__main__ import main

watched, results = sys.argv[1:], []
for arguments, environment in json.load(sys.stdin):
    sys.argv = ["gansweep", *arguments]
    os.environ.update(environment)
    out, err, code = io.StringIO(), io.StringIO(), None
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    for name in environment:
        del os.environ[name]
    results.append([code, out.getvalue(), err.getvalue(), [name for name in watched if name in sys.modules]])
print(json.dumps(results))
"""

Case = tuple[list[str], dict[str, str]]


def environment() -> dict[str, str]:
    """With this repository's code first on the path, whatever folder the process runs in."""
    return {**sweeps.environment(), "PYTHONPATH": str(sweeps.REPOSITORY), "COLUMNS": "200"}


def run(cases: list[Case], cwd: Path, watched: tuple[str, ...] = HEAVY) -> list[Any]:
    """For each command line the exit code, both outputs and the heavy modules that are imported after it."""
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, *watched],
        input=json.dumps(cases),
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results: list[Any] = json.loads(done.stdout)
    assert len(results) == len(cases)
    return results


def completion(line: str, shell: str = "bash") -> Case:
    """What the shell asks for the end of `line`."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1), "_TYPER_COMPLETE_ARGS": line}
    return [], {"_GANSWEEP_COMPLETE": f"complete_{shell}", **words}


def command_names() -> list[str]:
    return [str(each.name or getattr(each.callback, "__name__", "")) for each in app.registered_commands]


def test_help_version_and_usage_errors_import_nothing_heavy(tmp_path: Path) -> None:
    names = command_names()
    assert len(names) == len(set(names)) == 18
    answered = [["--help"], ["--version"], *([name, "--help"] for name in names)]
    refused = [
        *(["no-such-command"], ["status", "--no-such-option"], ["resume"], ["submit", "quickstart"]),
        *(["add-trials", "some", "many"], ["simulate", "x.npz", "--workers", "0"], ["train"], ["train", "x", "--y"]),
        *(["list", "everything"], ["score", "images"], ["launch", "no-such-file.yaml"], ["ui"], ["mix-study", "x"]),
    ]
    results = run([(arguments, {}) for arguments in answered + refused], tmp_path)
    for arguments, (code, out, err, heavy) in zip(answered + refused, results, strict=True):
        assert heavy == [], arguments
        assert code == (0 if arguments in answered else 2), (arguments, out, err)
        assert "Traceback" not in err
    assert results[1][1] == f"gansweep {version('gansweep')}\n"
    assert all("sage: gansweep" in out for _, out, _, _ in (results[0], *results[2 : len(answered)]))


def test_the_shell_completes_sweeps_and_sweep_files_and_imports_nothing_heavy(tmp_path: Path) -> None:
    for place in ("runs/first/study.journal", "runs/second/sweep.yaml", "elsewhere/third/study.journal"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
    for place in ("quick.yaml", "quick.txt", "elsewhere/own.yaml"):
        (tmp_path / place).touch()
    expected = {
        "gansweep sta": ["status"],
        "gansweep status ": ["first", "second"],
        "gansweep resume s": ["second"],
        "gansweep report --root elsewhere ": ["third"],
        "gansweep add-trials f": ["first"],
        "gansweep launch quick": ["quickstart", "quick.yaml"],
        "gansweep doctor elsewhere/": ["elsewhere/own.yaml", "elsewhere/third/"],
        "gansweep list d": ["datasets"],
        "gansweep status nothing-like-it": [],
    }
    home = (completion("gansweep stop ")[0], {**completion("gansweep stop ")[1], "GANSWEEP_HOME": "elsewhere"})
    cases = [*map(completion, expected), home, completion("gansweep status fi", "zsh")]
    results = run(cases, tmp_path)
    assert [heavy for *_, heavy in results] == [[]] * len(cases)
    assert [out.split() for _, out, _, _ in results[: len(expected)]] == list(expected.values())
    assert results[-2][1].split() == ["third"]
    assert "first" in results[-1][1]


def test_the_module_that_jobs_run_imports_nothing_heavy(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "orchestrator.cli", "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
    assert "Usage: gansweep" in done.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert imported.isdisjoint({*HEAVY, "pydantic"})


def test_a_status_imports_neither_torch_nor_ray(tmp_path: Path) -> None:
    sweep = made_up.sweep()
    folder = tmp_path / "runs" / sweep.name
    folder.mkdir(parents=True)
    study = SweepStudy.create(folder, sweep)
    ticket = study.next_ticket()
    assert ticket is not None
    study.report(ticket.number, made_up.history(0.3, 0.2, 0.1))
    cases: list[Case] = [(["status", *more], {}) for more in ([], ["--json"], [sweep.name], [sweep.name, "--json"])]
    results = run(cases, tmp_path, ("torch", "ray", "mlflow", "boto3", "plotly"))
    for (arguments, _), (code, out, err, heavy) in zip(cases, results, strict=True):
        assert code in (0, None), err
        assert sweep.name in out
        assert heavy == [], arguments
