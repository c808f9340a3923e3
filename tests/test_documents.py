"""The documents agree with the code: names, links, the picture of the rooms, the forms for issues, an added pruner."""

from __future__ import annotations

import ast
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("orchestrator", "search_spaces", "trainers")
CONTRACTS = {contract["name"]: contract for contract in PROJECT["tool"]["importlinter"]["contracts"]}
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/design.md",
    "docs/formats.md",
    "deploy/README.md",
    "trainers/README.md",
)
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
DOT = (ROOT / "docs/architecture.dot").read_text()
EDGES = re.findall(r'^\s*"(.+)" -> "(.+?)"(.*)$', DOT, flags=re.MULTILINE)
ARROWS = {(source, target) for source, target, style in EDGES if "invis" not in style}
NODES = set(re.findall(r'^\s*"([^"]+)" \[', DOT, flags=re.MULTILINE))


# Names and links


@cache
def names_in(path: Path) -> set[str]:
    """The names that a module defines at its top, and those of its classes as CLASS.NAME."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for each in targets for name in ast.walk(each) if isinstance(name, ast.Name)}
    return found


def code_in(text: str) -> list[str]:
    """The words in backquotes outside code blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_function_and_file_that_a_document_names_exists(document: str) -> None:
    path, missing, made = ROOT / document, [], "search_spaces/pruners/near_best.py"
    for word in code_in(path.read_text()):
        file, _, name = word.partition(":")
        if not re.fullmatch(r"[\w./-]+\.py", file) or file in (made, "trainers/gans/ragan.py"):
            continue
        found = next((each for each in (ROOT / file, path.parent / file) if each.is_file()), None)
        if found is None or (name and name not in names_in(found)):
            missing.append(word)
    assert missing == []


def test_the_walks_name_functions_in_each_room() -> None:
    walks = (ROOT / "docs/architecture.md").read_text().partition("## A score")[2]
    named = {word for word in code_in(walks) if re.fullmatch(r"[\w/]+\.py:[\w.]+", word)}
    assert len(named) > 40
    rooms = {file if (ROOT / file).is_file() and file in NODES else str(Path(file).parent) for file, _, _ in
             (word.partition(":") for word in named)}  # fmt: skip
    others = {"orchestrator/doctor", "orchestrator/paths.py", "trainers/gans", "trainers/data", "trainers/tools"}
    assert NODES - rooms == {*others, "trainers/parallel"}


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    path = ROOT / document
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if link.startswith("http"):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        if anchor:
            assert anchor in map(slug, re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE)), link


def test_the_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", CONTRIBUTING)) <= targets
    assert "docs" in targets


# Rooms


def rooms() -> set[str]:
    """The folders of the packages, and the one module of the orchestrator outside them."""
    folders = {str(path.parent.relative_to(ROOT)) for each in PACKAGES for path in (ROOT / each).rglob("__init__.py")}
    return (folders - {"orchestrator"}) | {"orchestrator/paths.py"}


def test_the_pictures_rooms_are_the_folders() -> None:
    assert rooms() == NODES


def test_the_pictures_arrows_are_the_contracts() -> None:
    layers = [layer.split(" | ") for layer in CONTRACTS["rooms of orchestrator"]["layers"]]
    forbidden = {
        (source.replace(".", "/"), f"{target.replace('.', '/')}.py")
        for source in CONTRACTS["decisions are pure"]["source_modules"]
        for target in CONTRACTS["decisions are pure"]["forbidden_modules"]
    }
    place = {room: f"orchestrator/{room}" for layer in layers for room in layer} | {"paths": "orchestrator/paths.py"}
    allowed = {
        (place[above], place[below])
        for high, low in itertools.pairwise(layers)
        for above, below in itertools.product(high, low)
    }
    assert {arrow for arrow in ARROWS if arrow[1].startswith("orchestrator/")} == allowed - forbidden
    between = [re.findall(r"cluster_(\w+)", style) for _, _, style in EDGES if "lhead" in style]
    packages = CONTRACTS["orchestrator -> search_spaces -> trainers"]["layers"]
    assert between == [list(pair) for pair in itertools.pairwise(packages)]


