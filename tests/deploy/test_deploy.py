"""Every file of deploy/ is valid, by a tool that knows its kind, and a typo in any of them is found; offline."""

from __future__ import annotations

import copy
import gzip
import json
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import kubernetes_validate
import pytest
import ray.autoscaler
import typer.main
import yaml
from botocore.exceptions import ParamValidationError
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config

from orchestrator.cli.__main__ import app
from search_spaces.load import SweepFile
from tests.support.sweeps import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
BIN = Path(sys.executable).parent
#: A file's complaints; empty where it is valid. Folders are copies of deploy/.
Checker = Callable[[Path], str]


def tool(*command: str | Path) -> str:
    """What a validator complains of."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr or f"exit code {done.returncode}"


def explained(error: jsonschema.ValidationError) -> str:
    return f"{'.'.join(map(str, error.absolute_path))}: {error.message}"


@cache
def programs() -> dict[str, Any]:
    """The commands of our image, as click knows them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's other libraries, which come along
        from mlflow.cli import cli as mlflow_command
        from ray.scripts.scripts import cli as ray_command
    return {"gansweep": typer.main.get_command(app), "ray": ray_command, "mlflow": mlflow_command}


def misused(words: list[str], prose: bool = False) -> str:
    """What is wrong with a command of gansweep, ray or mlflow; options and arguments are read, nothing is run.

    In prose a command may stand for itself, without what it needs.
    """
    command, rest, name = programs()[words[0]], words[1:], words[0]
    while subcommands := getattr(command, "commands", None):
        if not rest or rest[0] not in subcommands:
            return f"{name}: no command {' '.join(rest[:1])}" if rest != ["--help"] else ""
        name, command, rest = rest[0], subcommands[rest[0]], rest[1:]
    if (prose and not rest) or rest == ["$@"]:
        return ""
    inner = [misused(shlex.split(word)) for word in rest if word.startswith("gansweep ")]  # run by `ray exec`
    try:
        command.make_context(name, list(rest))
    except Exception as error:  # click's, of which typer has a copy with classes of its own
        return f"{name}: {error}"
    return "".join(inner)


def commands_in(shell: str) -> Iterator[list[str]]:
    """The commands of gansweep, ray and mlflow in lines of a shell, whatever stands before them."""
    shell = re.sub(r"^\s*#.*$", "", shell, flags=re.MULTILINE).replace("\\\n", " ")
    shell = shell.replace("run --rm cli ", "run --rm cli gansweep ")
    for found in re.finditer(r"(?<![\w./@~-])(?<!-n )(gansweep|ray|mlflow) [a-z][^|;&>`)\n]*", shell):
        quoted = shell[: found.start()].endswith("'")
        yield shlex.split(found[0].partition("'")[0] if quoted else found[0], comments=True)


def misused_in(shell: str, prose: bool = False) -> str:
    return "\n".join(filter(None, (misused(words, prose) for words in commands_in(shell))))


def check_dockerfile(deploy: Path) -> str:
    path = deploy / "Dockerfile"
    complaint = tool(BIN / "hadolint", "--no-color", path)
    lines = path.read_text().splitlines(keepends=True)  # hadolint names instructions by number alone
    rests = ["".join(lines[int(number) - 1 :]) for number in re.findall(r"Dockerfile:(\d+)", complaint)]
    named = [re.match(r"(.*\\\n)*.*", rest)[0] for rest in rests]
    return "\n".join(filter(None, [complaint, *named, _check_copies(deploy)]))


def check_dockerignore(deploy: Path) -> str:
    lines = (deploy / "Dockerfile.dockerignore").read_text().splitlines()
    first = next(line for line in lines if not line.startswith("#"))
    missing = [line[1:] for line in lines if line.startswith("!") and not (REPOSITORY / line[1:]).exists()]
    nothing = "" if first == "*" else f"{first}: all but what is named must be left out"
    return nothing + " ".join(missing) + _check_copies(deploy)


