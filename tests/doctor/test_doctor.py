"""`gansweep doctor`: what it prints on a machine that could run a sweep, and on broken ones; it leaves nothing."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from click.testing import Result
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from orchestrator.cli.__main__ import app
from orchestrator.cluster.nodes import check_fits
from orchestrator.doctor import command as doctors
from orchestrator.doctor.checks import Case, Finding
from orchestrator.doctor.command import Check
from orchestrator.paths import JOURNAL
from orchestrator.study.study import SweepStudy
from search_spaces.addresses import with_driver
from search_spaces.load import parse_sweep
from search_spaces.sweep import Sweep
from tests.support import sweeps
from tests.support.mlflow_server import MlflowServer, free_port
from tests.support.postgres import Postgres
from tests.support.servers import S3Server
from trainers.data.files import digest
from trainers.errors import InputError

SHARED = ("study.shared=true", "store.shared=true")
SERVED = ["study", "store", "tracking"]
NAMES = ["python", "torch", "cuda", "mps", "ray", "study", "store", "tracking", "extractor", "data", "classes"]
#: In the environment of every test.
SECRETS = {"PGPASSWORD": "pg-secret-1234", "MLFLOW_TRACKING_PASSWORD": "ml-secret-1234", "SOME_TOKEN": "token-1234567"}

Examine = Callable[..., dict[str, Finding]]


def sweep_of(*overrides: str) -> Sweep:
    return parse_sweep(sweeps.TINY, "tiny.yaml", overrides, "tiny")


def listing(folder: Path) -> dict[str, str]:
    """Everything below a folder, with the checksums of files."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    return {name: digest(path) if path.is_file() else "" for name, path in found.items()}


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command in an empty folder; whatever it finds, it changes no file and shows no secret."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GANSWEEP_HOME", raising=False)

    def call(*arguments: str) -> Result:
        before = listing(tmp_path)
        done = CliRunner().invoke(app, ["doctor", *arguments])
        assert listing(tmp_path) == before
        assert "Traceback" not in done.output
        for name, value in os.environ.items():
            if name in SECRETS or name.startswith("AWS_SECRET"):
                assert value not in done.output
        return done

    return call


@pytest.fixture
def examine(run: Callable[..., Result], tmp_path: Path) -> Examine:
    """The findings by name on the small sweep with these overrides; the exit code agrees with them."""

    def call(*overrides: str, options: tuple[str, ...] = ()) -> dict[str, Finding]:
        (tmp_path / "tiny.yaml").write_text(sweep_of(*overrides).normalised())
        done = run("tiny.yaml", "--json", *options)
        findings = [Finding(**each) for each in json.loads(done.stdout)]
        assert [each.name for each in findings] == NAMES
        assert done.exit_code == (1 if any(each.verdict == "failed" for each in findings) else 0), done.output
        assert all(each.remedy for each in findings if each.verdict != "ok")
        assert not any("\n" in each.found for each in findings)
        return {each.name: each for each in findings}

    return call


def failed(findings: dict[str, Finding]) -> list[str]:
    return [name for name, each in findings.items() if each.verdict == "failed"]


def test_on_a_laptop_each_check_is_a_line_and_the_quickstart_could_run(run: Callable[..., Result]) -> None:
    done = run()
    assert done.exit_code == 0
    *checks, end = done.stdout.splitlines()
    assert [line.split()[:2] for line in checks] == [["ok", name] for name in NAMES]
    assert end == "quickstart could run here"
    said = dict(zip(NAMES, checks, strict=True))
    assert f"{torch.__version__}, built with" in said["torch"]
    assert f"started here it has {os.cpu_count()} cores" in said["ray"]
    assert f"runs/quickstart/{JOURNAL} can be written" in said["study"]
    assert "written, on a condition too, read and deleted" in said["store"]
    assert "mlflow.db can be written" in said["tracking"]
    assert said["data"].endswith("mnist-mini: 10 classes, 1 x 28 x 28")


