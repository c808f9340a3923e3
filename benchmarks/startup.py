"""What `gansweep --help` costs, beside the libraries that it prints with.

    python -m benchmarks.startup [ROUNDS]

Runs `python -m orchestrator.cli --help` and `python -c "import typer, rich"` ROUNDS times (default 30), in turns, each
in a process of its own, and prints the medians and their ratio. A ratio above 3 is too slow: exit code 1. `--version`
and a completion are shown for comparison.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import median

ROUNDS = 30
#: The help may take so many times the libraries' time.
MOST = 3.0
LIBRARIES, HELP = "import typer, rich", "gansweep --help"
GANSWEEP = [sys.executable, "-m", "orchestrator.cli"]
COMMANDS = {
    LIBRARIES: [sys.executable, "-c", "import typer, rich"],
    HELP: [*GANSWEEP, "--help"],
    "gansweep --version": [*GANSWEEP, "--version"],
    "gansweep launch <TAB>": GANSWEEP,
}
COMPLETION = {"_GANSWEEP_COMPLETE": "complete_bash", "COMP_WORDS": "gansweep launch ", "COMP_CWORD": "2"}


def main() -> int:
    """Measures and prints; returns the exit code."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds + 1):
        for name in COMMANDS:
            seconds[name].append(_seconds(name))
    medians = {name: median(times[1:]) for name, times in seconds.items()}  # the first round fills the disk's cache
    for name, value in medians.items():
        print(f"{name:<24}{1000 * value:>8.0f} ms  {value / medians[LIBRARIES]:.2f}")
    ratio = medians[HELP] / medians[LIBRARIES]
    print(f"{HELP} takes {ratio:.2f} times as long as {LIBRARIES}; at most {MOST:g} is the aim")
    return int(ratio > MOST)


def _seconds(name: str) -> float:
    environment = {**os.environ, **(COMPLETION if COMMANDS[name] == GANSWEEP else {})}
    start = time.perf_counter()
    subprocess.run(COMMANDS[name], env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
