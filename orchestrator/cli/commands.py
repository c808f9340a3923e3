"""The commands that run, look at and change sweeps, and those about this machine: list, ui, doctor."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.app import (
    DEFAULT_ROOT,
    LISTS,
    Address,
    AnyName,
    Database,
    File,
    Json,
    Name,
    NewName,
    Root,
    Settings,
    app,
    complete_list,
    console,
    open_study,
    print_json,
    say,
)
from orchestrator.paths import REPORT, mlflow_artifacts, mlflow_uri, sweep_names
from trainers.command_line import prints_progress
from trainers.errors import InputError

if TYPE_CHECKING:
    from search_spaces.load import SweepFile
    from search_spaces.sweep import Sweep


@app.command("launch")
def launch_command(
    file: File,
    name: NewName = None,
    trials: Annotated[int | None, typer.Option(help="Budget: number of trials.")] = None,
    settings: Settings = None,
    root: Root = DEFAULT_ROOT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all, print the plan, start nothing.")] = False,
    read_data: Annotated[bool, typer.Option("--read-data", help="With --dry-run: read all images too.")] = False,
    address: Address = None,
) -> None:
    """Begin a sweep, or go on with it if it exists."""
    overrides = [*(settings or []), *([f"budget.trials={trials}"] if trials is not None else [])]
    written = _read(file, overrides, name)
    sweep = written.sweep()
    from search_spaces.advice import sweep_warnings

    for warning in sweep_warnings(sweep):
        print(f"warning: {warning}", file=sys.stderr)
    with written.places():
        if not dry_run:
            _run(sweep, root, address)
            return
        from orchestrator.driver.launch import check
        from orchestrator.paths import cache_of
        from orchestrator.study.study import SweepStudy
        from search_spaces.load import read_images
        from trainers.data.catalogue import notices

        found = check(sweep, root, lambda: SweepStudy.open(root / sweep.name, sweep.study.storage))
        data = read_images(sweep, cache_of(root))[0].notices if read_data else notices(sweep.dataset)
        for notice in (*found, *data):
            print(f"warning: {notice}", file=sys.stderr)
    from orchestrator.cli.text import plan_lines

    say(plan_lines(sweep, root))


@app.command()
def resume(
    name: Name,
    storage: Annotated[str | None, typer.Option(help="URL of the study's database, if the folder names none.")] = None,
    root: Root = DEFAULT_ROOT,
    address: Address = None,
) -> None:
    """Go on with a sweep that was interrupted."""
    _run(open_study(root / name, storage).sweep, root, address)


@app.command("submit")
def submit_command(
    file: File,
    address: Annotated[str, typer.Option(help="http://HOST:8265, the dashboard of a Ray cluster.")],
    name: NewName = None,
    settings: Settings = None,
    root: Annotated[Path | None, typer.Option(help="Folder of sweeps there; default: its $GANSWEEP_HOME.")] = None,
    wait: Annotated[bool, typer.Option(help="Whether to stay and show what the job prints.")] = True,
) -> None:
    """Launch a sweep as a job of a Ray cluster. While such a job is under way, no other is started."""
    from orchestrator.cluster.jobs import run

    prints_progress()
    if not run(_read(file, settings or [], name).sweep(), address, root, typer.echo, wait):
        raise typer.Exit(1)


@app.command()
def status(name: AnyName = None, as_json: Json = False, root: Root = DEFAULT_ROOT) -> None:
    """Show the state of a sweep, or of every sweep. The exit code is 1 if one of them cannot be read."""
    from orchestrator.cli.text import status_lines
    from orchestrator.study.missing import known_sweeps
    from orchestrator.study.status import Unreadable, read_each, read_status

    nothing_yet = root == DEFAULT_ROOT and not root.exists()  # nobody has named a root that is wrong
    names = [] if nothing_yet or name else known_sweeps(root)
    found = [read_status(root / name)] if name else read_each(root, names)
    if as_json:
        records = [each.to_json() for each in found]
        typer.echo(json.dumps(records[0] if name else records, indent=1))
    else:
        for each in found:
            say(status_lines(each, trials=name is not None))
        if not found:
            say([f"no sweeps in {root}"])
    if any(isinstance(each, Unreadable) for each in found):
        raise typer.Exit(1)


@app.command("stop")
def stop_command(
    name: Name,
    trial: Annotated[int | None, typer.Option(help="Number of the one trial to stop; default: the sweep.")] = None,
    storage: Database = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Stop a running sweep, or a trial, at the next rung. The sweep can be resumed later."""
    from orchestrator.cli.requests import stop

    typer.echo(stop(root / name, storage, trial))


