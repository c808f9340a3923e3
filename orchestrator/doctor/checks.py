"""The checks of `gansweep doctor`: each takes a Case and returns a Finding. None leaves anything behind."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.cluster import nodes as cluster
from orchestrator.doctor.probes import GB, PROBE, existing, free, message_of, unwritable, write_to_database
from orchestrator.driver.ownership import check_store_owner
from orchestrator.paths import JOURNAL, STORE, cache_of
from orchestrator.store import ConflictError, MissingError, UnavailableError, probe, store_of
from orchestrator.store.folder import FolderObjects
from orchestrator.study.samplers import check_named_classes
from orchestrator.study.storage import check_tables
from orchestrator.study.study import SweepStudy
from search_spaces.addresses import S3, masked
from search_spaces.data_checks import data_problems
from search_spaces.sweep import Sweep
from trainers.data.catalogue import check as check_data
from trainers.data.catalogue import load_both, shape_of
from trainers.errors import InputError
from trainers.evaluation import weights
from trainers.evaluation.extractors import check_extractor
from trainers.evaluation.spec import CLASSIFIERS

Verdict = Literal["ok", "warning", "failed"]
OLDEST_PYTHON = (3, 11)
#: If a driver of Nvidia is installed, one of these files exists; the last one in the Linux of Windows (WSL).
_DRIVER = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")
_MPS = "nvidia-cuda-mps-control"
#: Patterns of a bucket's error messages, each with its remedy; the first that matches counts.
_BUCKET_REMEDIES = (
    (r"NoSuchBucket", "make the bucket, or name another one in store.path"),
    (r"store\.unfenced", "name another server in store.endpoint, or set store.unfenced: true"),
    (
        r"[Cc]redential|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|Forbidden|\b403\b|profile",
        "give credentials that may list, write, read and delete there: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
        "a shared credentials file, or the machine's role",
    ),
    (
        r"(?i)checksum|content-md5",
        "leave AWS_REQUEST_CHECKSUM_CALCULATION and AWS_RESPONSE_CHECKSUM_VALIDATION out, or set both to when_required",
    ),
    (r"", "see that the server runs and can be reached from here, or correct store.endpoint"),
)


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str
    verdict: Verdict
    """With `failed` the sweep cannot run."""
    found: str
    remedy: str = ""
    """What helps; empty if nothing needs to be done."""


@dataclass(frozen=True)
class Case:
    """A sweep, and where it would run."""

    sweep: Sweep
    root: Path
    address: str | None = None
    """Address of the Ray cluster; None if the sweep starts a Ray of its own on this machine."""

    @property
    def folder(self) -> Path:
        """Folder of the sweep."""
        return self.root / self.sweep.name


@dataclass(frozen=True)
class Gpu:
    """A GPU that torch has computed on; memory in bytes."""

    name: str
    free: int
    total: int

    def __str__(self) -> str:
        return f"{self.name}, {self.free / GB:.1f} of {self.total / GB:.1f} GB free"


def python(case: Case) -> Finding:
    """Whether this Python is new enough."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Finding("python", "failed", found, "install Python 3.11 or newer, and this program with it")
    return Finding("python", "ok", found)


def pytorch(case: Case) -> Finding:
    """Whether torch computes."""
    ones = torch.ones(64, 64)
    if float((ones @ ones).sum()) != 64**3:
        return Finding("torch", "failed", f"{torch.__version__} computes wrong numbers", "install torch again")
    kind = f"built with CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    return Finding("torch", "ok", f"{torch.__version__}, {kind}, {torch.get_num_threads()} threads")


def cuda(case: Case) -> Finding:
    """Whether torch can use the GPUs of this machine; fails only if the sweep runs here and needs some."""
    want = 0.0 if case.address else case.sweep.resources.gpus_per_worker
    bad: Verdict = "failed" if want else "warning"
    built = torch.version.cuda or torch.version.hip
    if not built and _has_driver():
        remedy = "`pip install --force-reinstall torch torchvision` fetches the build with CUDA on Linux"
        return Finding("cuda", bad, "there is a driver for GPUs, but torch is built without CUDA", remedy)
    try:
        gpus = _gpus()
    except RuntimeError as error:
        remedy = "update the driver, see who else uses the GPU, and what CUDA_VISIBLE_DEVICES says"
        return Finding("cuda", bad, f"torch cannot use the GPU: {error}", remedy)
    count = f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}"
    found = f"{count}: {'; '.join(map(str, gpus))}" if gpus else "no GPU on this machine"
    if len(gpus) < want:
        remedy = "set resources.gpus_per_worker to what there is, or name a cluster that has them by --address"
        return Finding("cuda", "failed", f"{found}, but each worker of a trial needs {want:g}", remedy)
    return Finding("cuda", "ok", found if gpus or case.address else f"{found}, and the sweep asks for none")


