"""Learning-rate schedules as pure functions of the position."""

from __future__ import annotations

import math

from trainers.config import KIMG, Config


def lr_factor(config: Config, iteration: int) -> float:
    """The factor in [0, 1] on both learning rates at generator step `iteration`, counted from 0.

    exponential: schedule_rate ** (iteration // schedule_period), a staircase. linear and cosine fall from 1 to 0 over
    `kimg`. constant: 1.
    """
    if config.schedule == "exponential":
        return float(config.schedule_rate ** (iteration // config.schedule_period))
    if config.schedule == "constant":
        return 1.0
    done = min(1.0, iteration * config.batch / (config.kimg * KIMG))
    return 1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
