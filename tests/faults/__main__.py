"""Every fault at several random moments, as a table.

    FAULTS=kill-driver,bit-flip FAULT_SEEDS=1-50 python -m tests.faults [RESULTS]

Each outcome is appended to RESULTS (default faults.jsonl) at once; what it has already is not run again.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.faults.harness import broken_laws, standing, undisturbed
from tests.faults.kinds import KINDS

Outcome = dict[str, Any]


def main() -> int:
    kinds = [kind for kind in os.environ.get("FAULTS", ",".join(KINDS)).split(",") if kind]
    if unknown := set(kinds) - set(KINDS):
        print(f"FAULTS: unknown {', '.join(sorted(unknown))}; allowed are {', '.join(KINDS)}", file=sys.stderr)
        return 2
    written = os.environ.get("FAULT_SEEDS", "1-2")
    if (found := re.fullmatch(r"(\d+)(?:-(\d+))?", written)) is None:
        print(f"FAULT_SEEDS={written}: must be a number or a range such as 1-50", file=sys.stderr)
        return 2
    seeds = range(int(found[1]), int(found[2] or found[1]) + 1)
    results = Path(sys.argv[1] if len(sys.argv) > 1 else "faults.jsonl")
    outcomes = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    known = {(outcome["fault"], outcome["seed"]) for outcome in outcomes}
    missing = {kind: [seed for seed in seeds if (kind, seed) not in known] for kind in kinds}
    start = time.monotonic()
    if any(missing.values()):
        outcomes += run(missing, results)
    return _table([o for o in outcomes if o["fault"] in kinds and o["seed"] in seeds], time.monotonic() - start)


def run(missing: dict[str, list[int]], results: Path) -> list[Outcome]:
    """Runs each kind with its seeds; the outcomes, which `results` has too."""
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) / "cache"
        cache.mkdir()
        quiet = undisturbed(Path(scratch) / "undisturbed", cache)
        for kind, seeds in missing.items():
            with standing(kind, Path(scratch) / "servers" / kind) as servers:
                for seed in seeds:
                    start = time.monotonic()
                    broken = broken_laws(kind, seed, Path(scratch) / f"{kind}-{seed}", servers, quiet)
                    seconds = round(time.monotonic() - start, 1)
                    outcomes.append({"fault": kind, "seed": seed, "broken": broken, "seconds": seconds})
                    with open(results, "a") as file:
                        file.write(json.dumps(outcomes[-1]) + "\n")
                    print(f"{kind:<24}{seed:>4}{seconds:>7.0f} s  {'; '.join(broken) or 'holds'}", flush=True)
    return outcomes


def _table(outcomes: list[Outcome], seconds: float) -> int:
    kinds = dict.fromkeys(outcome["fault"] for outcome in outcomes)
    print(f"\n{'fault':<24}{'runs':>6}{'broken':>8}{'seconds each':>14}")
    for kind in kinds:
        own = [outcome for outcome in outcomes if outcome["fault"] == kind]
        each = sum(outcome["seconds"] for outcome in own) / len(own)
        print(f"{kind:<24}{len(own):>6}{sum(bool(outcome['broken']) for outcome in own):>8}{each:>14.0f}")
    bad = sum(bool(outcome["broken"]) for outcome in outcomes)
    print(f"{len(outcomes)} runs of {len(kinds)} kinds, {bad} broken; {seconds:.0f} s this time")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
