"""A secret that somebody gives the program, wherever and in whatever form, is refused, and shown and kept nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from orchestrator.cli.__main__ import main
from orchestrator.tracking.address import VARIABLE, tracker_of_environment
from search_spaces.addresses import holds_secret, masked
from tests.support import sweeps

#: The two halves of each secret: a message that shows a part shows at least one of them.
ONE, TWO = "Zq7mark1", "Kv9mark2"
PASSWORDS = [f"{ONE}{between}{TWO}" for between in "/#?@%: é℀'\"\\&;=,[]{}|~^\t"]
ADDRESSES = [
    *(f"postgresql://me:{password}@db/studies" for password in PASSWORDS),
    *(f"{scheme}://{ONE}:{TWO}@host/x" for scheme in ("http", "HTTPS", "s3", "S3", "sqlite", "mysql+pymysql", "gs")),
    f"postgresql://me:{ONE}\n{TWO}@db/studies",
    f"postgresql://me:{ONE}://{TWO}@db/studies",
    f"postgresql://:{ONE}{TWO}@db/studies",
    f"postgresql://{ONE}%3A{TWO}@db/studies",
    f"postgresql://me:{ONE}{TWO}@one:5432,two:5432/studies",
    f"postgresql://me@db/studies?sslpassword={ONE}{TWO}",
    f"postgresql://me@db/studies?options=-c%20password%3D{ONE}{TWO}",
    f"postgresql://me@db/studies?{ONE}{TWO}",
    f"postgresql://me:{ONE}{TWO}@[::1/studies",
    f"postgresql://me:{ONE}{TWO}@db:port/studies",
    f"postgresql:/me:{ONE}{TWO}@db/studies",
    f"POSTGRESQL://me:{ONE}{TWO}@db/studies",
    f"me:{ONE}/{TWO}@db/studies",
    f"host=db user=me password={ONE}{TWO}",
    f"https://{ONE}{TWO}@host",
    f"https://host/?token={ONE}&x={TWO}",
    f"https://host/#{ONE}?{TWO}",
    f"s3://bucket/x?X-Amz-Signature={ONE}{TWO}",
    f"sqlite:///study.db?key={ONE}{TWO}",
]
FILE = sweeps.TINY

#: Places in a sweep file; `%` stands for the address as a YAML string.
PLACES = {
    "study.storage": "study: {storage: %}",
    "tracking.uri": "tracking: {uri: %}",
    "tracking.artifacts": "tracking: {artifacts: %}",
    "store.path": "store: {path: %}",
    "store.endpoint": "store: {path: s3://bucket, endpoint: %}",
    "study": "study: %",
    "study.url": "study: {url: %}",
    "study.storage.url": "study: {storage: {url: %}}",
    "warm_start.1": "warm_start: [other, %]",
    "name": "name: %",
    "stop_on.0": "stop_on: [%]",
    "defaults.narman-cgan.g_lr": "defaults: {narman-cgan: {g_lr: %}}",
    "sampler.storage": "sampler: {class: 'made:Up', storage: %}",
    "format": "format: %",
    "dataset.path": "dataset: {name: folder, path: %}",
    "score.extractor.weights": "score: {extractor: {name: custom, weights: %}}",
}


def _some(places: Iterable[object], place: object) -> list[str]:
    """A part of ADDRESSES for one of `places`; each address has its turn at several of them."""
    return ADDRESSES[list(places).index(place) % 8 :: 8]


def _file(folder: Path, place: str, address: str) -> Path:
    key = place.partition(".")[0]
    kept = [line for line in FILE.splitlines() if not line.startswith((f"{key}:", "x"))]
    path = folder / "s.yaml"
    path.write_text("\n".join([*kept, PLACES[place].replace("%", json.dumps(address))]) + "\n")
    return path


def _run(folder: Path, *arguments: str) -> tuple[int, str]:
    done = sweeps.in_process(*arguments, cwd=folder)
    return done.returncode, done.stdout + done.stderr


def _shows(text: str) -> bool:
    return ONE in text or TWO in text


def _keeps(folder: Path, given: Path | None = None) -> list[Path]:
    """What lies below `folder` with a part of the secret in its name or content, except the file that was given."""
    return [
        path
        for path in folder.rglob("*")
        if path != given and (_shows(str(path)) or (path.is_file() and _shows(path.read_text(errors="replace"))))
    ]


@pytest.mark.parametrize("place", PLACES)
def test_an_address_with_a_secret_in_a_sweep_file_is_refused_with_its_line(place: str, tmp_path: Path) -> None:
    for address in _some(PLACES, place):
        path = _file(tmp_path, place, address)
        code, said = _run(tmp_path, "launch", str(path), "--dry-run")
        line = len(path.read_text().splitlines())
        assert (code, _shows(said)) == (2, False), (address, said)
        assert said.startswith(f"error: {path}:{line}: {place}: "), said
        assert "must not stand in a sweep file, which is kept and shown: " in said
    assert _keeps(tmp_path, path) == []


@pytest.mark.parametrize(
    "command",
    [
        ["launch", "s.yaml"],
        ["submit", "s.yaml", "--address", "http://127.0.0.1:1"],
        ["doctor", "s.yaml"],
    ],
)
def test_every_command_that_reads_a_sweep_file_refuses_it(command: list[str], tmp_path: Path) -> None:
    for address in ADDRESSES[::5]:
        path = _file(tmp_path, "study.storage", address)
        code, said = _run(tmp_path, *command)
        assert (code, _shows(said)) == (2, False), (address, said)
        assert _keeps(tmp_path, path) == []


@pytest.mark.parametrize("place", [place for place in PLACES if place != "name"])
def test_an_override_with_a_secret_is_refused_and_its_value_not_repeated(place: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(FILE)
    key = place.rpartition(".")[0] if place[-1].isdigit() else place
    for address in _some(PLACES, place):
        value = json.dumps([address]) if key != place else json.dumps(address)
        for written in (value, address.replace("\n", " ")):
            code, said = _run(tmp_path, "launch", "s.yaml", "--dry-run", "--set", f"{key}={written}")
            assert (code, _shows(said)) == (2, False), (address, said)
            assert f"--set {key}" in said
    assert _keeps(tmp_path) == []


@pytest.mark.parametrize(
    "given",
    [
        {"study.password": ONE},
        {"study": {"password": ONE}},
        {"sampler": {"class": "made:Up", "api_key": ONE}},
        {"store": {"path": "s3://bucket", "secret_access_key": ONE}},
        {f"postgresql://me:{ONE}@db": 1},
        {"study": {f"https://{ONE}@host": {}}},
    ],
)
def test_what_is_named_a_secret_or_is_a_key_is_one(given: dict[str, object], tmp_path: Path) -> None:
    ((key, value),) = given.items()
    (tmp_path / "s.yaml").write_text(FILE)
    code, said = _run(tmp_path, "launch", "s.yaml", "--set", f"{key}={json.dumps(value)}")
    assert (code, _shows(said)) == (2, False), said
    (tmp_path / "t.yaml").write_text(f"{FILE}{json.dumps(key)}: {json.dumps(value)}\n")
    code, said = _run(tmp_path, "launch", "t.yaml")
    assert (code, _shows(said)) == (2, False), said
    assert _keeps(tmp_path, tmp_path / "t.yaml") == []


@pytest.mark.parametrize(
    "text",
    [
        f"study: {{storage: 'postgresql://me:{ONE}@db",
        f'study: {{storage: "postgresql://me:{ONE}@db\\q"}}',
        f"study: {{storage: postgresql://me:{ONE}@db}}\nstudy: {{storage: postgresql://me:{ONE}@db}}",
        f"? postgresql://me:{ONE}@db\n: 1\n? postgresql://me:{ONE}@db\n: 2",
        f"study: !postgresql://me:{ONE}@db x",
        f"study: {{storage: !!int 'postgresql://me:{ONE}{'x' * 50}@db'}}",
        f"study: {{storage: !!float 'postgresql://me:{ONE}{'x' * 50}@db'}}",
        f"study: &postgresql://me:{ONE}@db x\nstore: *postgresql://me:{ONE}@db",
        f"study: %postgresql://me:{ONE}@db",
        f"study: postgresql://me:{ONE}@db: x",
        f"\tstudy: postgresql://me:{ONE}@db",
        f"study: postgresql://me:{ONE}\x07@db",
    ],
)
def test_broken_yaml_is_told_without_its_text(text: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(FILE + text + "\n")
    code, said = _run(tmp_path, "launch", "s.yaml")
    assert (code, _shows(said)) == (2, False), said
    assert "s.yaml:" in said
    code, said = _run(tmp_path, "launch", "quickstart", "--set", f"study={text.partition(': ')[2]}")
    assert (code, _shows(said)) == (2, False), said


#: Command lines; `%` stands for the address.
LINES = [
    ["%"],
    ["--storage", "%"],
    ["launch", "%"],
    ["launch", "quickstart", "%"],
    ["launch", "quickstart", "--name", "%"],
    ["launch", "quickstart", "--root", "%"],
    ["launch", "quickstart", "--trials", "%"],
    ["launch", "quickstart", "--adress=%"],
    ["launch", "quickstart", "--address", "%"],
    ["launch", "quickstart", "--set", "%"],
    ["launch", "quickstart", "--set=study.storage=%"],
    ["submit", "quickstart", "--address", "%"],
    ["submit", "quickstart", "--address=%", "--root", "/x"],
    ["resume", "%"],
    ["resume", "x", "--storage", "%"],
    ["resume", "x", "--storage=%"],
    ["resume", "x", "--address", "%"],
    *([word, "x", *rest, "--storage", "%"] for word, rest in (("stop", []), ("pause", []), ("gc", []))),
    ["add-trials", "x", "1", "--storage", "%"],
    ["add-trials", "x", "%"],
    ["status", "%"],
    ["status", "--root", "%"],
    ["report", "x", "-o", "%"],
    ["rebuild-tracking", "%"],
    ["repair", "%"],
    ["simulate", "%"],
    ["simulate", "curves.npz", "--pruner", "%"],
    ["list", "%"],
    ["ui", "--root", "%"],
    ["doctor", "%"],
    ["doctor", "quickstart", "--address", "%"],
    ["score", "%", "--dataset", "mnist-mini"],
    ["score", "x", "--dataset", "%"],
    ["score", "x", "--dataset", "folder", "--data", "%"],
    ["score", "x", "--dataset", "mnist-mini", "--extractor", "custom", "--weights", "%"],
    ["score", "x", "--targets", "%"],
    ["mix-study", "%", "--dataset", "mnist-mini"],
    ["train", "%"],
    ["train", "narman-cgan", "--out", "%"],
    ["train", "narman-cgan", "--set", "g_lr=%"],
]


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_an_argument_with_a_secret_is_refused_before_anything_starts(words: list[str], tmp_path: Path) -> None:
    for address in _some(LINES, words):
        line = [word.replace("%", address) for word in words]
        code, said = _run(tmp_path, *line)
        assert (code, _shows(said)) == (2, False), (line, said)
        assert said.count("\n") == 1 or "Usage" in said
        assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_of_a_cluster_in_the_environment_is_refused_too(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    code, said = _run(tmp_path, "launch", "quickstart", "--address", "auto", *CLUSTER)
    assert (code, _shows(said)) == (2, False), said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_tracker_of_the_environment_is_named_without_its_secret(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, address.replace("\n", ""))
    said = tracker_of_environment()
    assert said is not None
    assert not _shows(said)


@pytest.mark.parametrize("command", [["status"], ["launch", "quickstart"], ["ui"], ["score", "x", "--targets", "y"]])
def test_a_bucket_is_no_folder_of_sweeps(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["gansweep", *command])
    for address in (f"s3://{ONE}:{TWO}@bucket/sweeps", "s3://bucket/sweeps"):
        monkeypatch.setenv("GANSWEEP_HOME", address)
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().err
        assert (ended.value.code, _shows(said)) == (2, False)
        assert "bucket/sweeps: expected a folder of this machine" in said
    assert list(tmp_path.iterdir()) == []


#: A study and a store that the machines of a cluster share.
CLUSTER = ["--set", "study.shared=true", "--set", "store.shared=true"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_text_shows_what_an_address_hides(address: str) -> None:
    assert holds_secret(address)
    if "\n" in address:
        return  # a line of a log is masked by itself
    for text in (f"cannot reach {address}", f"OperationalError: '{address}' (see the log)\nnext line", address):
        assert not _shows(masked(text)), masked(text)


@pytest.mark.parametrize(
    "address",
    [
        *("sqlite:///study.db", "sqlite:////home/me@work/a.db?timeout=30", "postgresql://me@db/studies"),
        *("postgresql:///studies?host=/var/run/postgresql&sslmode=require", "postgresql://me@[::1]:5432/studies"),
        *("postgresql+psycopg2://me%40tenant@a.example.org:1,b:2/studies", "mysql+pymysql://me@db/x?charset=utf8mb4"),
        *("http://127.0.0.1:5000", "https://mlflow.example.org/team/a", "s3://bucket/a=1/b", "/data/a@b", "what?"),
        *("package.tokens:Name", "package.token:Name", "C#", "a:b", "1:2"),
    ],
)
def test_an_address_without_a_secret_is_none(address: str) -> None:
    assert not holds_secret(address)