def test_files_of_earlier_sweeps_are_tried_and_stay_as_they_are(examine: Examine, tmp_path: Path) -> None:
    study = SweepStudy.create(made(tmp_path / "runs" / "tiny"), sweep_of())
    assert study.next_ticket() is not None
    (tmp_path / "runs" / "tiny" / "store" / "trials").mkdir(parents=True)
    with sqlite3.connect(tmp_path / "runs" / "mlflow.db") as database:
        database.execute("create table experiments (id integer primary key, name text not null, kind text not null)")
    database.close()
    assert failed(examine()) == []
    assert len(study.records()) == 1
    with sqlite3.connect(tmp_path / "other.db") as database:
        database.execute("create table other (id integer)")
    database.close()
    others = f"sqlite:///{tmp_path / 'other.db'}"
    assert failed(examine(f"study.storage={others}", f"tracking.uri={others}")) == []


def test_the_words_and_the_json_have_the_same_verdicts(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(sweep_of("dataset={name: mnist, path: nowhere}").normalised())
    printed, listed = run("tiny.yaml"), run("tiny.yaml", "--json")
    assert printed.exit_code == listed.exit_code == 1
    verdicts = [(each["verdict"], each["name"]) for each in json.loads(listed.stdout)]
    *lines, end = printed.stdout.splitlines()
    assert [tuple(line.split()[:2]) for line in lines if not line.lstrip().startswith("->")] == verdicts
    assert "-> put the four MNIST files there" in printed.stdout
    assert end == "tiny cannot run here: 1 of 11 checks failed"


def test_a_sweep_file_with_a_mistake_is_refused_as_by_a_launch(run: Callable[..., Result]) -> None:
    done = run("no-such-file")
    assert isinstance(done.exception, InputError)


def s3_store(place: str, endpoint: str) -> str:
    return f"store={{path: 's3://{place}', endpoint: '{endpoint}'}}"


def test_servers_that_run_are_used_and_left_as_they_were(examine: Examine, s3: S3Server, postgres: Postgres) -> None:
    bucket, url, other = s3.bucket("doctor-good"), postgres.database(), postgres.database()
    store, study = s3_store(f"{bucket}/some/prefix", s3.endpoint), f"study.storage={url}"
    findings = examine(store, study, f"tracking.uri={other}")
    assert failed(findings) == []
    assert "will have tables of studies" in findings["study"].found
    assert tables(url) == tables(other) == []
    # Tables that exist are written to.
    assert SweepStudy.create(Path(), sweep_of(study)).next_ticket() is not None
    before = contents(url)
    findings = examine(store, study, f"tracking.uri={other}")
    assert failed(findings) == []
    assert "has tables of studies" in findings["study"].found
    assert contents(url) == before
    assert s3.client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.slow  # such a server starts slowly
def test_a_real_server_of_mlflow_is_asked_and_nothing_is_written_there(examine: Examine, tmp_path_factory: Any) -> None:
    from mlflow import MlflowClient

    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    try:
        client = MlflowClient(server.uri)
        experiments = [each.name for each in client.search_experiments()]
        findings = examine(f"tracking.uri={server.uri}")
        assert failed(findings) == []
        assert findings["tracking"].found == f"{server.uri} answers"
        assert [each.name for each in client.search_experiments()] == experiments
    finally:
        server.kill()


def tables(url: str) -> list[str]:
    """Names of a PostgreSQL database's tables."""
    engine = create_engine(with_driver(url))
    with engine.connect() as connection:
        found = connection.execute(text("select tablename from pg_tables where schemaname = 'public' order by 1"))
        names = [str(name) for (name,) in found]
    engine.dispose()
    return names


def contents(url: str) -> dict[str, list[Any]]:
    """All that is in the tables of a PostgreSQL database, and the next number of a study."""
    engine, found = create_engine(with_driver(url)), {}
    with engine.connect() as connection:
        for name in [*tables(url), "studies_study_id_seq"]:
            found[name] = sorted(map(str, connection.execute(text(f'select * from "{name}"'))))
    engine.dispose()
    return found


def test_a_bucket_that_does_not_exist_is_reported_with_the_remedy(examine: Examine, s3: S3Server) -> None:
    findings = examine(s3_store("no-such-bucket/x", s3.endpoint))
    assert failed(findings) == ["store"]
    assert findings["store"].found.startswith(
        f"s3://no-such-bucket/x at {s3.endpoint}: An error occurred (NoSuchBucket)"
    )
    assert findings["store"].remedy == "make the bucket, or name another one in store.path"


def test_a_bucket_that_lets_nobody_in_is_reported_with_the_credentials_that_help(
    examine: Examine, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret-0123456789")
    findings = examine(s3_store(s3.bucket("doctor-closed"), s3.endpoint))
    assert failed(findings) == ["store"]
    assert findings["store"].remedy.startswith("give credentials that may")


def test_servers_that_are_away_are_each_reported_with_the_remedy(
    examine: Examine, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    ports = [free_port() for _ in range(4)]
    findings = examine(
        s3_store("bucket/x", f"http://127.0.0.1:{ports[0]}"),
        f"tracking.uri=http://127.0.0.1:{ports[1]}",
        f"study.storage=postgresql://me@127.0.0.1:{ports[2]}/studies",
        options=("--address", f"127.0.0.1:{ports[3]}"),
    )
    assert failed(findings) == ["ray", "study", "store", "tracking"]
    assert findings["ray"].found.startswith(f"--address 127.0.0.1:{ports[3]}: nothing answers there")
    assert "the cluster runs" in findings["ray"].remedy
    assert "Connection refused" in findings["study"].found
    assert "PGPASSWORD" in findings["study"].remedy
    assert f"http://127.0.0.1:{ports[0]}" in findings["store"].found
    assert "see that the server runs" in findings["store"].remedy
    assert findings["tracking"].found == f"http://127.0.0.1:{ports[1]} cannot be used: Connection refused"
    assert "correct tracking.uri" in findings["tracking"].remedy


@pytest.fixture
def deaf() -> Iterator[str]:
    """HOST:PORT of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def deaf_servers(address: str) -> list[str]:
    return [
        s3_store("bucket/x", f"http://{address}"),
        f"tracking.uri=http://{address}",
        f"study.storage=postgresql://me@{address}/studies",
    ]


def test_servers_that_never_answer_are_each_told(
    examine: Examine, s3: S3Server, deaf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty = [replace(check, limit=1) if check.name in SERVED else check for check in doctors.CHECKS]
    monkeypatch.setattr(doctors, "CHECKS", hasty)
    findings = examine(*deaf_servers(deaf))
    assert failed(findings) == SERVED
    assert {findings[name].found for name in SERVED} == {"no answer within 1 s"}


def test_checks_are_made_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    meeting = Barrier(len(SERVED))

    def meet(case: Case) -> Finding:
        meeting.wait()
        return Finding("study", "ok", "met the others")

    met = [replace(check, run=meet, limit=240) if check.name in SERVED else check for check in doctors.CHECKS]
    monkeypatch.setattr(doctors, "CHECKS", met)
    found = [each.found for each in doctors.doctor(sweep_of(), tmp_path)]
    assert found.count("met the others") == len(SERVED)


@pytest.mark.slow
def test_the_command_ends_if_a_server_takes_connections_and_never_answers(deaf: str, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(sweep_of(f"tracking.uri=http://{deaf}").normalised())
    done = sweeps.gansweep("doctor", "tiny.yaml", cwd=tmp_path, timeout=300)  # of which 10 are the check's
    assert done.returncode == 1, done.stderr
    assert "failed   tracking   no answer within 10 s" in done.stdout
    assert "-> see that MLflow's server answers" in done.stdout
    assert done.stdout.endswith("tiny cannot run here: 1 of 11 checks failed\n")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_command_ends_if_no_server_at_all_answers(s3: S3Server, deaf: str, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(sweep_of(*deaf_servers(deaf)).normalised())
    done = sweeps.gansweep("doctor", "tiny.yaml", "--json", cwd=tmp_path, timeout=300)
    assert done.returncode == 1, done.stderr
    found = {each["name"]: each["found"] for each in json.loads(done.stdout) if each["verdict"] == "failed"}
    seconds = {"study": 15, "store": 15, "tracking": 10}
    assert found == {name: f"no answer within {limit} s" for name, limit in seconds.items()}


def test_data_that_are_not_there_are_reported_with_the_remedy(examine: Examine) -> None:
    findings = examine("dataset={name: mnist, path: nowhere}")
    assert failed(findings) == ["data"]
    assert "no train-images-idx3-ubyte" in findings["data"].found
    assert "`download: true`" in findings["data"].remedy
    findings = examine("dataset={name: folder, path: nowhere, fit: true}")
    assert failed(findings) == ["data"]
    assert "there is no folder nowhere" in findings["data"].found


def test_more_gpus_than_there_are_fail_in_the_launch_s_words(examine: Examine) -> None:
    want = ["resources.gpus_per_worker=64"]
    findings = examine(*want)
    assert failed(findings) == ["cuda", "ray"]
    assert "each worker of a trial needs 64" in findings["cuda"].found
    assert "resources.gpus_per_worker" in findings["cuda"].remedy
    with pytest.raises(InputError) as caught:
        check_fits(sweep_of(*want))
    assert str(caught.value) in findings["ray"].found
    assert "by --address" in findings["ray"].remedy


def test_a_root_below_a_file_is_reported_too(examine: Examine, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("")
    findings = examine(options=("--root", "occupied/runs"))
    assert failed(findings) == ["study", "store", "tracking", "extractor"]
    assert "Not a directory" in findings["study"].found
    findings = examine("tracking.artifacts=occupied/artifacts", "store.path=occupied/store")
    assert failed(findings) == ["store", "tracking"]
    assert "tracking.artifacts" in findings["tracking"].remedy
    assert "store.path" in findings["store"].remedy


def test_weights_of_one_s_own_must_be_there_and_the_promised_ones(examine: Examine, tmp_path: Path) -> None:
    findings = examine("score.extractor={name: custom, weights: mine.pt}")
    assert failed(findings) == ["extractor"]
    assert findings["extractor"].found == "extractor custom: weights mine.pt does not exist"
    assert findings["extractor"].remedy.startswith("allowed is a TorchScript file")
    (tmp_path / "mine.pt").write_bytes(b"weights")
    findings = examine(f"score.extractor={{name: custom, weights: mine.pt, sha256: '{'0' * 64}'}}")
    assert failed(findings) == ["extractor"]
    assert f"mine.pt has the sha256 {digest(tmp_path / 'mine.pt')}, not 0000" in findings["extractor"].found
    assert findings["extractor"].remedy == "replace the file"
    with_sha256 = f"score.extractor={{name: custom, weights: mine.pt, sha256: {digest(tmp_path / 'mine.pt')}}}"
    assert examine(with_sha256)["extractor"] == Finding("extractor", "ok", "custom: mine.pt, sha256 verified")


def test_an_exception_that_no_check_expects_is_one_line_without_secrets(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def surprised(case: Case) -> Finding:
        raise RuntimeError(f"at https://me:hidden@host/x?key=hidden with {SECRETS['SOME_TOKEN']}\nand a second line")

    def gone(case: Case) -> Finding:
        raise SystemExit

    def talkative(case: Case) -> Finding:
        return Finding("data", "warning", f"AKIAABCDEFGHIJKLMNOP {SECRETS['PGPASSWORD']} " + "x" * 1000, "mend it")

    wrong: dict[str, Check] = {
        "store": Check("store", surprised, "look there"),
        "study": Check("study", gone, "look there too"),
        "tracking": Check("tracking", surprised, "install it again", imports=("no_such_module",)),
        "data": Check("data", talkative, ""),
    }
    monkeypatch.setattr(doctors, "CHECKS", [wrong.get(check.name, check) for check in doctors.CHECKS])
    findings = examine()
    assert failed(findings) == ["study", "store", "tracking"]
    store = "RuntimeError: at https://***@host/x?*** with *** and a second line"
    assert findings["store"] == Finding("store", "failed", store, "look there")
    assert findings["study"].found == "SystemExit"
    assert findings["tracking"].found == "ModuleNotFoundError: No module named 'no_such_module'"
    assert findings["data"].found.startswith("*** *** xxx")
    assert len(findings["data"].found) < 500


@pytest.mark.slow
def test_a_real_cluster_is_counted_and_left(examine: Examine) -> None:
    from tests.support.nodes import nodes

    with nodes(2, 3) as real:
        findings = examine(*SHARED, options=("--address", real.address))
        assert failed(findings) == []
        assert f"at {real.address} with 6 CPU, 0 GPU in all, 6 CPU, 0 GPU free" in findings["ray"].found
        findings = examine(*SHARED, "resources.cpus_per_worker=4", options=("--address", real.address))
        assert failed(findings) == ["ray"]
