"""Rungs and sweeps made up for tests of what happens around the training."""

from __future__ import annotations

from search_spaces.load import parse_sweep
from search_spaces.sweep import Sweep
from trainers.evaluation.scores import Score
from trainers.rungs import Rung

TEXT = """
name: made-up
system: narman-cgan
dataset: mnist-mini
search:
  g_lr: {log_uniform: [2e-5, 5e-3]}
  smoothing: {choice: [none, fixed]}
  smoothing_strength: {uniform: [0.02, 0.3], when: {smoothing: fixed}}
  batch: 100
rungs: {every: 1, until: 3}
score: {metric: kid, samples: 100, also: [fid], doublings: 0}
sampler: {name: random, seed: 3}
pruner: {name: median, startup: 2}
budget: {trials: 5}
"""


def sweep(*overrides: str) -> Sweep:
    """A small sweep, with `--set`-like overrides."""
    return parse_sweep(TEXT, overrides=overrides)


def rung(images: int, kid: float, *, train_seconds: float = 1.0, diverged: str | None = None) -> Rung:
    """A rung with a KID and an FID a hundred times as large; a diverged one has no scores."""
    scores = {
        name: Score(name, value, stderr, 100, "lenet-x", "mnist-mini-train-x", 0)
        for name, value, stderr in (("kid", kid, 0.01), ("fid", 100 * kid, None))
    }
    losses = {"loss_g": float("nan") if diverged else 0.7, "images_per_s": 500.0}
    return Rung(images, {} if diverged else scores, losses, train_seconds, 0.1, diverged)


def history(*kids: float) -> list[Rung]:
    """Rungs at 1, 2, ... kimg with these KIDs."""
    return [rung(1000 * (index + 1), kid) for index, kid in enumerate(kids)]
