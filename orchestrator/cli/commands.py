"""The command line: launch, resume, stop, pause, add-trials, status, gc, report, train, score, mix-study, list, ui."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from orchestrator.cli.curves import read_curves, read_pruner
from orchestrator.cli.images import print_likeness, print_scores
from orchestrator.cli.rebuild import rebuild_tracking
from orchestrator.cli.requests import add_trials, pause, stop
from orchestrator.cli.text import outcome_lines, plan_lines, status_lines, stopped
from orchestrator.cluster.nodes import CLIENT
from orchestrator.decisions.simulate import simulate
from orchestrator.doctor.command import conclusion, doctor, lines
from orchestrator.driver.gc import collect
from orchestrator.driver.launch import launch
from orchestrator.paths import REPORT, cache_of, sweep_names
from orchestrator.report import write_report
from orchestrator.report.mixing import PAGE, write_results
from orchestrator.store import check_store
from orchestrator.study.lease import LeaseLostError
from orchestrator.study.status import missing_sweep, read_status
from orchestrator.study.study import SweepStudy
from search_spaces import resolve, shipped, summary
from search_spaces.checks import doubts
from search_spaces.load import check_sweep, load_sweep
from search_spaces.sweep import Sweep
from trainers.__main__ import main as train_main
from trainers.catalogue import SYSTEMS
from trainers.config import problems
from trainers.data.catalogue import DATASETS
from trainers.data.spec import DatasetSpec
from trainers.errors import InputError
from trainers.evaluation.scores import METRICS
from trainers.evaluation.spec import ExtractorSpec
from trainers.run import pick_device
from trainers.tools.mix_study import plan, read_points
from trainers.tools.pairs import likeness
from trainers.tools.score import score

app = typer.Typer(
    help="Search the hyper-parameters of GANs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

Root = Annotated[
    Path, typer.Option(envvar="GANSWEEP_HOME", help="Folder of all sweeps.", show_default="$GANSWEEP_HOME or ./runs")
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Database = Annotated[
    str | None, typer.Option("--storage", help="Database of the study, where this machine has no folder of the sweep.")
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster: auto or HOST:PORT of its head, from one of its nodes; ray://HOST:PORT from anywhere."
    ),
]
DEFAULT_ROOT = Path("runs")
MIX_STUDY = DEFAULT_ROOT / "mix-study"


@app.command("launch")
def launch_command(
    file: Annotated[str, typer.Argument(help="A sweep file, or the name of a shipped one.")],
    name: Annotated[str | None, typer.Option(help="Name of the sweep; default: the file's.")] = None,
    trials: Annotated[int | None, typer.Option(help="Budget: number of trials.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override any key.")] = None,
    root: Root = DEFAULT_ROOT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all, print the plan, start nothing.")] = False,
    address: Address = None,
) -> None:
    """Begin a sweep, or go on with it if it exists."""
    overrides = [*(settings or []), *([f"budget.trials={trials}"] if trials is not None else [])]
    sweep = load_sweep(resolve(file), overrides, name)
    for doubt in doubts(sweep):
        print(f"warning: {doubt}", file=sys.stderr)
    if dry_run:
        check_sweep(sweep, cache_of(root))
        check_store(sweep)
        _say(plan_lines(sweep, root))
    else:
        _run(sweep, root, address)


@app.command()
def resume(
    name: str,
    storage: Annotated[str | None, typer.Option(help="URL of the study's database, for a folder without it.")] = None,
    root: Root = DEFAULT_ROOT,
    address: Address = None,
) -> None:
    """Go on with a sweep that was interrupted."""
    study = SweepStudy.open(root / name, storage)
    if study is None:
        raise missing_sweep(root / name)
    _run(study.sweep, root, address)


@app.command("submit")
def submit_command(
    file: Annotated[str, typer.Argument(help="A sweep file, or the name of a shipped one.")],
    address: Annotated[str, typer.Option(help="http://HOST:8265, the dashboard of a Ray cluster.")],
    name: Annotated[str | None, typer.Option(help="Name of the sweep; default: the file's.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override any key.")] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of sweeps there; default: its $GANSWEEP_HOME.")] = None,
    wait: Annotated[bool, typer.Option(help="Whether to stay and show what the job prints.")] = True,
) -> None:
    """Have a Ray cluster begin a sweep, or go on with it, as a job; the same command again changes nothing."""
    from orchestrator.cluster.jobs import run  # Ray takes seconds to import

    if not run(load_sweep(resolve(file), settings or [], name), address, root, typer.echo, wait):
        raise typer.Exit(1)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument()] = None, as_json: Json = False, root: Root = DEFAULT_ROOT
) -> None:
    """Show what a sweep, or every sweep, has come to."""
    found = [read_status(root / each) for each in ([name] if name else sweep_names(root))]
    if as_json:
        records = [each.to_json() for each in found]
        typer.echo(json.dumps(records[0] if name else records, indent=1))
        return
    for each in found:
        _say(status_lines(each, trials=name is not None))


@app.command("stop")
def stop_command(
    name: str,
    trial: Annotated[int | None, typer.Option(help="Number of the one trial to stop; default: the sweep.")] = None,
    storage: Database = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Stop a running sweep, or one of its trials, at the next rung; the sweep can go on later."""
    typer.echo(stop(root / name, storage, trial))