def _check_copies(deploy: Path) -> str:
    """What the image copies and the build does not get."""
    let_in = re.findall(r"^!(.*)$", (deploy / "Dockerfile.dockerignore").read_text(), flags=re.MULTILINE)
    copies = re.findall(r"^COPY (?!--from)(.*)$", (deploy / "Dockerfile").read_text(), flags=re.MULTILINE)
    sources = [word for line in copies for word in line.split()[:-1] if not word.startswith("--")]
    return " ".join(f"COPY {source}: not in the build" for source in sources if source not in let_in)


def check_compose(deploy: Path) -> str:
    path = deploy / "compose.yaml"
    if complaint := tool(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", path):
        return complaint
    services, found = yaml.safe_load(path.read_text())["services"], []
    for name, service in services.items():
        words = [*service.get("entrypoint", []), *service.get("command", [])]
        if words and words[0] in programs():
            found.append(misused(words))
        elif words and words[0] == "bash":
            found.append(misused_in(words[-1]))
        found += [f"{name}: port {port}" for port in service.get("ports", []) if not port.startswith("127.0.0.1:")]
        found += [f"{name}: no service {each}" for each in service.get("depends_on", {}) if each not in services]
        if not re.fullmatch(r"[a-z/]+:(v?\d+\.\d+\S*|\$\{GANSWEEP_TAG:-0\.1\.0\})", service["image"]):
            found.append(f"{name}: image {service['image']} is not pinned")
    return "\n".join(filter(None, found))


def check_env(deploy: Path) -> str:
    lines = (deploy / ".env.example").read_text().splitlines()
    named = {line.partition("=")[0]: line.partition("=")[2] for line in lines if line and not line.startswith("#")}
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", (deploy / "compose.yaml").read_text()))
    return " ".join([*sorted(named.keys() ^ used), *(f"{name} has a value" for name, value in named.items() if value)])


def check_aws(deploy: Path) -> str:
    config = yaml.safe_load((deploy / "aws.yaml").read_text())
    strict = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    strict["properties"]["provider"]["additionalProperties"] = False  # which Ray leaves open
    try:
        jsonschema.validate(config, strict)
        validate_config(prepare_config(copy.deepcopy(config)))
    except jsonschema.ValidationError as error:
        return explained(error)
    except (ValueError, AssertionError) as error:
        return str(error)
    run = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances")
    found = []
    for name, kind in config["available_node_types"].items():
        request = {**kind["node_config"], "MinCount": 1, "MaxCount": 1}
        report = ParamValidator().validate(request, run.input_shape)
        if report.has_errors():
            found.append(f"{name}: {ParamValidationError(report=report.generate_report())}")
    starts = "\n".join([*config["head_start_ray_commands"], *config["worker_start_ray_commands"]])
    return "\n".join(filter(None, [*found, misused_in(starts)]))


def check_objects(deploy: Path) -> str:
    documents = yaml.safe_load_all((deploy / "kuberay/objects.yaml").read_text())
    return "\n".join(filter(None, map(_check_object, documents)))


def check_raycluster(deploy: Path) -> str:
    return _check_kuberay(deploy / "kuberay/raycluster.yaml", "rayclusters", lambda spec: spec)


def check_rayjob(deploy: Path) -> str:
    found = _check_kuberay(deploy / "kuberay/rayjob.yaml", "rayjobs", lambda spec: spec["rayClusterSpec"])
    spec = yaml.safe_load((deploy / "kuberay/rayjob.yaml").read_text())["spec"]
    return found or _check_pod(spec["submitterPodTemplate"]) + misused(shlex.split(spec["entrypoint"]))


def _check_object(document: dict[str, Any]) -> str:
    try:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{document['kind']}: {explained(error)}"
    return ""


def _check_pod(template: dict[str, Any]) -> str:
    """Of a pod template, whose metadata may be left out, with the namespace's rules for who may run there."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **template}
    if complaint := _check_object(pod):
        return complaint
    whole = pod["spec"]["securityContext"]
    if not whole["runAsNonRoot"] or whole["seccompProfile"]["type"] != "RuntimeDefault":
        return f"securityContext {whole}"
    each = [container["securityContext"] for container in pod["spec"]["containers"]]
    confined = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return "" if all(context == confined for context in each) else f"securityContext {each}"


def _check_kuberay(path: Path, kind: str, cluster_of: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    document = yaml.safe_load(path.read_text())
    packed = (REPOSITORY / f"tests/deploy/schemas/{kind}.json.gz").read_bytes()
    try:
        jsonschema.validate(document, _strict(json.loads(gzip.decompress(packed))))
    except jsonschema.ValidationError as error:
        return explained(error)
    # The resource's own schema says nothing of metadata: it is that of any object.
    found = [_check_object({"apiVersion": "v1", "kind": "ConfigMap", "metadata": document["metadata"]})]
    cluster = cluster_of(document["spec"])
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        found.append(_check_pod(group["template"]))
        found.append(misused(["ray", "start", *(f"--{key}={value}" for key, value in group["rayStartParams"].items())]))
    scripts = set(re.findall(r"/opt/gansweep/(\S+?\.sh)", path.read_text()))
    found += [f"{script} is not in the image" for script in scripts if not (path.parents[1] / script).exists()]
    return "\n".join(filter(None, found))


def _strict(schema: Any) -> Any:
    """The schema without room for what it does not name; Kubernetes drops such keys without a word."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value) for key, value in schema.items()}
    named = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    open_ended = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    return {**made, "additionalProperties": False} if named and not open_ended else made


def check_script(name: str) -> Checker:
    def check(deploy: Path) -> str:
        path = deploy / name
        return tool(BIN / "shellcheck", "--format=gcc", path) + misused_in(re.sub(r'"\$\w+"', "1", path.read_text()))

    return check


def check_sweep(deploy: Path) -> str:
    try:
        SweepFile.read(deploy / "sweep.yaml").sweep()
    except Exception as error:
        return str(error)
    return ""


def check_readme(deploy: Path) -> str:
    text = (deploy / "README.md").read_text()
    block = re.compile(r"^ *```bash\n(.*?)^ *```$", flags=re.DOTALL | re.MULTILINE)
    found = [misused_in(shell) for shell in block.findall(text)]
    found += [misused_in(quoted, prose=True) for quoted in re.findall(r"`([^`]+)`", block.sub("", text))]
    files = {path.name for path in deploy.rglob("*")} | {"my-sweep.yaml"}
    found += [f"no file {name}" for name in re.findall(r"[\w-]+\.(?:yaml|sh)\b", text) if name not in files]
    return "\n".join(filter(None, found))


def check_gitignore(deploy: Path) -> str:
    text = (deploy / ".gitignore").read_text()
    return "" if text == ".env\n" else f"{text}: must keep secrets out"


CHECKERS: dict[str, Checker] = {
    ".env.example": check_env,
    ".gitignore": check_gitignore,
    "Dockerfile": check_dockerfile,
    "Dockerfile.dockerignore": check_dockerignore,
    "README.md": check_readme,
    "aws.yaml": check_aws,
    "compose.yaml": check_compose,
    "kuberay/objects.yaml": check_objects,
    "kuberay/raycluster.yaml": check_raycluster,
    "kuberay/rayjob.yaml": check_rayjob,
    "leave.sh": check_script("leave.sh"),
    "mps.sh": check_script("mps.sh"),
    "slurm.sh": check_script("slurm.sh"),
    "sweep.yaml": check_sweep,
}


@pytest.mark.parametrize("name", CHECKERS)
def test_a_file_is_valid(name: str) -> None:
    assert CHECKERS[name](DEPLOY) == ""


def test_every_file_has_its_checker() -> None:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "."]
    names = subprocess.run(listed, cwd=DEPLOY, capture_output=True, text=True, check=True).stdout.split()
    assert set(names) == set(CHECKERS)


