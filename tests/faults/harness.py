"""One sweep that nothing disturbs, and any number of them that a fault hits."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.faults.kinds import KINDS
from tests.faults.laws import TEXT, scores_of, violations
from tests.faults.running import Running
from tests.faults.servers import Nothing
from tests.support import sweeps


@dataclass(frozen=True)
class Undisturbed:
    """What the sweep comes to, and how long it takes from its first trial on, when nothing happens."""

    scores: str
    seconds: float
    cache: Path
    """Folder of the trained extractor."""


def undisturbed(place: Path, cache: Path) -> Undisturbed:
    """Runs the sweep below `place`."""
    with Running(place, "undisturbed", Random(0), Nothing(place), 0.0) as sweep:
        sweeps.prepare(place, cache, TEXT).rename(place / f"{sweep.name}.yaml")
        sweep.start()
        sweeps.wait_for(lambda: bool(sweeps.records(sweep.folder)), sweep.driver, timeout=300)
        start = time.monotonic()
        sweep.ends()
        return Undisturbed(scores_of(sweeps.records(sweep.folder)), time.monotonic() - start, place / "runs" / "cache")


@contextmanager
def standing(kind: str, place: Path) -> Iterator[Nothing]:
    """What sweeps of this kind of fault stand on, started once for all of them."""
    with KINDS[kind].servers(place) as servers:
        yield servers


def broken_laws(kind: str, seed: int, place: Path, servers: Nothing, quiet: Undisturbed) -> list[str]:
    """Runs the sweep below `place`, hits it at a random moment, and gives the laws that were broken."""
    fault, name = KINDS[kind], f"{kind}-{seed}"
    sweep = Running(place, name, Random(name), servers, quiet.seconds, fault.module, fault.settings)
    text = servers.welcome(sweep.folder, TEXT)
    try:
        with sweep:
            sweeps.prepare(place, quiet.cache, text).rename(place / f"{name}.yaml")
            sweep.start()
            if not fault.at_once:
                sweep.until_moment()
            fault.inject(sweep)
        return list(violations(sweep.folder, quiet.scores))
    except (AssertionError, subprocess.TimeoutExpired) as error:
        return [str(error)]
    finally:
        servers.farewell(sweep.folder)
