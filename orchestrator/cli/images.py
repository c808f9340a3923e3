"""The commands about images and single generators, train, score and mix-study, and how scores are printed."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.app import DEFAULT_ROOT, Json, Root, app, console, print_json
from orchestrator.paths import cache_of, mix_study_of
from trainers.command_line import prints_progress
from trainers.errors import InputError
from trainers.evaluation.scores import METRICS, written
from trainers.names import DATASETS, EXTRACTORS

if TYPE_CHECKING:
    from rich.table import Table

    from trainers.evaluation.classes import OfClass
    from trainers.evaluation.spec import ExtractorSpec
    from trainers.tools.pairs import Likeness
    from trainers.tools.score import Scored

MIX_STUDY = mix_study_of(DEFAULT_ROOT)
_DATASETS = f"Data set of the real images: {', '.join(DATASETS)}."
DataFolder = Annotated[Path | None, typer.Option(help="Folder of its files.")]
Background = Annotated[str | None, typer.Option(help="Colour below transparent parts: white, '#rrggbb', ...")]
SkipDamaged = Annotated[bool, typer.Option("--skip-damaged", help="Pass over pictures of it that cannot be decoded.")]
Size = Annotated[
    int | None,
    typer.Option(help="Pixels per side to which a folder's pictures are scaled; default: as the generated images."),
]
Verify = Annotated[bool, typer.Option(help="Whether its files must be the published ones.")]


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    help="Train one GAN without a sweep. `gansweep train --help` lists its options.",
)
def train(context: typer.Context) -> None:
    """Passes all arguments on to `python -m trainers`."""
    from trainers.__main__ import main

    raise typer.Exit(main(context.args, program="gansweep train"))


@app.command("score")
def score_command(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="A folder of pictures, a checkpoint, or a run's folder.")],
    dataset: Annotated[str | None, typer.Option(help=_DATASETS)] = None,
    data: DataFolder = None,
    size: Size = None,
    verify: Verify = True,
    background: Background = None,
    skip_damaged: SkipDamaged = False,
    metrics: Annotated[str, typer.Option(help=f"Comma-separated, of {', '.join(METRICS)}; default: a rung's.")] = "",
    per_class: Annotated[bool, typer.Option("--per-class", help="Accuracy, KID and FID of each class too.")] = False,
    samples: Annotated[int, typer.Option(help="Images that a checkpoint's generator makes.")] = 10_000,
    extractor: Annotated[str, typer.Option(help=f"One of {', '.join(EXTRACTORS)}.")] = "lenet",
    weights: Annotated[Path | None, typer.Option(help="TorchScript file of the extractor.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Checksum that it must have.")] = None,
    dtype: Annotated[str, typer.Option(help="Its arithmetic, float32 or float64.")] = "float32",
    targets: Annotated[Path | None, typer.Option(help="Folder of targets; PSNR and SSIM of pairs alone.")] = None,
    as_json: Json = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Score a folder of images, or a checkpoint's samples."""
    if targets is not None:
        _score_pairs(_given(context), source, targets, background, as_json)
        return
    if dataset is None:
        raise InputError(f"score needs --dataset, one of {', '.join(DATASETS)}, or --targets, a folder of pictures")
    _check_store(source, root)
    from trainers.data.spec import colour_option, read_spec
    from trainers.tools.score import score

    colour = colour_option(background)
    laid_on = colour if dataset == "folder" else None  # the other data sets have no transparent parts
    images = read_spec(dataset, path=data, size=size, verify=verify, background=laid_on, skip_damaged=skip_damaged)
    network = _extractor(name=extractor, weights=weights, sha256=sha256, dtype=dtype)
    chosen = tuple(filter(None, metrics.split(",")))
    from orchestrator.store.extractors import weights_beside

    fetch = partial(weights_beside, source)
    found = score(source, images, network, chosen, samples, cache_of(root), per_class, colour, fetch)
    for notice in found.notices:
        print(f"warning: {notice}", file=sys.stderr)
    print_scores(found, as_json)


