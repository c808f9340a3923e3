"""Every fault at several random moments, as a table.

    FAULTS=kill-driver,bit-flip FAULT_SEEDS=1-50 python -m tests.faults [RESULTS]

Each outcome is appended to RESULTS (default faults.jsonl) at once; what it has already is not run again.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from tests import sweeps
from tests.faults.kinds import KINDS, Running
from tests.faults.laws import NAME, TEXT, scores_of, violations


def undisturbed(place: Path) -> tuple[str, float]:
    """The result of the sweep when nothing happens, and the seconds it takes; `place` keeps the trained extractor."""
    start = time.monotonic()
    prepare(place, None)
    done = sweeps.gansweep("launch", f"{NAME}.yaml", cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    return scores_of(sweeps.records(place / "runs" / NAME)), time.monotonic() - start


def prepare(place: Path, cache: Path | None) -> None:
    """A root with the sweep file, and with a trained extractor where there is one."""
    place.mkdir(parents=True, exist_ok=True)
    if cache is not None:
        sweeps.prepare(place, cache, TEXT)
    (place / f"{NAME}.yaml").write_text(TEXT)


def run_fault(kind: str, seed: int, place: Path, cache: Path, expected: str, seconds: float) -> list[str]:
    """Runs the sweep, hits it at a random moment, and gives the laws that were broken."""
    prepare(place, cache)
    dice = Random(f"{kind}-{seed}")
    driver = sweeps.start("launch", f"{NAME}.yaml", cwd=place)
    sweeps.wait_for(lambda: bool(sweeps.records(place / "runs" / NAME)), driver)
    time.sleep(dice.uniform(0, seconds))
    sweep = Running(place, driver, dice)
    try:
        KINDS[kind](sweep)
    finally:
        if sweep.driver.poll() is None:
            sweep.kill_driver()
    return list(violations(place, expected))


def main() -> int:
    kinds = [kind for kind in os.environ.get("FAULTS", ",".join(KINDS)).split(",") if kind]
    if unknown := set(kinds) - set(KINDS):
        print(f"FAULTS: unknown {', '.join(sorted(unknown))}; allowed are {', '.join(KINDS)}", file=sys.stderr)
        return 2
    first, _, last = os.environ.get("FAULT_SEEDS", "1-2").partition("-")
    seeds = range(int(first), int(last or first) + 1)
    results = Path(sys.argv[1] if len(sys.argv) > 1 else "faults.jsonl")
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    known = {(outcome["fault"], outcome["seed"]) for outcome in done}
    with tempfile.TemporaryDirectory() as scratch:
        quiet = Path(scratch) / "undisturbed"
        undisturbed(quiet)  # trains the extractor; the second time is that of the sweep alone
        again = Path(scratch) / "again"
        sweeps.prepare(again, quiet / "runs" / "cache", TEXT)
        expected, seconds = undisturbed(again)
        for seed in seeds:
            for kind in kinds:
                if (kind, seed) in known:
                    continue
                start = time.monotonic()
                broken = run_fault(
                    kind, seed, Path(scratch) / f"{kind}-{seed}", quiet / "runs" / "cache", expected, seconds
                )
                outcome = {"fault": kind, "seed": seed, "broken": broken, "seconds": round(time.monotonic() - start, 1)}
                with open(results, "a") as file:
                    file.write(json.dumps(outcome) + "\n")
                done.append(outcome)
                print(f"{kind:<24}{seed:>4}  {'; '.join(broken) or 'holds'}", flush=True)
    return _table([outcome for outcome in done if outcome["fault"] in kinds])


def _table(outcomes: list[dict[str, object]]) -> int:
    runs, bad = Counter(o["fault"] for o in outcomes), Counter(o["fault"] for o in outcomes if o["broken"])
    print(f"\n{'fault':<24}{'runs':>6}{'broken':>8}")
    for kind in runs:
        print(f"{kind:<24}{runs[kind]:>6}{bad[kind]:>8}")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