@app.command("pause")
def pause_command(name: str, storage: Database = None, root: Root = DEFAULT_ROOT) -> None:
    """Let the driver of a sweep end after the rungs under way; trials go on when the sweep is resumed."""
    typer.echo(pause(root / name, storage))


@app.command("add-trials")
def add_trials_command(name: str, count: int, storage: Database = None, root: Root = DEFAULT_ROOT) -> None:
    """Raise the budget of a running or finished sweep."""
    typer.echo(add_trials(root / name, storage, count))


@app.command()
def gc(
    name: str,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Name them, delete nothing.")] = False,
    storage: Database = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Delete what lies in a sweep's store and belongs to nothing: orphans of processes that died."""
    collect(root / name, storage, dry_run, typer.echo)


@app.command()
def report(
    name: str,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: report.html of the sweep.")] = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Write a sweep's report: one HTML file."""
    found = read_status(root / name)
    study = SweepStudy.open(root / name)
    assert study is not None  # read_status has found it
    path = output or root / name / REPORT
    path.parent.mkdir(parents=True, exist_ok=True)
    write_report(found, study, path)
    console.print(f"report: {path}", soft_wrap=True)


@app.command("rebuild-tracking")
def rebuild_tracking_command(name: str, root: Root = DEFAULT_ROOT) -> None:
    """Write what MLflow lacks of a sweep, from its study and its store."""
    study = SweepStudy.open(root / name)
    if study is None:
        raise missing_sweep(root / name)
    rebuild_tracking(study, root, console)
    console.print(f"tracking: all of {name} is written", highlight=False)


@app.command("simulate")
def simulate_command(
    curves: Annotated[Path, typer.Argument(help="Recorded learning curves: an .npz or a .json file.")],
    pruner: Annotated[str, typer.Option(help="As in a sweep file: a name or {name: NAME, ...}.")] = "freeze-thaw",
    budget: Annotated[int | None, typer.Option(help="Steps in all; default: all steps of all curves.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Trials at once.")] = 8,
    seeds: Annotated[int, typer.Option(min=1, help="Orders of the candidates.")] = 20,
    as_json: Json = False,
) -> None:
    """Replay recorded learning curves through the decisions of a pruner, beside random search."""
    if budget is not None and budget < 1:
        raise InputError(f"--budget {budget}: allowed are 1 or more")
    found = simulate(read_curves(curves), read_pruner(pruner), budget, workers, seeds)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1))
        return
    for key, value in asdict(found).items():
        shown = value if not isinstance(value, dict) else "  ".join(f"{k} {_short(v)}" for k, v in value.items())
        console.print(f"{key:>20}  {shown if isinstance(shown, str) else _short(shown)}", highlight=False)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    help="Train one GAN without a sweep; `gansweep train --help` lists its options.",
)
def train(context: typer.Context) -> None:
    raise typer.Exit(train_main(context.args, program="gansweep train"))


