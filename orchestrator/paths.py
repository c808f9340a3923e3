"""Every name below the folder of all sweeps (`root`) and below a sweep's own folder (`root / NAME`)."""

from __future__ import annotations

from pathlib import Path

#: Below a sweep's folder.
JOURNAL = "study.journal"
"""The study, if no database keeps it."""
SWEEP_FILE = "sweep.yaml"
"""The sweep's text, beside the journal, or in place of it: then it names the study's database."""
REPORT = "report.html"
DRIVER_LOCK = "driver.lock"
STORE = "store"
"""Checkpoints and samples, if the sweep names no other store."""
SCRATCH = "scratch"
"""What is on its way to a store on S3, or from it."""
TUNE = ".tune"
"""Ray Tune's own files, and the logs of the trials' processes; only while trials run."""


def cache_of(root: Path) -> Path:
    """Folder of trained and downloaded extractors, shared by the sweeps below `root`."""
    return root / "cache"


def mix_study_of(root: Path) -> Path:
    """Folder of the studies of mixes below `root`."""
    return root / "mix-study"


def mlflow_uri(root: Path) -> str:
    """Address of the tracker's database of all sweeps below `root`, if a sweep names no other."""
    return f"sqlite:///{(root / 'mlflow.db').resolve()}"


def mlflow_artifacts(root: Path) -> Path:
    """Folder of the tracker's artifacts of all sweeps below `root`."""
    return (root / "mlartifacts").resolve()


def mlflow_lock(root: Path) -> Path:
    """Held by the one driver below `root` that opens the tracker's database."""
    return root / ".mlflow.lock"


def process_log(folder: Path, number: int, attempt: int) -> Path:
    """What the process of an attempt at a trial writes to its standard output and error, on its own machine.

    `folder` is the sweep's.
    """
    return folder / TUNE / "logs" / f"{number:05d}-{attempt}"


def sweep_names(root: Path) -> list[str]:
    """Names of the sweeps below `root`, in alphabetical order."""
    return sorted({path.parent.name for name in (JOURNAL, SWEEP_FILE) for path in root.glob(f"*/{name}")})
