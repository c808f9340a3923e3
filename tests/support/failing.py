"""The command line over trials that fail in their processes, each by its number in a way of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from orchestrator.cli import __main__ as cli  # before Ray, whose settings come with it
from orchestrator.cluster import tune
from trainers.checkpoint import STATE

OUT_OF_MEMORY, KILLED, DAMAGED, ALL_DAMAGED = 1, 2, 3, 4
#: If this is set in the environment, all trials run out of memory.
EACH = "TESTS_EACH_TRIAL_OUT_OF_MEMORY"
#: After so many rungs of the first attempt.
RUNGS = 2


class Failing(tune.Trainable):
    """Comes to a trial's process by value, since it is of the main module."""

    def step(self) -> dict[str, Any]:
        import torch

        number, attempt = self._config["number"], self._config["attempt"]
        if number == OUT_OF_MEMORY or EACH in os.environ:
            print("printed by", attempt)
            os.system("echo written below Python >&2")
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has 0 bytes free")
        result = super().step()
        if number in (KILLED, DAMAGED, ALL_DAMAGED) and attempt == 1 and len(self._reported) == RUNGS:
            self._damage(number)
            print("killed next")
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    def _damage(self, number: int) -> None:
        folder = Path(self._config["folder"]) / f"store/trials/{number:05d}/checkpoints"
        newest_first = sorted(folder.glob("[0-9]*"), reverse=True)
        for checkpoint in newest_first[: {KILLED: 0, DAMAGED: 1, ALL_DAMAGED: RUNGS}[number]]:
            (checkpoint / STATE).write_bytes(b"damaged")


if __name__ == "__main__":
    tune.Trainable = Failing  # type: ignore[misc]
    cli.main()