TYPOS = [
    (".env.example", "RAY_AUTH_TOKEN=", "RAY_AUTH_TOKN="),
    (".gitignore", ".env", ".evn"),
    ("Dockerfile", "WORKDIR /src", "WORKDIRR /src"),
    ("Dockerfile", "COPY orchestrator ", "COPY orchestator "),
    ("Dockerfile", "--no-install-recommends", "--no-instal-recommends"),
    ("Dockerfile", "type=bind", "typ=bind"),
    ("Dockerfile", "FROM dependencies AS package", "FROM dependencys AS package"),
    ("Dockerfile.dockerignore", "!constraints.txt", "!constraint.txt"),
    ("README.md", "gansweep submit my-sweep.yaml --address", "gansweep submit my-sweep.yaml --adress"),
    ("README.md", "'gansweep pause digits'", "'gansweep paus digits'"),
    ("README.md", "cli status digits", "cli statuss digits"),
    ("README.md", "rayjob.yaml", "rayjobb.yaml"),
    ("aws.yaml", "idle_timeout_minutes", "idle_timeout_minuts"),
    ("aws.yaml", "availability_zone", "availabilty_zone"),
    ("aws.yaml", "IamInstanceProfile", "IamInstanceProfil"),
    ("aws.yaml", "MarketType", "MarketTyp"),
    ("aws.yaml", "--autoscaling-config", "--autoscalling-config"),
    ("compose.yaml", "stop_grace_period", "stop_grace_periode"),
    ("compose.yaml", "condition: service_healthy", "condition: service_helthy"),
    ("compose.yaml", "--allowed-hosts", "--alowed-hosts"),
    ("compose.yaml", "exec ray start --address", "exec ray start --adress"),
    ("compose.yaml", "127.0.0.1:8265:8265", "8265:8265"),
    ("kuberay/objects.yaml", "policyTypes", "policyTypess"),
    ("kuberay/objects.yaml", "annotations", "anotations"),
    ("kuberay/raycluster.yaml", "idleTimeoutSeconds", "idleTimeoutSecond"),
    ("kuberay/raycluster.yaml", "secretKeyRef", "secretKeyReff"),
    ("kuberay/raycluster.yaml", "namespace: gansweep", "namspace: gansweep"),
    ("kuberay/raycluster.yaml", 'num-cpus: "0"', 'num-cpuss: "0"'),
    ("kuberay/raycluster.yaml", "gansweep/leave.sh", "gansweep/leaves.sh"),
    ("kuberay/rayjob.yaml", "ttlSecondsAfterFinished", "ttlSecondAfterFinished"),
    ("kuberay/rayjob.yaml", "runAsNonRoot", "runAsNonRot"),
    ("kuberay/rayjob.yaml", "sweep.yaml --address", "sweep.yaml --adress"),
    ("leave.sh", "end=$((SECONDS", "ende=$((SECONDS"),
    ("leave.sh", "--reason-message", "--reason-mesage"),
    ("mps.sh", "${1:-}'", "${word}'"),
    ("slurm.sh", 'wait "$step"', 'wait "$stepp"'),
    ("slurm.sh", "gansweep pause", "gansweep paus"),
    ("sweep.yaml", "budget", "budgett"),
    ("sweep.yaml", "narman-cgan", "narman-cgann"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "right", "wrong"), TYPOS)
def test_a_typo_is_found_and_named(name: str, right: str, wrong: str, tmp_path: Path) -> None:
    deploy = tmp_path / "deploy"
    shutil.copytree(DEPLOY, deploy)
    text = (deploy / name).read_text()
    assert right in text
    (deploy / name).write_text(text.replace(right, wrong, 1))
    complaint = CHECKERS[name](deploy)
    print(complaint)  # what people would see: pytest -rP
    words = [set(re.findall(r"[\w.:-]+", text)) for text in (wrong, right)]
    assert max(words[0] - words[1], key=len).strip(":") in complaint


def test_every_file_has_a_typo_planted() -> None:
    assert {name for name, _, _ in TYPOS} == set(CHECKERS)