def mps(case: Case) -> Finding:
    """Nvidia's server (MPS) that lets processes share a GPU; only trials that share one need it."""
    if not torch.cuda.device_count():
        return Finding("mps", "ok", "not needed: no GPU")
    want, place = case.sweep.resources, os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")
    reason = _mps_fault(place)
    if reason is None:
        return Finding("mps", "ok", f"its daemon answers at {place}")
    if not 0 < want.gpu_share < 1 and want.trials_per_gpu != "auto":
        return Finding("mps", "ok", f"not needed: trials share no GPU ({reason})")
    remedy = f"`{_MPS} -d` starts it; if its pipes are not in {place}, set CUDA_MPS_PIPE_DIRECTORY"
    return Finding("mps", "warning", f"trials share a GPU and will take turns on it: {reason}", remedy)


def ray(case: Case) -> Finding:
    """Whether a trial fits on the cluster, or on the Ray that a sweep would start here."""
    version = metadata.version("ray")
    try:
        if case.address is not None:
            return _ray_at(case, case.address, version)
        notice = cluster.check_fits(case.sweep)
    except InputError as error:
        return _refused("ray", error, "ask for less in resources, or name a cluster with more by --address")
    gpus = torch.cuda.device_count()
    found = f"{version}; started here it has {os.cpu_count()} cores, {gpus} GPUs, {_memory() / GB:.1f} GB of memory"
    if notice:
        return Finding("ray", "warning", f"{found}; {notice}", "set TMPDIR to a short folder")
    return Finding("ray", "ok", found)


def study(case: Case) -> Finding:
    """Whether the study's journal or database can be written, and the folder of the sweep.

    The lock of the driver and the report lie in that folder even if a database keeps the study.
    """
    if reason := unwritable(case.folder):
        return Finding("study", "failed", reason, "name a folder that can be written by --root or GANSWEEP_HOME")
    url, journal = case.sweep.study.storage, case.folder / JOURNAL
    if url is None:
        try:
            if journal.exists():
                journal.open("r+b").close()
        except OSError as error:
            return Finding(
                "study", "failed", f"{journal} cannot be written: {message_of(error)}", "correct the permissions"
            )
        return Finding("study", "ok", f"{journal} can be written, {free(case.root)} free")
    try:
        known = write_to_database(url, "studies", "study_name")
        if known:
            check_tables(url)
    except RuntimeError as error:  # Optuna's
        remedy = "install the version of Optuna that made the tables, or have them brought up to date as it says"
        return Finding("study", "failed", f"{url}: {error}", remedy)
    except (InputError, OSError, SQLAlchemyError, ImportError) as error:
        remedy = "see that the database runs and lets you write (PGPASSWORD, ~/.pgpass), or correct study.storage"
        return Finding("study", "failed", f"{url}: {message_of(error)}", remedy)
    return Finding("study", "ok", f"{url} can be written, and {'has' if known else 'will have'} tables of studies")


def store(case: Case) -> Finding:
    """Whether the store is this sweep's own, can be written, read and deleted from, and obeys conditions of writes."""
    path = case.sweep.store.path
    if path is None or not path.startswith(S3):
        found = _folder_store(case, case.folder / STORE if path is None else Path(path) / case.sweep.name)
    else:
        found = _bucket_store(case, path)
    if found.verdict == "ok":
        try:
            check_store_owner(case.sweep, case.folder, lambda: SweepStudy.open(case.folder, case.sweep.study.storage))
        except InputError as error:
            return _refused("store", error, "name another place in store.path")
    return found


