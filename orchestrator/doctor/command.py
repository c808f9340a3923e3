"""`gansweep doctor`: whether a sweep could run here, what is missing, and what helps."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from threading import Thread

from orchestrator.cluster import nodes as cluster
from orchestrator.doctor import checks as doctor_checks
from orchestrator.doctor.checks import Case, Finding
from search_spaces.addresses import masked
from search_spaces.sweep import Sweep

#: Seconds that a check may take.
LIMIT = 15.0
READING = 600.0
"""Seconds in which all images must be read."""
_LONGEST = 400
#: Names of environment variables whose values must not be shown.
_SECRET = re.compile(r"SECRET|PASSW|TOKEN|ACCESS_KEY|API_KEY", re.IGNORECASE)
#: A shorter value is not masked: it might be part of any word.
_SHORTEST_SECRET = 6


@dataclass(frozen=True)
class Check:
    """A check, and what holds if it does not end well."""

    name: str
    run: Callable[[Case], Finding]
    remedy: str
    """What helps if the check never ends, or raises an exception that it does not expect."""
    limit: float = LIMIT
    """Seconds."""
    imports: tuple[str, ...] = ()
    """Modules that take seconds to import; they are imported before the limit begins."""


CHECKS = (
    Check("python", doctor_checks.python, "install Python and this program again"),
    Check("torch", doctor_checks.pytorch, "install torch again"),
    Check("cuda", doctor_checks.cuda, "see whether `nvidia-smi` answers; else restart the driver or the machine"),
    Check("mps", doctor_checks.mps, "restart Nvidia's daemon: `echo quit | nvidia-cuda-mps-control`, then with -d"),
    Check(
        "ray",
        doctor_checks.ray,
        "see with `ray status` whether the cluster is well",
        imports=("orchestrator.cluster.tune",),
    ),
    Check("study", doctor_checks.study, "see that the database, or the disk, answers, or correct study.storage"),
    Check(
        "store", doctor_checks.store, "see that the server, or the disk, answers, or correct store.path, store.endpoint"
    ),
    Check(
        "tracking",
        doctor_checks.tracking,
        "see that MLflow's server answers, restart it, or correct tracking.uri",
        limit=10.0,
        imports=("orchestrator.tracking.tracker",),
    ),
    Check("extractor", doctor_checks.extractor, "see that the disk of its weights answers, or correct score.extractor"),
    Check(
        "data",
        doctor_checks.data,
        "see that the disk of the data answers, or correct dataset; `launch --dry-run --read-data` has no limit",
        limit=READING,
    ),
    Check("classes", doctor_checks.classes, "see whether the class can be imported in a Python shell"),
)


def doctor(sweep: Sweep, root: Path, address: str | None = None) -> Iterator[Finding]:
    """Yields one finding for each of CHECKS, in their order. An exception in a check is its finding, and ends no other.

    All checks run at once, each for its limit at most. A check that ends leaves nothing behind.
    """
    if address is None:
        cluster.bind_to_loopback()  # before Ray is imported, which a check does
    case = Case(sweep, root, address)
    begun = [_Running(check) for check in CHECKS]
    for each in begun:  # after the last import: two threads that import one library get in each other's way
        each.start(case)
    for each in begun:
        yield _shown(each.finding())


def lines(finding: Finding) -> Iterator[str]:
    """A finding for people, and what helps."""
    width = max(len(check.name) for check in CHECKS)
    yield f"{finding.verdict:<7}  {finding.name:<{width}}  {finding.found}"
    if finding.remedy:
        yield f"{'':<{11 + width}}-> {finding.remedy}"


def conclusion(name: str, findings: Sequence[Finding]) -> str:
    """One line that says whether the sweep called `name` could run."""
    failed = sum(each.verdict == "failed" for each in findings)
    return f"{name} cannot run here: {failed} of {len(findings)} checks failed" if failed else f"{name} could run here"


class _Running:
    """A check in a daemon thread: the program can end even if the check never does."""

    def __init__(self, check: Check) -> None:
        """Imports what the check needs."""
        self._check = check
        self._found: Finding | None = None
        try:
            for module in check.imports:
                import_module(module)
        except Exception as error:  # whatever a broken installation raises
            self._found = _unexpected(check, error)

    def start(self, case: Case) -> None:
        """Starts the check and its limit."""
        self._end = time.monotonic() + self._check.limit
        self._thread = Thread(target=self._run, args=(case,), name=f"doctor {self._check.name}", daemon=True)
        self._thread.start()

    def finding(self) -> Finding:
        """Waits for the check until its limit."""
        self._thread.join(max(0.0, self._end - time.monotonic()))
        found = self._found
        text = f"no answer within {self._check.limit:g} s"
        return Finding(self._check.name, "failed", text, self._check.remedy) if found is None else found

    def _run(self, case: Case) -> None:
        if self._found is not None:
            return
        try:
            self._found = self._check.run(case)
        except BaseException as error:  # any exception becomes a finding
            self._found = _unexpected(self._check, error)


def _unexpected(check: Check, error: BaseException) -> Finding:
    text = str(error).strip()
    return Finding(
        check.name, "failed", f"{type(error).__name__}: {text}" if text else type(error).__name__, check.remedy
    )


def _shown(finding: Finding) -> Finding:
    """`finding` with texts of one line each, without what is a secret or looks like one."""
    return replace(finding, found=_plain(finding.found), remedy=_plain(finding.remedy))


def _plain(text: str) -> str:
    line = " ".join(text.split())
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET:
            line = line.replace(value, "***")
    line = masked(line)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
