"""A sweep file is read as it is written, with its defaults, and a shipped one is found by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from search_spaces import resolve, shipped, summary
from search_spaces.load import LONGEST, SweepFile, check_sweep, parse_sweep
from search_spaces.pruners.freeze_thaw import FreezeThaw
from search_spaces.pruners.halving import Halving
from search_spaces.pruners.percentile import Percentile
from search_spaces.pruners.rule import Unpruned
from search_spaces.samplers import Random, Tpe
from search_spaces.settings import Finals
from search_spaces.space import Value
from search_spaces.sweep import diff
from tests.support.sweep_texts import BOTH, message, sweep, sweep_text
from trainers.catalogue import SYSTEMS
from trainers.errors import InputError


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with open(tmp_path / "long.yaml", "wb") as file:
        file.truncate(10**12)
    (tmp_path / "wide.yaml").write_text("é" * (LONGEST // 2 + 1), encoding="utf-8")  # its limit cuts a character
    for name in ("missing.yaml", "latin.yaml", "."):
        with pytest.raises(InputError, match="cannot be read as a sweep file"):
            SweepFile.read(tmp_path / name)
    for name in ("long.yaml", "wide.yaml"):
        with pytest.raises(InputError, match="has more than 1,048,576 bytes"):
            SweepFile.read(tmp_path / name)


def test_scalars_are_read_as_yaml_1_2_reads_them() -> None:
    def read(scalar: str) -> Any:
        return sweep(search=f"{{seed: {scalar}}}").search[0].values[0]

    assert [read(scalar) for scalar in ("0x1f", "010", "+7", "0o17")] == [31, 10, 7, 15]
    dimensions = sweep(search="{g_lr: 1e-5, d_lr: {choice: [1E-4, .5, 1.e-2]}}").search
    assert [dimension.values for dimension in dimensions] == [(0.00001,), (0.0001, 0.5, 0.01)]
    assert sweep(name="off").name == "off"


def test_the_name_is_the_file_s_unless_it_is_given() -> None:
    assert sweep().name == "small"
    assert sweep(name="given").name == "given"
    assert parse_sweep(sweep_text(name="given"), "small.yaml", name="stronger").name == "stronger"
    with pytest.raises(InputError, match=r"--name -x: name: allowed are letters"):
        parse_sweep(sweep_text(), "small.yaml", name="-x")


def test_sections_left_out_have_their_defaults() -> None:
    plain = sweep(search=None)
    assert (plain.search, plain.sampler, plain.pruner) == ((), Tpe(), FreezeThaw())
    assert plain.stop_on == ()
    assert plain.finals == Finals(trials=3, samples=10_000)
    assert (plain.resources.concurrent_trials, plain.store.path, plain.tracking.uri) == (None, None, None)


@pytest.mark.parametrize(
    ("section", "text", "expected"),
    [
        ("sampler", "random", Random(seed=0)),
        ("sampler", "{seed: 3}", Tpe(seed=3)),
        ("pruner", "none", Unpruned()),
        ("pruner", "{name: halving, reduction: 3}", Halving(reduction=3)),
        ("pruner", "{name: percentile, percentile: 50, warmup: 2}", Percentile(percentile=50.0, warmup=2)),
    ],
)
def test_a_name_selects_the_kind_of_a_section(section: str, text: str, expected: Any) -> None:
    read = getattr(sweep(**{section: text}), section)
    assert type(read) is type(expected)
    assert read == expected.model_copy(update={"warmup": 2000} if "warmup: 2" in text else {})


def test_rungs_are_whole_images_however_they_are_written() -> None:
    assert sweep(rungs="{every: 10, until: 30}").rungs == (10_000, 20_000, 30_000)
    assert sweep(rungs="[10, 20, 30]") == sweep(rungs="{every: 10, until: 30}")
    assert sweep(rungs="[0.3, 28.8]", search="{batch: 100}").rungs == (300, 28_800)
    steps = sweep(rungs="{every: 9.6, until: 960}", search="{batch: 64}").rungs
    assert steps == tuple(range(9600, 960_001, 9600))


def test_every_metric_that_applies_is_recorded_by_default() -> None:
    assert sweep().metrics == ("kid", "fid", "is", "accuracy")
    assert sweep(score="{metric: fid, also: [fid, kid]}").metrics == ("fid", "kid")
    assert sweep(score="{also: []}").metrics == ("kid",)
    assert sweep(score="{extractor: inception}").metrics == ("kid", "fid")
    assert sweep(score="{samples: 10}").metrics == ("kid", "fid", "accuracy")
    assert sweep(system="narman-dcgan").metrics == ("kid", "fid", "is")
    assert sweep(system=BOTH).metrics == ("kid", "fid", "is", "accuracy")


def test_a_trial_s_configuration_is_the_system_s_with_its_values_and_the_last_rung() -> None:
    values: dict[str, Value] = {"g_lr": 1e-3, "n_critic": 2}
    system, config = sweep().configure(values)
    assert system == "narman-cgan"
    changed = {**SYSTEMS[system].defaults.model_dump(), **values, "kimg": 60.0}
    assert config == type(config).model_validate(changed)
    assert (
        sweep(system=BOTH).configure({"system": "narman-dcgan"})[1].dropout == SYSTEMS["narman-dcgan"].defaults.dropout
    )
    with pytest.raises(InputError, match=r"sweep small: g_lr: input should be greater than 0, got -1"):
        sweep().configure({"g_lr": -1})


def test_a_choice_of_systems_is_the_first_dimension() -> None:
    space = sweep(system=BOTH, search="{dropout: {uniform: [0, 0.5], when: {system: narman-dcgan}}}").space
    assert [dimension.name for dimension in space] == ["system", "dropout"]
    assert space.dimensions[0].values == ("narman-cgan", "narman-dcgan")
    assert sweep().space.dimensions[0].kind == "constant"


def test_a_batch_bound_to_one_system_counts_for_that_system_alone() -> None:
    batch = "{batch: {choice: [50], when: {system: narman-dcgan}}}"
    assert sweep(system=BOTH, rungs="[1]", search=batch).rungs == (1000,)
    assert "batch 100 (the default of narman-cgan)" in message(sweep_text(system=BOTH, rungs="[1.05]", search=batch))


# Overrides


def test_overrides_replace_values_before_anything_is_checked() -> None:
    changed = parse_sweep(
        sweep_text(budget="{trials: none yet}"),
        "small.yaml",
        [
            "budget.trials=3",
            "search.g_lr=1e-3",
            "search.d_lr={uniform: [0.1, 0.2]}",
            "score.extractor.name=inception",
            "pruner=none",
            "dataset.name=mnist",
            "dataset.verify=false",
            "resources.concurrent_trials=2",
            "tracking.uri=sqlite:///a=b.db",
        ],
    )
    assert changed.budget.trials == 3
    assert [(d.name, d.kind) for d in changed.search] == [("g_lr", "constant"), ("d_lr", "uniform")]
    assert (changed.dataset.name, changed.dataset.verify) == ("mnist", False)
    assert (changed.score.extractor.name, changed.pruner) == ("inception", Unpruned())
    assert (changed.resources.concurrent_trials, changed.tracking.uri) == (2, "sqlite:///a=b.db")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("budget.trials=many", "--set budget.trials=many: budget.trials: input should be a valid integer, got 'many'"),
        ("budget.trials", "--set budget.trials: expected KEY=VALUE"),
        ("=3", "--set =3: expected KEY=VALUE"),
        ("a..b=3", "--set a..b=3: expected KEY=VALUE"),
        ("budget=[1", "--set budget=[1: not YAML"),
        ("rungs=[*a]", "--set rungs=[*a]: not YAML as a sweep file needs it: aliases"),
        ("system.x=1", "--set system.x=1: system is 'narman-cgan', which has no keys below it"),
        ("budget.trails=3", "--set budget.trails=3: budget.trails: unknown key 'trails'; did you mean 'trials'?"),
        ("search.g_lr=7", "--set search.g_lr=7: search.g_lr: input should be less than or equal to 1, got 7"),
        ("search.g_lr.log_uniform=[2, 1]", "--set search.g_lr.log_uniform=[2, 1]: search.g_lr.log_uniform: low 2"),
    ],
)
def test_a_bad_override_is_named_in_place_of_a_line(override: str, expected: str) -> None:
    assert expected in message(sweep_text(), override)


# Normalised text


def test_equal_sweeps_have_no_diff_and_changed_lines_are_shown() -> None:
    assert diff(sweep(), sweep(budget="{trials: 12}", pruner="freeze-thaw")) == ""
    lines = diff(sweep(), sweep(budget="{trials: 13}", search="{g_lr: 0.5}")).splitlines()
    assert {"-budget: {trials: 12}", "+budget: {trials: 13}", "+search: {g_lr: 0.5}"} <= set(lines)
    assert not any("system" in line for line in lines if line[0] in "+-")


def test_every_default_is_written_into_the_normalised_text() -> None:
    written = yaml.safe_load(sweep(search=None).normalised())
    assert set(written) == {
        "name", "system", "dataset", "search", "points", "warm_start", "rungs", "score", "finals", "sampler", "pruner",
        "objectives", "stop_on",
        "budget", "resources", "store", "study", "tracking", "format",
    }  # fmt: skip
    assert written["score"]["also"] == ["fid", "is", "accuracy"]


# Files that come with the program


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_sweep_loads_and_survives_normalisation(name: str) -> None:
    loaded = SweepFile.read(shipped()[name]).sweep()
    assert loaded.name == name
    assert parse_sweep(loaded.normalised()) == loaded
    assert 20 < len(summary(shipped()[name])) <= 118


def test_a_shipped_sweep_is_found_by_name_where_no_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("quickstart", "quickstart.yaml", "search_spaces/quickstart.yaml"):
        assert resolve(text) == shipped()["quickstart"]
    (tmp_path / "quickstart.yaml").write_text("mine")
    assert resolve("quickstart.yaml") == Path("quickstart.yaml")
    for text in ("quickstrt", "other/quickstart.yaml", "quickstart.yml"):
        with pytest.raises(InputError, match=r"no such sweep file; .*mnist-variants, quickstart"):
            resolve(text)


# What needs other files


def test_built_in_data_pass_the_check_and_nothing_is_created(tmp_path: Path) -> None:
    check_sweep(sweep(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_missing_data_are_told_before_weights_are_asked_for(tmp_path: Path) -> None:
    score = f"{{extractor: {{name: inception, weights: {tmp_path / 'none.pt'}}}}}"
    dataset = f"{{name: mnist, path: {tmp_path / 'no'}}}"
    with pytest.raises(InputError) as caught:
        check_sweep(sweep(dataset=dataset, score=score), tmp_path)
    assert str(caught.value).startswith("sweep small: dataset: ")
    assert str(tmp_path / "no") in str(caught.value)
    with pytest.raises(InputError, match=r"sweep small: score.extractor: .*none.pt"):
        check_sweep(sweep(score=score), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_pictures_must_suit_the_system(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(20):
        Image.new("RGB", (8, 8)).save(pictures / f"{index}.png")
    loaded = sweep(dataset=f"{{name: folder, path: {pictures}}}")
    with pytest.raises(InputError) as caught:
        check_sweep(loaded, tmp_path)
    shape, classes, extractor = str(caught.value).splitlines()
    assert "folder has images of shape (3, 28, 28), but narman-cgan makes (1, 28, 28)" in shape
    assert "folder has one class, but narman-cgan is conditional" in classes
    assert "score.extractor: lenet learns to tell classes apart, but folder has one; use inception" in extractor