def tracking(case: Case) -> Finding:
    """Whether MLflow's server answers, or its database can be written."""
    from orchestrator.paths import mlflow_uri
    from orchestrator.tracking.address import VARIABLE, is_database, tracker_of_environment, tracking_uri
    from orchestrator.tracking.sqlite_file import fault_of
    from orchestrator.tracking.tracker import check_server

    uri = tracking_uri(case.sweep, case.root)
    own, source = uri == mlflow_uri(case.root), VARIABLE if tracker_of_environment(case.sweep) else "tracking.uri"
    shown = f"{masked(uri)} (from {VARIABLE})" if source == VARIABLE else uri
    try:
        if not is_database(uri):
            check_server(uri)
            return Finding("tracking", "ok", f"{shown} answers")
        place = case.sweep.tracking.artifacts
        if place is not None and "://" not in place and (reason := unwritable(Path(place))):
            return Finding("tracking", "failed", reason, "name another folder in tracking.artifacts")
        if own and (damaged := fault_of(case.root, "NAME")) is not None:
            return Finding("tracking", "failed", *damaged)
        write_to_database(uri, "experiments", "name", makes_folder=True)
    except Exception as error:  # MLflow and its connections raise exceptions of many kinds
        found = f"{'a file below ' + str(case.root) if own else shown} cannot be used: {masked(message_of(error))}"
        remedy = "name another --root" if own else f"start the server, see that it lets you in, or correct {source}"
        return Finding("tracking", "failed", found, remedy)
    return Finding("tracking", "ok", f"{shown} can be written")


def extractor(case: Case) -> Finding:
    """Whether the weights of the feature extractor are there or can be fetched; fetches nothing."""
    spec, cache = case.sweep.score.extractor, cache_of(case.root)
    if reason := unwritable(cache):
        return Finding("extractor", "failed", reason, "name a folder that can be written by --root or GANSWEEP_HOME")
    official = cache / weights.NAME
    if spec.name not in CLASSIFIERS and spec.weights is None and not official.exists():
        found = f"{spec.name}: {official} is not there; it will be fetched on first use"
        return Finding(
            "extractor", "warning", found, f"without network, fetch {weights.URL} elsewhere and put it there"
        )
    try:
        check_extractor(spec, cache)
    except InputError as error:
        return _refused("extractor", error, "correct score.extractor")
    if spec.name in CLASSIFIERS:
        return Finding("extractor", "ok", f"{spec.name}: trained on the real images on first use, kept in {cache}")
    verified = "sha256 verified" if spec.sha256 or spec.weights is None else "not verified: no sha256 is given"
    return Finding("extractor", "ok", f"{spec.name}: {spec.weights or official}, {verified}")


def data(case: Case) -> Finding:
    """Whether the images are there or can be fetched, can be read, and suit the systems; fetches and keeps nothing."""
    spec = case.sweep.dataset
    try:
        faults = [f"{'.'.join(path)}: {text}" for path, text in data_problems(case.sweep)]
        (channels, height, width), classes = shape_of(spec)
    except InputError as error:
        return _refused("data", error, "correct dataset")
    if faults:
        return Finding("data", "failed", "; ".join(faults), "choose a system or a data set that suits the other")
    if spec.download:
        try:
            check_data(spec.model_copy(update={"download": False}))
        except InputError:
            found = f"{spec.name} is not in {spec.folder}; it will be fetched on first use"
            return Finding("data", "warning", found, "without network, fetch it elsewhere and put it there")
    try:
        train, _ = load_both(spec)
    except InputError as error:
        return _refused("data", error, "correct dataset")
    found = f"{spec.name}: {classes} classes, {channels} x {height} x {width}"
    return Finding("data", "ok", "; ".join([found, *train.notices]))


def _has_driver() -> bool:
    return any(Path(place).exists() for place in _DRIVER) or shutil.which("nvidia-smi") is not None


def _gpus() -> list[Gpu]:
    """The GPUs, after a computation on each. Raises RuntimeError if there is a driver but torch cannot use it."""
    if not torch.cuda.is_available() and not _has_driver():
        return []
    torch.cuda.init()  # its exception says why; `is_available` only says no
    found = []
    for index in range(torch.cuda.device_count()):
        torch.ones(8, device=f"cuda:{index}").sum().item()
        found.append(Gpu(torch.cuda.get_device_name(index), *torch.cuda.mem_get_info(index)))
    return found


