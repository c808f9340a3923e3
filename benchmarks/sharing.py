"""Measures trials that share one GPU: 1, 2, 4 and 8 processes, without MPS, and with it if it starts.

    python -m benchmarks.sharing [SYSTEM]

Trains SYSTEM (default monir-dcgan, at its own batch) on blank images in that many processes at a time for a few
seconds, and prints the total images/s, the images/s of each process and its memory. Needs a GPU that nothing else uses,
and `nvidia-cuda-mps-control` for the second table; without them it prints what was not measured.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from trainers.catalogue import SYSTEMS
from trainers.run import pick_device
from trainers.tools.gpu_sharing import measured

CONTROL = "nvidia-cuda-mps-control"
CLASSES = 10


@contextmanager
def mps() -> Iterator[bool]:
    """Runs CUDA's multi-process service during the block; yields whether it started."""
    if shutil.which(CONTROL) is None:
        yield False
        return
    with TemporaryDirectory() as folder:
        os.environ["CUDA_MPS_PIPE_DIRECTORY"] = os.environ["CUDA_MPS_LOG_DIRECTORY"] = folder
        try:
            started = subprocess.run([CONTROL, "-d"], capture_output=True, check=False).returncode == 0
            yield started
            if started:
                subprocess.run([CONTROL], input=b"quit\n", check=False)
        finally:
            del os.environ["CUDA_MPS_PIPE_DIRECTORY"], os.environ["CUDA_MPS_LOG_DIRECTORY"]


def table(title: str, system_id: str) -> None:
    """Prints one table."""
    print(f"\n{title}\n{'at a time':>10}{'images/s':>12}{'of each':>12}{'MiB of each':>14}")
    for found in measured(system_id, SYSTEMS[system_id].defaults, CLASSES):
        each = found.images_per_s / found.trainings
        print(f"{found.trainings:>10}{found.images_per_s:>12,.0f}{each:>12,.0f}{found.memory / 2**20:>14,.0f}")


def main(system_id: str = "monir-dcgan") -> None:
    """Prints both tables."""
    if pick_device() != "cuda":
        print("no GPU: not measured")
        return
    table("without MPS", system_id)
    with mps() as started:
        if started:
            table("with MPS", system_id)
        else:
            print(f"\n{CONTROL} does not start here: with MPS not measured")


if __name__ == "__main__":
    main(*sys.argv[1:])
