"""Golden loss curves: the minimised losses of every system in its first steps, in float64, as tests/golden/losses.json.

`make golden` (or `python -m tests.support.golden SYSTEM ...` for some) measures them again and writes what differs; so
a new system gets its curves. A curve that changes is a change of the algorithm; the commit that changes it says why.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainers.catalogue import SYSTEMS
from trainers.config import overlay
from trainers.data.images import ImageData
from trainers.data.shapes import draw
from trainers.trainer import Trainer

BATCH = 4
STEPS = 20
TOLERANCE = 1e-6
FILE = Path(__file__).parents[1] / "golden" / "losses.json"
#: At its own rates das-vaegan is chaotic: RMSprop's first steps are 1 / sqrt(1 - beta2) = 32 times the rate, half of an
#: initial weight, and multiply an error of rounding by 50 each. At a hundredth of them 1e-15 stays 1e-14 for 20 steps.
SETTINGS: dict[str, dict[str, float]] = {"das-vaegan": {"g_lr": 3e-6, "d_lr": 3e-6, "enc_lr": 3e-6}}
#: Loss by name, one value per step.
Curves = dict[str, list[float]]


def new_trainer(system_id: str, dtype: torch.dtype = torch.float32, /, **settings: Any) -> Trainer:
    """An eighth of the system's width on a few generated images; the same on every machine up to rounding."""
    system = SYSTEMS[system_id]
    channels, height, width = system.shape
    images, labels = draw(22, seed=0)
    pixels = torch.from_numpy(images)[:, :channels]
    # The nearest pixel: means of several would be rounded differently from machine to machine.
    pixels = nn.functional.interpolate(pixels, (height, width), mode="nearest").contiguous()
    data = ImageData(pixels, torch.from_numpy(labels), classes=10, name="shapes", split="train")
    small = {"batch": BATCH, "width": 0.125, "threads": 1, "kimg": 0.1, "n_critic": min(2, system.defaults.n_critic)}
    trainer = Trainer(system, overlay(system.defaults, small | settings), data, dtype=dtype)
    for part in [part for net in trainer.nets.values() for part in net.modules()]:
        if isinstance(part, nn.Dropout):
            part.forward = partial(_drop, part)  # type: ignore[method-assign]
    return trainer


def start(system_id: str) -> Trainer:
    """The trainer of a system's golden curves, before the first step."""
    return new_trainer(system_id, torch.float64, **SETTINGS.get(system_id, {}))


def _drop(layer: nn.Dropout, x: Tensor) -> Tensor:
    """As `layer`. Its own masks are drawn by MKL on Intel's processors and by torch on others, these always by torch:
    it is the probability in a tensor that makes the difference."""
    if not (layer.training and layer.p):
        return x
    return x * (torch.bernoulli(torch.full_like(x, 1 - layer.p)) / (1 - layer.p))


def advance(trainer: Trainer, steps: int) -> list[dict[str, float]]:
    """All that is recorded at each of the next steps."""
    record = [trainer.advance(trainer.images + BATCH) for _ in range(steps)]
    return [{name: value for name, value in step.items() if name != "images_per_s"} for step in record]


def curves(record: list[dict[str, float]]) -> Curves:
    """The losses among what was recorded, to 10 digits."""
    names = [name for name in record[0] if name.startswith(("loss_", "total_"))]
    return {name: [float(f"{step[name]:.10g}") for step in record] for name in names}


def differences(expected: Mapping[str, list[float]], found: Mapping[str, list[float]]) -> list[str]:
    """Where two sets of curves first differ by more than the tolerance, curve by curve; empty where they agree."""
    lines = [f"{name}: {'missing' if name in expected else 'new'}" for name in sorted(expected.keys() ^ found.keys())]
    for name in sorted(expected.keys() & found.keys()):
        for step, (old, new) in enumerate(zip(expected[name], found[name], strict=True), start=1):
            if not math.isclose(old, new, rel_tol=TOLERANCE, abs_tol=TOLERANCE**2):
                lines.append(f"{name}: {new!r} at step {step}, golden is {old!r}")
                break
    return lines


def read() -> dict[str, Curves]:
    """The committed curves by system."""
    known: dict[str, Curves] = json.loads(FILE.read_text())
    return known


def write(systems: Mapping[str, Curves]) -> None:
    """Writes the file with one line per curve."""
    parts = []
    for system_id, own in sorted(systems.items()):
        lines = [f"  {json.dumps(name)}: {json.dumps(values, allow_nan=False)}" for name, values in own.items()]
        parts.append(f" {json.dumps(system_id)}: {{\n" + ",\n".join(lines) + "\n }")
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def main(names: Sequence[str]) -> None:
    """Measures these systems, or all, and says what changed."""
    torch.set_num_threads(1)
    known = read() if FILE.exists() else {}
    measured = {name: curves(advance(start(name), STEPS)) for name in names or SYSTEMS}
    new = {name: own for name, own in known.items() if name in SYSTEMS}
    for name in sorted(known.keys() - new.keys()):
        print(f"{name}: forgotten")
    for name, own in measured.items():
        lines = differences(known.get(name, {}), own)
        if lines:
            new[name] = own
            print("\n".join(f"{name}: {line}" for line in lines))
    write(new)


if __name__ == "__main__":
    main(sys.argv[1:])
