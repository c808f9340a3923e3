"""Measures the cost of a rung: training, scoring and saving, in one run.

    python benchmarks/rung.py [KIMG]

For each system, prints the images per second in training, and the time of scoring (2,000 samples: generation,
features, KID, FID, Inception score) and of saving as shares of the training time of one rung of KIMG (default 1).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from trainers.catalogue import SYSTEMS
from trainers.config import KIMG, overlay
from trainers.data.catalogue import load
from trainers.data.spec import DatasetSpec
from trainers.evaluation.evaluator import Evaluator
from trainers.evaluation.extractors import build_extractor
from trainers.evaluation.reference import reference_of
from trainers.evaluation.spec import ExtractorSpec
from trainers.run import Run, pick_device

SAMPLES = 2000
DATASETS = {(1, 28, 28): "mnist-mini", (3, 32, 32): "shapes32"}


def main() -> None:
    """Measures every system after one warm-up rung."""
    kimg = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    device = pick_device()
    print(f"{'system':<16}{'device':<8}{'images/s':>10}{'training s':>12}{'scoring':>10}{'saving':>10}")
    with tempfile.TemporaryDirectory() as scratch:
        for name, system in SYSTEMS.items():
            spec = DatasetSpec(name=DATASETS[system.shape])
            train, test = load(spec, "train"), load(spec, "test")
            extractor = build_extractor(ExtractorSpec(), train, test, Path(scratch), device)
            evaluator = Evaluator(
                extractor, reference_of(extractor, train, Path(scratch)), ("kid", "fid", "is"), seed=0
            )
            config = overlay(system.defaults, {"batch": 50})
            images = round(kimg * KIMG) // config.batch * config.batch
            run = Run(name, system, config, train, evaluator, (images, 2 * images), SAMPLES, device)
            run.next_rung()
            rung = run.next_rung()
            start = time.perf_counter()
            run.save(Path(scratch) / name)
            saving = time.perf_counter() - start
            print(
                f"{name:<16}{device:<8}{rung.losses['images_per_s']:>10.0f}{rung.train_seconds:>12.2f}"
                f"{rung.score_seconds / rung.train_seconds:>10.1%}{saving / rung.train_seconds:>10.1%}"
            )


if __name__ == "__main__":
    main()
