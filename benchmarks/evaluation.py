"""Measures the cost of a score: clean-fid and ours, stage by stage, in one run.

    python -m benchmarks.evaluation [--images N] [--network N] [--weights FILE]

Scores N (default 10,000) images of 32x32 against as many, with 2048 features: resize, network, statistics, Fréchet
distance and kernel distance, each on the same input for both, on one thread of the CPU. The network's time is measured
on `--network` images (default 64) and scaled to all. Without `--weights`, the official file, the network is a stand-in
of the same shape with random weights. The features for the distances are always random.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer
from torch import Tensor

from trainers.data.catalogue import load
from trainers.data.spec import DatasetSpec
from trainers.data.vision import import_torchvision
from trainers.evaluation import inception, weights
from trainers.evaluation.extractors import INCEPTION_BATCH
from trainers.evaluation.frechet import frechet_distance, gaussian_of
from trainers.evaluation.kid import kid, mean_kernel
from trainers.evaluation.official import clean_fid
from trainers.evaluation.resize import full_precision, resize

#: clean-fid's own default.
CLEAN_FID_BATCH = 32
OURS_BATCH = INCEPTION_BATCH["cpu"]
Result = TypeVar("Result")


class Stage(NamedTuple):
    """Seconds of one stage for all images, by clean-fid and by our code."""

    name: str
    clean_fid: float
    ours: float


def main() -> None:
    parser = argparse.ArgumentParser(description="clean-fid and ours side by side")
    parser.add_argument("--images", type=int, default=10_000, help="images per side (default 10000)")
    parser.add_argument("--network", type=int, default=64, help="images that the network is timed on (default 64)")
    parser.add_argument("--weights", type=Path, help="the official file; default: a random stand-in")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    import_torchvision()
    images = load(DatasetSpec(name="shapes32"), "train").images
    images = images.repeat(-(-options.images // len(images)), 1, 1, 1)[: options.images]
    stages = [_resizing(images)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = _official(options.weights, images, Path(scratch))
        stages += _networks(images[: options.network], folder, options.images)
    stages += _distances(options.images)
    _show(stages, options)


def _resizing(images: Tensor) -> Stage:
    resizer = build_resizer("clean")

    def clean_fid() -> None:
        for part in images.split(CLEAN_FID_BATCH):
            resized = [resizer(image.numpy().transpose(1, 2, 0)) for image in part]
            torch.stack([torch.from_numpy(image.transpose(2, 0, 1)) for image in resized])

    def ours() -> None:
        for part in images.split(OURS_BATCH):
            resize(part, inception.SIZE)

    return Stage("resize", _seconds(clean_fid)[0], _seconds(ours)[0])


def _networks(images: Tensor, folder: Path, count: int) -> list[Stage]:
    """Times of the networks alone, on images of the final size, scaled to `count` images."""
    large = resize(images, inception.SIZE).round().to(torch.uint8)
    theirs = InceptionV3W(str(folder), download=False)

    def clean_fid() -> Tensor:
        floats = large.float().contiguous()
        with torch.no_grad():
            return torch.cat([theirs(part) for part in floats.split(CLEAN_FID_BATCH)])

    stages = []
    for name, load_network in (("network inception", inception.scripted), ("network inception-pt", inception.plain)):
        network = load_network(folder / weights.NAME, "cpu", torch.float32)

        def ours(network: inception.Inception = network) -> Tensor:
            with full_precision():
                return torch.cat([network(part) for part in large.split(OURS_BATCH)])

        for run in (clean_fid, ours):  # TorchScript optimises during its first calls
            run()
        (their_seconds, expected), (our_seconds, features) = _seconds(clean_fid), _seconds(ours)
        error = float(((features - expected).norm(dim=1) / expected.norm(dim=1)).max())
        print(f"{name}: features differ by at most {error:.1e} of their norm")
        scale = count / len(images)
        stages.append(Stage(name, their_seconds * scale, our_seconds * scale))
    return stages


def _distances(count: int) -> list[Stage]:
    cleanfid = clean_fid()
    generated, real = (_features(count, seed) for seed in (1, 2))
    arrays = generated.numpy(), real.numpy()
    their_statistics, (mean, cov) = _seconds(lambda: (arrays[0].mean(axis=0), np.cov(arrays[0], rowvar=False)))
    our_statistics, gaussian = _seconds(lambda: gaussian_of(generated))
    reference = gaussian_of(real)
    reference_moments = arrays[1].mean(axis=0), np.cov(arrays[1], rowvar=False)
    # Root and kernel of the reference are computed before, as clean-fid computes its statistics before.
    _, _ = reference.root, (term := mean_kernel(real))
    their_frechet, expected = _seconds(lambda: cleanfid.frechet_distance(mean, cov, *reference_moments))
    our_frechet, value = _seconds(lambda: frechet_distance(gaussian, reference))
    print(f"FID: clean-fid {expected:.6f}, ours {value:.6f}")
    np.random.seed(0)
    their_kid, expected = _seconds(lambda: cleanfid.kernel_distance(arrays[1], arrays[0]))
    our_kid, (value, stderr) = _seconds(lambda: kid(generated, real, term))
    print(f"KID: clean-fid {expected:.6f}, ours {value:.6f} with a standard error of {stderr:.6f}")
    return [
        Stage("statistics", their_statistics, our_statistics),
        Stage("Fréchet distance", their_frechet, our_frechet),
        Stage("kernel distance", their_kid, our_kid),
    ]


def _features(count: int, seed: int) -> Tensor:
    """Features float32 [count, 2048], not negative and correlated like those of networks."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(256, inception.DIM, generator=torch.Generator().manual_seed(9)) / 16
    hidden = torch.randn(count, 256, generator=generator) + 0.1 * seed
    noise = torch.randn(count, inception.DIM, generator=generator)
    return (hidden @ mixing + 0.3 * noise).relu()


def _official(path: Path | None, images: Tensor, folder: Path) -> Path:
    """A folder that holds the weights under the official name."""
    if path is not None:
        (folder / weights.NAME).symlink_to(path.absolute())
    else:
        stand_in = importlib.import_module("tests.support.random_inception")
        stand_in.write_random_inception(folder / weights.NAME, resize(images[:8], inception.SIZE))
    return folder


def _seconds(run: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds of processor time, which other processes disturb less than wall-clock time, and the result."""
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def _show(stages: list[Stage], options: argparse.Namespace) -> None:
    print(f"\n{options.images} images of 32x32, one thread; the network on {options.network} images, scaled")
    print(f"{'stage':<24}{'clean-fid s':>12}{'ours s':>10}{'ratio':>8}")
    for stage in stages:
        print(f"{stage.name:<24}{stage.clean_fid:>12.2f}{stage.ours:>10.2f}{stage.clean_fid / stage.ours:>8.1f}")
    for network in ("inception", "inception-pt"):
        counted = [
            stage for stage in stages if not stage.name.startswith("network") or stage.name == f"network {network}"
        ]
        theirs, ours = sum(stage.clean_fid for stage in counted), sum(stage.ours for stage in counted)
        print(f"{f'total with {network}':<24}{theirs:>12.2f}{ours:>10.2f}{theirs / ours:>8.1f}")


if __name__ == "__main__":
    main()