@app.command("score")
def score_command(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="A folder of pictures, a checkpoint, or a run's folder.")],
    dataset: Annotated[str | None, typer.Option(help="Data set of the real images.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of its files.")] = None,
    verify: Annotated[bool, typer.Option(help="Whether its files must be the published ones.")] = True,
    metrics: Annotated[str, typer.Option(help=f"Comma-separated, of {', '.join(METRICS)}; default: a rung's.")] = "",
    per_class: Annotated[bool, typer.Option("--per-class", help="Accuracy, KID and FID of each class too.")] = False,
    samples: Annotated[int, typer.Option(help="Images that a checkpoint's generator makes.")] = 10_000,
    extractor: Annotated[str, typer.Option(help="lenet, cnn, inception, inception-pt or custom.")] = "lenet",
    weights: Annotated[Path | None, typer.Option(help="TorchScript file of the extractor.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Checksum that it must have.")] = None,
    dtype: Annotated[str, typer.Option(help="Its arithmetic, float32 or float64.")] = "float32",
    targets: Annotated[Path | None, typer.Option(help="Folder of targets: PSNR and SSIM of pairs, no more.")] = None,
    as_json: Json = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Score anybody's images, or those of a checkpoint."""
    if targets is not None:
        if useless := _given(context) - {"source", "targets", "as_json", "root"}:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(useless))
            raise InputError(f"{options}: has no meaning with --targets, which compares pixels alone")
        print_likeness(likeness(source, targets), source, targets, as_json)
        return
    if dataset is None:
        raise InputError(f"score needs --dataset, one of {', '.join(DATASETS)}, or --targets, a folder of pictures")
    try:
        spec = DatasetSpec(name=dataset, path=data, verify=verify)
        network = ExtractorSpec.model_validate(
            {"name": extractor, "weights": weights, "sha256": sha256, "dtype": dtype}
        )
    except ValidationError as error:
        raise InputError(
            "; ".join(f"--{'.'.join(path) or 'extractor'}: {text}" for path, text in problems(error))
        ) from None
    chosen = tuple(filter(None, metrics.split(",")))
    print_scores(score(source, spec, network, chosen, samples, cache_of(root), per_class), as_json)


@app.command("mix-study")
def mix_study_command(
    source: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Of a conditional system, or a run's folder.")],
    dataset: Annotated[str, typer.Option(help="Data set of the real images.")],
    data: Annotated[Path | None, typer.Option(help="Folder of its files.")] = None,
    verify: Annotated[bool, typer.Option(help="Whether its files must be the published ones.")] = True,
    strategies: Annotated[str, typer.Option(help="none: mixed, 1: generated then real, 2: in turns.")] = "none,1,2",
    real: Annotated[str, typer.Option(help="Numbers of real images; default: the reported proportions.")] = "",
    seeds: Annotated[str, typer.Option(help="One training each.")] = "0,1,2",
    epochs: Annotated[int, typer.Option(help="Of each training; an even number.")] = 30,
    images: Annotated[int | None, typer.Option(help="Of each training set; default: 11/12 of the real ones.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of points, table and page.")] = MIX_STUDY,
) -> None:
    """Train classifiers on mixes of real and generated images; what is interrupted goes on."""
    study = plan(
        source,
        DatasetSpec(name=dataset, path=data, verify=verify),
        strategies=list(filter(None, strategies.split(","))),
        real=_whole_numbers("--real", real),
        seeds=_whole_numbers("--seeds", seeds),
        epochs=epochs,
        images=images,
        device=pick_device(),
    )
    left, interrupted = len(study.missing(read_points(output, study.settings))), False
    try:
        for count, point in enumerate(study.run(output), 1):
            typer.echo(
                f"[{count}/{left}] strategy {point.strategy}, {point.real:,} real, seed {point.seed}: "
                f"{point.accuracy:.2%} in {point.seconds:.1f} s"
            )
    except KeyboardInterrupt:
        interrupted = True
    if points := read_points(output, study.settings):
        typer.echo("\n" + write_results(study.settings, points, output))
        typer.echo(f"page: {output / PAGE}")
    if interrupted:
        typer.echo("stopped; the same command goes on")
        raise typer.Exit(130)


