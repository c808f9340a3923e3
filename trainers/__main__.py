"""`python -m trainers SYSTEM`: one run without cluster, study or tracker. The same command again continues it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trainers.command_line import command_line
from trainers.evaluation.scores import METRICS
from trainers.names import NETWORKS, SYSTEMS


def main(arguments: Sequence[str] | None = None, program: str = "python -m trainers") -> int:
    """Trains as the command line says; returns the exit code. Help and wrong options end the process, without torch."""
    options = _parser(program).parse_args(arguments)
    from trainers.command import train  # torch takes seconds to import

    return train(options)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description="Train one GAN; the same command again continues it.")
    parser.add_argument("system", metavar="SYSTEM", help="one of: " + ", ".join(SYSTEMS))
    parser.add_argument("--dataset", help="data set by name; default: the one the system was made for")
    parser.add_argument("--fit", action="store_true", help="fit the images to the system's size and colours")
    parser.add_argument("--size", type=int, help="height and width of a folder's pictures (default: the system's)")
    parser.add_argument("--data", type=Path, help="folder of the data set's files")
    parser.add_argument("--no-verify", action="store_true", help="take files that are not the published ones")
    parser.add_argument("--background", metavar="COLOUR", help="what lies below transparent parts of pictures")
    parser.add_argument("--skip-damaged", action="store_true", help="pass over pictures that cannot be decoded")
    parser.add_argument("--kimg", type=float, default=60.0, help="length in kimg (default 60)")
    parser.add_argument("--every", type=float, default=10.0, help="kimg between scores and checkpoints (default 10)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a field of the configuration")
    parser.add_argument("--metrics", default="kid,fid", help="comma-separated: " + ", ".join(METRICS))
    parser.add_argument("--extractor", default="lenet", help=", ".join(NETWORKS))
    parser.add_argument("--samples", type=int, default=2000, help="generated images per score (default 2000)")
    parser.add_argument("--out", type=Path, help="folder of the run (default ./runs/train/SYSTEM)")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="folder of the extractors")
    return parser


if __name__ == "__main__":
    with command_line():
        sys.exit(main())