def test_the_pictures_arrows_in_trainers_are_imports() -> None:
    """Between folders nothing is imported against the arrows; each folder may use the small modules above it."""
    imports = set()
    for path in (ROOT / "trainers").rglob("*.py"):
        room = str(path.parent.relative_to(ROOT))
        for module in re.findall(r"^(?:from|import) (trainers[\w.]*)", path.read_text(), flags=re.MULTILINE):
            place = "/".join(module.split(".")[:2])
            imports.add((room, place if place in NODES else "trainers"))
    drawn = {arrow for arrow in ARROWS if arrow[0].startswith("trainers") and arrow[1].startswith("trainers")}
    assert drawn <= imports
    reached, todo = set(drawn), list(drawn)
    while todo:
        source, middle = todo.pop()
        new = {(source, target) for start, target in drawn if start == middle} - reached
        reached |= new
        todo += new
    between = {(a, b) for a, b in imports if a != b and b != "trainers"}
    assert between - reached == set()


def test_the_rendered_picture_is_that_of_the_text() -> None:
    svg = (ROOT / "docs/architecture.svg").read_text()
    titles = {title.replace("&#45;&gt;", "->") for title in re.findall(r"<title>(.*?)</title>", svg)}
    shown = {title for title in titles if not title.startswith("cluster_")} - {"rooms"}
    assert shown == NODES | {f"{source}->{target}" for source, target in ARROWS}
    for line in itertools.chain.from_iterable(text.split("\\n") for text in re.findall(r'\[label="(.+?)"', DOT)):
        assert f">{line}<" in svg, "make docs"


def test_every_room_is_in_the_table_of_rooms() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    assert set(re.findall(r"^\| `([\w/.]+)` \|", text, flags=re.MULTILINE)) == NODES


def test_the_readmes_tree_names_every_folder() -> None:
    readme = (ROOT / "README.md").read_text()
    assert readme.index("## What lies where") < readme.index("## Everyday commands")
    (tree,) = [block for block in re.findall(r"```text\n(.*?)```", readme, flags=re.DOTALL) if "study/" in block]
    named, parent = set(), ""
    for line in tree.splitlines():
        words = re.match(r"\s*((?:\w+/ ?)+)", line)
        assert words, line
        folders = words[1].split()
        parent = parent if line.startswith(" ") else folders[0]
        named |= {folders[0].rstrip("/")} if not line.startswith(" ") else {f"{parent}{each}"[:-1] for each in folders}
    assert [name for name in named if not (ROOT / name).is_dir()] == []
    assert (rooms() - {"orchestrator/paths.py"}) | {"orchestrator", "deploy", "docs", "tests", "benchmarks"} == named


# Forms, versions, package indexes