def _mps_fault(place: str) -> str | None:
    """Why the daemon of MPS does not answer; None if it does."""
    program = shutil.which(_MPS)
    if program is None:
        # A container may have the daemon's pipes without its program.
        return None if Path(place, "control").exists() else f"{_MPS} is not on PATH"
    try:
        asked = subprocess.run([program], input="get_server_list\n", capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired) as error:
        return message_of(error)
    answer = (asked.stdout + asked.stderr).strip()
    return None if asked.returncode == 0 and "Cannot find" not in answer else answer or "its daemon does not answer"


def _ray_at(case: Case, address: str, version: str) -> Finding:
    """Whether a trial fits on a cluster that runs. Raises InputError as a launch would."""
    try:
        cluster.check_address(address)
        cluster.check_shared(case.sweep)
    except InputError as error:
        return _refused("ray", error, "see that the cluster runs, and run this on one of its nodes")
    seconds = case.sweep.resources.wait
    resources = case.sweep.resources.model_copy(update={"wait": 0})
    with cluster.cluster(address):
        there, left = cluster.nodes(), cluster.free()
        try:
            fits = cluster.trials_at_once(case.sweep.model_copy(update={"resources": resources}))
        except InputError as error:
            if not seconds:
                raise
            remedy = "see that the cluster has an autoscaler which can start such nodes"
            return Finding("ray", "warning", f"{version}; {error}; a launch waits {seconds:g} s for it", remedy)
    cpus, gpus = sum(node.cpus for node in there), sum(node.gpus for node in there)
    found = f"{version}; {len(there)} nodes at {address} with {cpus:g} CPU, {gpus:g} GPU in all"
    return Finding("ray", "ok", f"{found}, {left.cpus:g} CPU, {left.gpus:g} GPU free; {fits} trials fit at once")


def _memory() -> float:
    """Bytes of memory that this machine has, or its container allows."""
    found = float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no container sets a limit
        found = min(found, float(Path("/sys/fs/cgroup/memory.max").read_text()))
    return found


def _bucket_store(case: Case, path: str) -> Finding:
    place = path if case.sweep.store.endpoint is None else f"{path} at {case.sweep.store.endpoint}"
    try:
        probe(store_of(case.sweep, case.folder).objects)
    except (UnavailableError, MissingError, ConflictError, InputError) as error:
        remedy = next(remedy for pattern, remedy in _BUCKET_REMEDIES if re.search(pattern, str(error)))
        reason = str(error).partition(": ")[2] if str(error).startswith(S3) else ""  # without the object's own name
        return Finding("store", "failed", f"{place}: {reason or error}", remedy)
    fenced = "" if case.sweep.store.unfenced else ", on a condition too"
    return Finding("store", "ok", f"{place}: written{fenced}, read and deleted")


def _folder_store(case: Case, place: Path) -> Finding:
    try:
        # In a temporary folder: in that of the store, the lock file of its writers would stay behind.
        with tempfile.TemporaryDirectory(prefix=PROBE, dir=existing(place)) as folder:
            probe(FolderObjects(Path(folder)))
    except (OSError, MissingError, ConflictError, InputError) as error:
        remedy = "name another folder in store.path" if case.sweep.store.path else "name another --root"
        return Finding("store", "failed", f"{place} cannot be used: {message_of(error)}", remedy)
    found = f"{place}: written, on a condition too, read and deleted; {free(place)} free"
    return Finding("store", "ok", found)


def classes(case: Case) -> Finding:
    """Whether the pruner and the sampler that the sweep names by class can be imported and made."""
    named = [each.title for each in (case.sweep.pruner, case.sweep.sampler) if not each.name]
    try:
        notices = check_named_classes(case.sweep)
    except InputError as error:
        return _refused("classes", error, "correct pruner or sampler")
    found = f"{', '.join(named)}: imported and made" if named else "not needed: pruner and sampler have names"
    return Finding("classes", "ok", "; ".join([found, *notices]))


def _refused(name: str, error: InputError, remedy: str) -> Finding:
    """A failure for an InputError, whose message says what is wrong and, mostly after a semicolon, what helps."""
    found, _, advice = str(error).partition("; ")
    return Finding(name, "failed", found, advice or remedy)
