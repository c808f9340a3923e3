"""Single checks of `gansweep doctor`: files, and machines and stores that are made up."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from orchestrator.cli.__main__ import app
from orchestrator.cluster import nodes as cluster
from orchestrator.cluster.nodes import Node
from orchestrator.doctor import checks as doctor_checks
from orchestrator.doctor.checks import Case, Finding, Gpu
from orchestrator.doctor.command import doctor
from orchestrator.paths import JOURNAL
from orchestrator.study.study import SweepStudy
from tests.doctor.test_doctor import SHARED, failed, made, sweep_of
from trainers.data.files import digest


@pytest.fixture
def unwritable() -> Iterator[Path]:
    """A folder that this process may only read; an administrator, who may write anywhere, acts as nobody meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        # The checks import what they need, which nobody may not.
        assert failed({each.name: each for each in doctor(sweep_of(), Path(folder))}) == []
        os.chmod(folder, 0o555)
        administrator = os.geteuid() == 0
        if administrator:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if administrator:
                os.seteuid(0)
            os.chmod(folder, 0o755)


def test_a_root_that_cannot_be_written_is_reported_by_every_check_that_would_write_there(unwritable: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--json", "--root", str(unwritable / "runs")])
    assert done.exit_code == 1
    findings = {each["name"]: Finding(**each) for each in json.loads(done.stdout)}
    assert failed(findings) == ["study", "store", "tracking", "extractor"]
    for name in failed(findings):
        assert "Permission denied" in findings[name].found
        assert str(unwritable / "runs") in findings[name].found
        assert "--root" in findings[name].remedy
    assert list(unwritable.iterdir()) == []


def test_data_that_do_not_suit_the_system_fail(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (8, 8)).save(made(tmp_path / "pictures") / f"{number}.png")
    found = doctor_checks.data(Case(sweep_of(f"dataset={{name: folder, path: {tmp_path / 'pictures'}}}"), tmp_path))
    assert found.verdict == "failed"
    assert "narman-cgan makes (1, 28, 28)" in found.found
    assert found.remedy


def test_classes_of_other_packages_are_imported_and_made(tmp_path: Path) -> None:
    here = "tests.support.optuna_classes"
    found = doctor_checks.classes(Case(sweep_of("pruner={class: 'no.such:Name'}"), tmp_path))
    assert (found.verdict, found.remedy) == ("failed", "install its package where the driver runs")
    assert found.found.startswith("pruner.class: no.such:Name cannot be imported: ModuleNotFoundError")
    found = doctor_checks.classes(Case(sweep_of(f"sampler={{class: '{here}:Corner'}}"), tmp_path))
    assert found.verdict == "ok"
    assert found.found.startswith(f"{here}:Corner: imported and made; sampler {here}:Corner takes no seed")


def test_data_that_will_be_fetched_are_a_warning(tmp_path: Path) -> None:
    found = doctor_checks.data(Case(sweep_of("dataset={name: mnist, path: nowhere, download: true}"), tmp_path))
    assert found.verdict == "warning"
    assert "mnist is not in nowhere; it will be fetched" in found.found
    assert "without network" in found.remedy


def test_official_weights_that_will_be_fetched_are_a_warning_and_damaged_ones_a_failure(tmp_path: Path) -> None:
    case = Case(sweep_of("score.extractor=inception"), tmp_path / "runs")
    found = doctor_checks.extractor(case)
    assert found.verdict == "warning"
    assert "without network, fetch https://" in found.remedy
    assert not case.root.exists()
    (made(case.root / "cache") / "inception-2015-12-05.pt").write_bytes(b"half of it")
    found = doctor_checks.extractor(case)
    assert (found.verdict, found.remedy) == ("failed", "replace the file")


@pytest.mark.parametrize(
    ("status", "answer", "verdict", "said"),
    [
        (200, {"experiments": []}, "ok", "answers"),
        (401, {"error_code": "UNAUTHENTICATED", "message": "who are you?"}, "failed", "who are you?"),
    ],
)
def test_a_tracking_server_is_asked_one_thing_and_must_let_us_in(
    tmp_path: Path, status: int, answer: dict[str, object], verdict: str, said: str
) -> None:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sweep = sweep_of(f"tracking.uri=http://127.0.0.1:{server.server_port}")
        found = doctor_checks.tracking(Case(sweep, tmp_path))
        server.shutdown()
    assert found.verdict == verdict
    assert said in found.found
    assert {path.rpartition("/")[2] for path in asked} <= {"search", "server-info", "version"}


def test_a_study_in_sqlite_needs_its_folder_and_tables_that_this_program_knows(tmp_path: Path) -> None:
    def study(file: Path) -> Finding:
        before = digest(file) if file.exists() else None
        found = doctor_checks.study(Case(sweep_of(f"study.storage=sqlite:///{file}"), tmp_path / "runs"))
        assert (digest(file) if file.exists() else None) == before
        return found

    nowhere = study(tmp_path / "nowhere" / "study.db")
    assert nowhere.verdict == "failed"
    assert f"there is no folder {tmp_path / 'nowhere'}" in nowhere.found
    file = tmp_path / "study.db"
    assert study(file).found.endswith("can be written, and will have tables of studies")
    SweepStudy.create(made(tmp_path / "runs" / "tiny"), sweep_of(f"study.storage=sqlite:///{file}"))
    assert study(file).found.endswith("can be written, and has tables of studies")
    with sqlite3.connect(file) as database:
        database.execute("update alembic_version set version_num = 'v99.9.9.a'")
    database.close()
    newer = study(file)
    assert newer.verdict == "failed"
    assert "compatible with the table schema" in newer.found
    assert newer.remedy


def test_a_journal_or_a_database_that_cannot_be_written_fails(tmp_path: Path) -> None:
    case = Case(sweep_of(), tmp_path / "runs")
    made(case.folder / JOURNAL)
    assert doctor_checks.study(case).verdict == "failed"
    assert "Is a directory" in doctor_checks.study(case).found
    (case.root / "mlflow.db").write_bytes(b"no database at all, but long enough for a header of one" * 10)
    assert doctor_checks.tracking(case).verdict == "failed"
    assert "not a database" in doctor_checks.tracking(case).found
    assert "`gansweep rebuild-tracking NAME --root " in doctor_checks.tracking(case).remedy


@pytest.mark.parametrize(("gpus", "verdict"), [("0", "warning"), ("1", "failed")])
def test_a_torch_without_cuda_beside_a_driver_is_reported_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, gpus: str, verdict: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(doctor_checks, "_has_driver", lambda: True)
    found = doctor_checks.cuda(Case(sweep_of(f"resources.gpus_per_worker={gpus}"), Path()))
    assert found.verdict == verdict
    assert "built without CUDA" in found.found
    assert "pip install" in found.remedy


def test_gpus_are_listed_with_their_memory_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(doctor_checks, "_gpus", lambda: [Gpu("H100", 70 * 10**9, 80 * 10**9)])
    one, two = (Case(sweep_of(f"resources.gpus_per_worker={count}"), Path()) for count in (1, 2))
    assert doctor_checks.cuda(one) == Finding("cuda", "ok", "1 GPU: H100, 70.0 of 80.0 GB free")
    assert doctor_checks.cuda(two).verdict == "failed"
    assert doctor_checks.cuda(replace(two, address="auto")).verdict == "ok"  # others have them

    def broken() -> list[Gpu]:
        raise RuntimeError("the driver is too old")

    monkeypatch.setattr(doctor_checks, "_gpus", broken)
    assert doctor_checks.cuda(one).verdict == "failed"
    assert doctor_checks.cuda(Case(sweep_of(), Path())).found == "torch cannot use the GPU: the driver is too old"


@pytest.mark.parametrize(
    ("answer", "setting", "verdict", "said"),
    [
        ("exit 0", "gpus_per_worker=0.5", "ok", "its daemon answers"),
        ("echo Cannot find MPS control daemon process; exit 1", "gpus_per_worker=0.5", "warning", "Cannot find MPS"),
        ("echo Cannot find MPS control daemon process; exit 1", "gpus_per_worker=1", "ok", "not needed"),
        (None, "gpus_per_worker=0.25", "warning", "not on PATH"),
        (None, "gpus_per_worker=1", "ok", "not needed"),
    ],
)
def test_mps_is_asked_for_if_trials_share_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str | None, setting: str, verdict: str, said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("PATH", str(tmp_path) if answer is None else f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path / "pipes"))
    if answer is not None:
        (tmp_path / "nvidia-cuda-mps-control").write_text(f"#!/bin/sh\n{answer}\n")
        (tmp_path / "nvidia-cuda-mps-control").chmod(0o755)
    found = doctor_checks.mps(Case(sweep_of(f"resources.{setting}"), Path()))
    assert found.verdict == verdict
    assert said in found.found
    assert verdict == "ok" or "nvidia-cuda-mps-control -d" in found.remedy