def complaint(schema: str, path: Path) -> str:
    tool = Path(sys.executable).parent / "check-jsonschema"
    done = subprocess.run([tool, "--builtin-schema", schema, path], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


FORMS = [
    ("workflows/ci.yml", "vendor.github-workflows", "timeout-minutes", "timeout-minuts"),
    ("workflows/ci.yml", "custom.github-workflows-require-timeout", "timeout-minutes: 120", "name: CI"),
    ("ISSUE_TEMPLATE/config.yml", "vendor.github-issue-config", "blank_issues_enabled", "blank_issues"),
    *((f"ISSUE_TEMPLATE/{name}.yml", "vendor.github-issue-forms", "label:", "lable:") for name in
      ("bug", "feature", "question")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "schema", "right", "wrong"), FORMS)
def test_forms_and_workflow_are_valid_and_a_typo_is_found(
    name: str, schema: str, right: str, wrong: str, tmp_path: Path
) -> None:
    path = ROOT / ".github" / name
    assert complaint(schema, path) == ""
    planted = tmp_path / path.name
    planted.write_text(path.read_text().replace(right, wrong, 1))
    assert complaint(schema, planted) != ""


def test_hosted_ci_calls_what_everybody_can_call() -> None:
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    assert "run: bash .ci/run" in workflow
    assert all(re.fullmatch(r"[\w/-]+@v\d+", action) for action in re.findall(r"uses: (\S+)", workflow))
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert f'python: ["{oldest}", ' in workflow


def test_images_in_deploy_have_the_version_of_the_program() -> None:
    found = [
        version
        for path in (ROOT / "deploy").rglob("*.*")
        for version in re.findall(r"gansweep:(?:\$\{GANSWEEP_TAG:-)?(\d[\w.]*\d)", path.read_text())
    ]
    assert set(found) == {PROJECT["project"]["version"]}


def test_no_package_index_is_named_but_the_default_of_the_argument_that_torchs_own_builds_need() -> None:
    hosts, lines = r"pypi\.org|pythonhosted|download\.pytorch\.org|\bPyPI\b|anaconda\.", []
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in listed:
        if name.startswith(("tests/", "benchmarks/")) or not re.search(r"(\.(md|yml|yaml|sh|toml|txt)|file)$", name):
            continue
        lines += [line.strip() for line in (ROOT / name).read_text().splitlines() if re.search(hosts, line)]
    assert lines == [
        "ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu",
        "TORCH_INDEX: ${GANSWEEP_TORCH_INDEX-https://download.pytorch.org/whl/cpu}",
    ]


# A pruner, added as CONTRIBUTING.md says

TRIED = """
import json, sys
from pathlib import Path
import optuna
import search_spaces.pruners
from orchestrator.study.pruners import RulePruner
from orchestrator.study.study import SweepStudy
from search_spaces.pruners.near_best import NearBest
from tests.support import made_up

folder = Path(sys.argv[1])
folder.mkdir()
study = SweepStudy.create(folder, made_up.sweep("pruner={name: near-best, margin: 0.5}"))
for number, history in enumerate([made_up.history(1.0, 1.0, 1.0), made_up.history(3.0)]):
    assert study.next_ticket().number == number
    study.report(number, history)

def objective(trial):
    trial.report(2.0 * trial.number, 1)
    if trial.should_prune():
        raise optuna.TrialPruned
    return 2.0 * trial.number

plain = optuna.create_study(pruner=RulePruner(NearBest(margin=1.0)))
plain.optimize(objective, n_trials=2)
print(json.dumps({
    "from": search_spaces.pruners.__file__,
    "sweep": [record.reason for record in study.records()],
    "optuna": [trial.state.name for trial in plain.trials],
}))
"""


def test_a_pruner_takes_one_file_and_one_line(tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "mnist_mini"))
    ((code,), (addition,)) = (
        re.findall(rf"```{language}\n(.*?)```", CONTRIBUTING, flags=re.DOTALL) for language in ("python", "diff")
    )
    (tmp_path / "search_spaces/pruners/near_best.py").write_text(code)
    table = tmp_path / "search_spaces/pruners/__init__.py"
    named = re.sub(r"(?<=PRUNERS: dict\[str, type\[Pruner\]\] = \{\n)", addition[1:], table.read_text(), count=1)
    table.write_text(
        re.sub(r"(?=^PRUNERS)", "from search_spaces.pruners.near_best import NearBest\n", named, flags=re.M)
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    found = json.loads(python("-c", TRIED, str(tmp_path / "made-up")).splitlines()[-1])
    assert found["from"].startswith(str(tmp_path))
    assert found["sweep"] == [None, "near-best pruner at 1 kimg: 3.000 ± 0.010 is 2 behind the best trial"]
    assert found["optuna"] == ["COMPLETE", "PRUNED"]
    curves = {str(level): [[step, 100 / step + 10 * level] for step in range(1, 11)] for level in range(8)}
    (tmp_path / "curves.json").write_text(json.dumps(curves))
    chosen = ["--pruner", "{name: near-best, margin: 5}", "--workers", "2", "--seeds", "2", "--json"]
    simulated = json.loads(python("-m", "orchestrator.cli", "simulate", "curves.json", *chosen))
    assert simulated["pruner"] == "near-best"
    assert simulated["trials_pruned"] > 0