@app.command("pause")
def pause_command(name: Name, storage: Database = None, root: Root = DEFAULT_ROOT) -> None:
    """End a sweep's driver after the rungs under way. Its trials go on when the sweep is resumed."""
    from orchestrator.cli.requests import pause

    typer.echo(pause(root / name, storage))


@app.command("add-trials")
def add_trials_command(name: Name, count: int, storage: Database = None, root: Root = DEFAULT_ROOT) -> None:
    """Raise the budget of a running or finished sweep."""
    from orchestrator.cli.requests import add_trials

    typer.echo(add_trials(root / name, storage, count))


@app.command()
def gc(
    name: Name,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Name them, delete nothing.")] = False,
    storage: Database = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Delete orphans from a sweep's store. Orphans are what processes that died have left and nothing refers to."""
    from orchestrator.driver.gc import collect

    collect(root / name, storage, dry_run, typer.echo)


@app.command()
def report(
    name: Name,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: report.html of the sweep.")] = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Write a sweep's report: one HTML file."""
    from orchestrator.report import write_report
    from orchestrator.study.status import status_of

    study, path = open_study(root / name), output or root / name / REPORT
    write_report(status_of(study), study, path)
    console.print(f"report: {path}", soft_wrap=True)


@app.command("rebuild-tracking")
def rebuild_tracking_command(name: Name, root: Root = DEFAULT_ROOT) -> None:
    """Write to MLflow what it lacks of a sweep. All of it is in the sweep's study and store."""
    study = open_study(root / name)  # before MLflow, which takes seconds to import
    from orchestrator.cli.rebuild import rebuild_tracking

    rebuild_tracking(study, root, console)
    console.print(f"tracking: all of {name} is written", highlight=False)


@app.command("repair")
def repair_command(
    name: Name,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be kept, change nothing.")] = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Keep what is whole of a sweep's damaged journal, and say what is lost. The damaged file stays beside it."""
    from orchestrator.study.repair import repair

    say(repair(root / name, dry_run))


@app.command("simulate")
def simulate_command(
    curves: Annotated[Path, typer.Argument(help="Recorded learning curves: an .npz or a .json file.")],
    pruner: Annotated[str, typer.Option(help="As in a sweep file: a name or {name: NAME, ...}.")] = "freeze-thaw",
    budget: Annotated[int | None, typer.Option(help="Steps in all; default: all steps of all curves.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=100_000, help="Trials at once.")] = 8,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Number of random orders of the candidates.")] = 20,
    as_json: Json = False,
) -> None:
    """Replay learning curves through a pruner. It is compared with random search on the same curves."""
    if budget is not None and not 1 <= budget <= 2**62:
        raise InputError(f"--budget {budget}: allowed are 1 to 2**62")
    from orchestrator.cli.curves import read_curves, read_pruner
    from orchestrator.decisions.simulate import simulate

    found = asdict(simulate(read_curves(curves), read_pruner(pruner), budget, workers, seeds))
    if as_json:
        print_json(found)
        return
    for key, value in found.items():
        shown = value if not isinstance(value, dict) else "  ".join(f"{k} {_short(v)}" for k, v in value.items())
        console.print(f"{key:>20}  {shown if isinstance(shown, str) else _short(shown)}", highlight=False)


@app.command("list")
def list_command(
    what: Annotated[str, typer.Argument(metavar="|".join(LISTS), autocompletion=complete_list)], as_json: Json = False
) -> None:
    """List what can be named in a sweep file."""
    if what not in LISTS:
        raise InputError(f"list {what}: allowed are {', '.join(LISTS)}")
    from rich.table import Table

    rows = _rows(what)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table("id", "summary")
    for row in rows:
        table.add_row(row["id"], row["summary"])
    console.print(table)


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port on localhost.")] = 5000, root: Root = DEFAULT_ROOT) -> None:
    """Serve MLflow's user interface on localhost. It shows all sweeps below --root."""
    from orchestrator.cli.serving import check_port, serve

    check_port(port)
    if not sweep_names(root):
        raise InputError(f"no sweeps in {root}: launch one first, or name another --root")
    from orchestrator.tracking.address import tracker_of_environment
    from orchestrator.tracking.sqlite_file import check_file

    check_file(root, "NAME")
    if (notice := tracker_of_environment()) is not None:
        console.print(f"{notice}; this shows the others", highlight=False, markup=False, soft_wrap=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", mlflow_uri(root), "--default-artifact-root", mlflow_artifacts(root).as_uri()]
    console.print(f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)")
    raise typer.Exit(serve(command, {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}))


@app.command("doctor")
def doctor_command(
    file: File = "quickstart",
    settings: Settings = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster, as of launch; default: this machine alone.")] = None,
    root: Root = DEFAULT_ROOT,
    as_json: Json = False,
) -> None:
    """Check whether a sweep could run here. Says what helps if not; the exit code is 1 then."""
    from orchestrator.doctor.command import conclusion, doctor, lines

    sweep = _read(file, settings or [], None).sweep()
    findings = []
    for each in doctor(sweep, root, address):
        findings.append(each)
        if not as_json:
            say(lines(each))
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in findings], indent=1))
    else:
        say([conclusion(sweep.name, findings)])
    if any(each.verdict == "failed" for each in findings):
        raise typer.Exit(1)


def _read(file: str, overrides: list[str], name: str | None) -> SweepFile:
    from search_spaces import resolve

    path = resolve(file)  # before the next import, which takes seconds: so a wrong name ends the command at once
    from search_spaces.load import SweepFile

    return SweepFile.read(path, overrides, name)


def _run(sweep: Sweep, root: Path, address: str | None) -> None:
    from orchestrator.cluster.nodes import CLIENT

    prints_progress()
    if address and address.startswith(CLIENT):
        from orchestrator.cluster.jobs import run

        if not run(sweep, address, root if root.is_absolute() else None, typer.echo):
            raise typer.Exit(1)
        return
    from orchestrator.cli.text import outcome_lines, stopped
    from orchestrator.driver.launch import launch
    from orchestrator.study.status import read_status
    from orchestrator.study.study import SweepStudy

    interrupted = False
    try:
        outcome = launch(sweep, root, console, address)
    except KeyboardInterrupt:
        if SweepStudy.open(root / sweep.name, sweep.study.storage) is None:  # it came before the sweep began
            raise typer.Exit(130) from None
        outcome, interrupted = read_status(root / sweep.name), True
    say(outcome_lines(outcome, root))
    if interrupted or (stopped(outcome) and not outcome.asked):
        raise typer.Exit(130)
    if outcome.fault:
        raise typer.Exit(1)


def _rows(what: str) -> list[dict[str, Any]]:
    """What `gansweep list` shows of one of LISTS."""
    if what == "systems":
        from trainers.catalogue import SYSTEMS

        return [
            {"id": key, "shape": list(each.shape), "conditional": each.conditional, "summary": each.summary}
            for key, each in SYSTEMS.items()
        ]
    if what == "datasets":
        from trainers.data.catalogue import DATASETS

        return [{"id": key, "summary": dataset.summary} for key, dataset in DATASETS.items()]
    from search_spaces import shipped, summary

    return [{"id": key, "summary": summary(path)} for key, path in shipped().items()]


def _short(value: float | None) -> str:
    return "never" if value is None else f"{value:.5g}"