@app.command("list")
def list_command(
    what: Annotated[str, typer.Argument(metavar="systems|datasets|search-spaces")], as_json: Json = False
) -> None:
    """List what can be named in a sweep file."""
    rows: dict[str, list[dict[str, Any]]] = {
        "systems": [
            {"id": key, "shape": list(s.shape), "conditional": s.conditional, "summary": s.summary}
            for key, s in SYSTEMS.items()
        ],
        "datasets": [{"id": key, "summary": dataset.summary} for key, dataset in DATASETS.items()],
        "search-spaces": [{"id": key, "summary": summary(path)} for key, path in shipped().items()],
    }
    if what not in rows:
        raise InputError(f"list {what}: allowed are {', '.join(rows)}")
    if as_json:
        typer.echo(json.dumps(rows[what], indent=1))
        return
    table = Table("id", "summary")
    for row in rows[what]:
        table.add_row(row["id"], row["summary"])
    console.print(table)


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port on localhost.")] = 5000, root: Root = DEFAULT_ROOT) -> None:
    """Serve the MLflow user interface over the sweeps, on localhost only."""
    from orchestrator.paths import mlflow_artifacts, mlflow_uri

    if not sweep_names(root):
        raise InputError(f"no sweeps in {root}: launch one first, or name another --root")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", mlflow_uri(root), "--default-artifact-root", mlflow_artifacts(root).as_uri()]
    console.print(f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)")
    raise typer.Exit(subprocess.call(command, env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}))


@app.command("doctor")
def doctor_command(
    file: Annotated[str, typer.Argument(help="A sweep file, or the name of a shipped one.")] = "quickstart",
    address: Annotated[str | None, typer.Option(help="Ray cluster, as of launch; default: this machine alone.")] = None,
    root: Root = DEFAULT_ROOT,
    as_json: Json = False,
) -> None:
    """Check whether a sweep could run here, and say what helps; exit code 1 where it cannot run."""
    sweep = load_sweep(resolve(file))
    findings = []
    for each in doctor(sweep, root, address):
        findings.append(each)
        if not as_json:
            _say(lines(each))
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in findings], indent=1))
    else:
        _say([conclusion(sweep.name, findings)])
    if any(each.verdict == "failed" for each in findings):
        raise typer.Exit(1)


def _given(context: typer.Context) -> set[str]:
    """The parameters that the command line names."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _whole_numbers(option: str, text: str) -> list[int]:
    try:
        return [int(word) for word in filter(None, text.split(","))]
    except ValueError:
        raise InputError(f"{option} {text}: must be whole numbers with commas between them") from None


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _run(sweep: Sweep, root: Path, address: str | None) -> None:
    if address and address.startswith(CLIENT):
        from orchestrator.cluster.jobs import run

        if not run(sweep, address, root if root.is_absolute() else None, typer.echo):
            raise typer.Exit(1)
        return
    try:
        outcome = launch(sweep, root, console, address)
    except KeyboardInterrupt:
        outcome = read_status(root / sweep.name)
    _say(outcome_lines(outcome, root))
    if stopped(outcome) and not outcome.asked:
        raise typer.Exit(130)


def _short(value: float | None) -> str:
    return "never" if value is None else f"{value:.5g}"


def main() -> None:
    """Entry point: an InputError is one message and exit code 2, a lease that is lost one and exit code 3."""
    try:
        app()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except LeaseLostError as error:
        print(f"error: {error}; this driver writes nothing more", file=sys.stderr)
        sys.exit(3)