@app.command("mix-study")
def mix_study_command(
    source: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Of a conditional system, or a run's folder.")],
    dataset: Annotated[str, typer.Option(help=_DATASETS)],
    data: DataFolder = None,
    size: Size = None,
    verify: Verify = True,
    background: Background = None,
    skip_damaged: SkipDamaged = False,
    strategies: Annotated[str, typer.Option(help="none: mixed, 1: generated then real, 2: in turns.")] = "none,1,2",
    real: Annotated[str, typer.Option(help="Numbers of real images; default: the reported proportions.")] = "",
    seeds: Annotated[str, typer.Option(help="Comma-separated; one training for each.")] = "0,1,2",
    epochs: Annotated[int, typer.Option(help="Epochs of each training; an even number.")] = 30,
    images: Annotated[
        int | None, typer.Option(help="Size of each training set; default: 11/12 of the real one.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of points, table and page.")] = MIX_STUDY,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Train classifiers on real and generated images, mixed. After an interruption the same command goes on."""
    _check_store(source, root)
    from orchestrator.report.mixing import PAGE, write_results
    from trainers.data.spec import colour_option, read_spec
    from trainers.run import pick_device
    from trainers.tools.mix_study import plan, read_points

    colour = colour_option(background)
    study = plan(
        source,
        read_spec(dataset, path=data, size=size, verify=verify, background=colour, skip_damaged=skip_damaged),
        strategies=list(filter(None, strategies.split(","))),
        real=_whole_numbers("--real", real),
        seeds=_whole_numbers("--seeds", seeds),
        epochs=epochs,
        images=images,
        device=pick_device(),
        cache=cache_of(root),
    )
    prints_progress()
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


def print_scores(found: Scored, as_json: bool) -> None:
    """Each score with its standard error, a table of the classes if they were scored, and how it was measured.

    As JSON a list of scores, with classes `{"scores": [...], "classes": [...]}`.
    """
    if as_json:
        scores = [asdict(each) for each in found.scores.values()]
        classes = found.classes
        print_json(scores if classes is None else {"scores": scores, "classes": [asdict(each) for each in classes]})
        return
    origins: dict[str, list[str]] = {}
    for each in found.scores.values():
        console.print(f"{each.metric:>12} {written(each.value, each.stderr)}", highlight=False)
        origin = f"on {each.n:,} images, by {each.extractor} against {each.reference}"
        origins.setdefault(origin, []).append(each.metric)
    if found.classes is not None:
        console.print(_table(found.classes))
    for origin, names in origins.items():
        text = origin if len(origins) == 1 else f"{', '.join(names)}: {origin}"
        console.print(text, highlight=False, soft_wrap=True)


def print_likeness(found: Likeness, images: Path, targets: Path, as_json: bool) -> None:
    """PSNR and SSIM with their standard errors; as JSON the fields of `Likeness`, with "inf" for infinity."""
    if as_json:
        print_json(asdict(found))
        return
    equal = f" ({found.equal:,} pairs are equal)" if found.equal else ""
    console.print(f"{'psnr':>12} {written(found.psnr, found.psnr_stderr)} dB{equal}", highlight=False)
    console.print(f"{'ssim':>12} {written(found.ssim, found.ssim_stderr)}", highlight=False)
    console.print(f"on {found.n:,} pairs, of {images} with {targets}", highlight=False, soft_wrap=True)


def _check_store(source: Path, root: Path) -> None:
    """Raises InputError if `source` is in a store that a sweep below `root` names, but that is another study's."""
    if "trials" in source.resolve().parts:  # perhaps in a store; it takes a second to import what knows
        from orchestrator.driver.ownership import check_scored

        check_scored(source, root)


def _score_pairs(given: set[str], source: Path, targets: Path, background: str | None, as_json: bool) -> None:
    """Raises InputError if an option is `given` that means nothing for pairs."""
    if useless := given - {"source", "targets", "background", "as_json", "root"}:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(useless))
        raise InputError(f"{options}: has no meaning with --targets, which compares pixels alone")
    from trainers.data.spec import colour_option
    from trainers.tools.pairs import likeness

    print_likeness(likeness(source, targets, colour_option(background)), source, targets, as_json)


def _given(context: typer.Context) -> set[str]:
    """The parameters that the command line names."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _extractor(**options: Any) -> ExtractorSpec:
    """The extractor that the options name. Raises InputError if there is none or they contradict each other."""
    from pydantic import ValidationError

    from trainers.config import problems
    from trainers.evaluation.spec import ExtractorSpec

    try:
        return ExtractorSpec.model_validate(options)
    except ValidationError as error:
        found = (f"--{'.'.join(path) or 'extractor'}: {text}" for path, text in problems(error))
        raise InputError("; ".join(found)) from None


def _whole_numbers(option: str, text: str) -> list[int]:
    try:
        return [int(word) for word in filter(None, text.split(","))]
    except ValueError:
        raise InputError(f"{option} {text}: must be whole numbers with commas between them") from None


def _table(classes: tuple[OfClass, ...]) -> Table:
    from rich.table import Table

    table = Table("class", "images", "accuracy", "kid", "fid")
    for each in classes:
        distance = "-" if each.kid is None else written(each.kid, each.kid_stderr)
        accuracy, fid = ("-" if value is None else written(value, None) for value in (each.accuracy, each.fid))
        table.add_row(str(each.label), f"{each.n:,}", accuracy, distance, fid)
    return table