def test_an_old_python_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    assert doctor_checks.python(Case(sweep_of(), Path())).verdict == "failed"


def test_a_cluster_that_will_have_room_later_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "check_address", lambda address: None)
    monkeypatch.setattr(cluster, "cluster", lambda address: nullcontext())
    monkeypatch.setattr(cluster, "nodes", lambda: [Node(8, 0), Node(4, 1)])
    monkeypatch.setattr(cluster, "free", lambda: Node(3, 0.5))
    case = Case(sweep_of(*SHARED), Path(), "10.0.0.1:6379")
    found = doctor_checks.ray(case)
    assert found.verdict == "ok"
    assert "2 nodes at 10.0.0.1:6379 with 12 CPU, 1 GPU in all, 3 CPU, 0.5 GPU free; 12 trials fit" in found.found
    large = (*SHARED, "resources.cpus_per_worker=16")
    assert doctor_checks.ray(replace(case, sweep=sweep_of(*large))).verdict == "failed"
    later = doctor_checks.ray(replace(case, sweep=sweep_of(*large, "resources.wait=600")))
    assert later.verdict == "warning"
    assert "a launch waits 600 s for it" in later.found
    alone = doctor_checks.ray(replace(case, sweep=sweep_of()))
    assert alone.verdict == "failed"
    assert "study.storage: a journal file is for one machine" in alone.found


def test_ray_says_what_is_wrong_with_its_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(sweep_of(), tmp_path)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    long = tmp_path / ("job-of-somebody-" * 5)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    found = doctor_checks.ray(case)
    assert found.verdict == "warning"
    assert f"TMPDIR: {long} is too long for Ray's sockets" in found.found
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    missing = doctor_checks.ray(case)
    assert missing.verdict == "failed"
    assert missing.found == f"TMPDIR: {tmp_path / 'missing'} cannot be used: No such file or directory"
    assert missing.remedy == "name a folder that can be written"
