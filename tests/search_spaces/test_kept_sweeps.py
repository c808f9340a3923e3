"""Sweeps that a study keeps, and how a file that is launched again agrees with the one that is kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from search_spaces import load, settings
from search_spaces.load import Deprecated, check_trials, parse_sweep
from search_spaces.pruners.rule import Unpruned
from search_spaces.samplers import Gp, Tpe
from search_spaces.settings import Finals, Score
from search_spaces.sweep import FORMAT, Sweep, changed_keys, completed, read_kept
from trainers.catalogue import SYSTEMS
from trainers.config import overlay
from trainers.errors import InputError

FILE = """
name: small
system: narman-cgan
dataset: mnist-mini
search: {g_lr: {log_uniform: [1e-4, 1e-2]}, batch: 50}
rungs: [1, 2]
budget: {trials: 5}
"""


def sweep(*overrides: str) -> Sweep:
    return parse_sweep(FILE, overrides=overrides)


def kept(*overrides: str) -> Sweep:
    """As a study keeps it and reads it back."""
    return read_kept(sweep(*overrides).with_defaults().normalised())


@pytest.fixture
def later_defaults() -> Iterator[Any]:
    """Changes defaults of sections, until the end of the test."""
    changed: list[tuple[type[BaseModel], str, Any]] = []

    def rebuild(model: type[BaseModel]) -> None:
        for each in (model, Sweep):
            each.model_rebuild(force=True)

    def change(model: type[BaseModel], field: str, default: Any) -> None:
        changed.append((model, field, model.model_fields[field].default))
        model.model_fields[field].default = default
        rebuild(model)

    yield change
    for model, field, default in reversed(changed):
        model.model_fields[field].default = default
        rebuild(model)


def agrees(file: Sweep, known: Sweep) -> bool:
    """Whether the file may be launched again under the name of the kept sweep."""
    return completed(file, known) == known


# What is kept


def test_a_kept_sweep_has_the_number_of_its_format_and_full_defaults() -> None:
    text = sweep().with_defaults().normalised()
    assert text.startswith(f"format: {FORMAT.newest}\n")
    read = read_kept(text)
    assert read == sweep().with_defaults()
    assert read.defaults == {"narman-cgan": SYSTEMS["narman-cgan"].defaults.model_dump(mode="json")}
    assert read_kept(text.removeprefix(f"format: {FORMAT.newest}\n")) == read  # as version 1 would have it


def test_a_kept_text_may_be_launched_as_a_file() -> None:
    known = kept()
    assert parse_sweep(known.normalised()) == known
    assert agrees(parse_sweep(known.normalised()), known)


@pytest.mark.parametrize(
    ("defaults", "expected"),
    [
        ("{monir-dcgan: {}}", "defaults.monir-dcgan: unknown system 'monir-dcgan'; did you mean 'narman-cgan'?"),
        ("{narman-cgan: {g_lr: 7}}", "defaults.narman-cgan: sweep small: defaults of narman-cgan: g_lr: input should"),
        ("{narman-cgan: {leek: 7}}", "this program does not know the settings leek; install a newer gansweep"),
    ],
)
def test_defaults_in_a_file_are_checked(defaults: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        sweep(f"defaults={defaults}")
    assert expected in str(caught.value)


def test_rules_between_fields_are_checked_with_the_defaults_that_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    known, system = kept(), SYSTEMS["narman-cgan"]
    changed = replace(system, defaults=overlay(system.defaults, {"loss": "hinge"}))
    monkeypatch.setitem(SYSTEMS, "narman-cgan", changed)
    with pytest.raises(InputError, match="smoothing is 'fixed' but loss hinge has no labels"):
        sweep("search.smoothing=fixed")
    defaults = {"defaults": known.defaults}
    assert parse_sweep(sweep().model_copy(update=defaults).normalised(), overrides=["search.smoothing=fixed"])


@pytest.mark.parametrize("read", [read_kept, parse_sweep])
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("99", f"it has format 99, and this program reads formats up to {FORMAT.newest}; install a newer gansweep"),
        ("0", f"format: expected a whole number from 1 to {FORMAT.newest}, got 0"),
        ("true", "got True"),
        ("two", "got 'two'"),
    ],
)
def test_a_text_of_a_format_that_is_not_known_is_refused(read: Any, number: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        read(f"format: {number}\n{FILE}")
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# A file that is launched again


def test_a_default_of_a_section_changes(later_defaults: Any) -> None:
    file = ("finals.trials=1", "score.seed=0")
    known = kept(*file)
    later_defaults(Finals, "samples", 50_000)
    later_defaults(Score, "samples", 500)
    later_defaults(Sweep, "pruner", Unpruned())
    again = sweep(*file)
    assert (again.finals.samples, again.score.samples, again.pruner.name) == (50_000, 500, "none")
    assert agrees(again, known)
    found = set(changed_keys(again, completed(again, known)))
    assert found == {"finals.samples", "score.samples", "pruner", "defaults"}
    assert read_kept(known.normalised()) == known


def test_a_default_of_a_system_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    known, system = kept(), SYSTEMS["narman-cgan"]
    monkeypatch.setitem(SYSTEMS, "narman-cgan", replace(system, defaults=overlay(system.defaults, {"beta1": 0.9})))
    assert agrees(sweep(), known)


def test_a_metric_that_is_recorded_by_default_is_added() -> None:
    known = kept("score.also=[fid]")
    assert sweep().metrics == ("kid", "fid", "is", "accuracy")
    assert agrees(sweep(), known)
    assert not agrees(sweep("score.also=[fid, is]"), known)


def test_a_key_with_a_default_is_added() -> None:
    text = kept().normalised()
    assert "  spool: {max_gb: 10.0}\n" in text
    older = read_kept(text.replace("  spool: {max_gb: 10.0}\n", ""))
    assert older == kept()
    assert agrees(sweep(), older)
    assert not agrees(sweep("store.spool.max_gb=1"), older)


def test_the_default_kind_of_a_sampler_changes() -> None:
    known = kept("sampler={name: gp, seed: 3, startup: 4}")
    assert completed(sweep("sampler={seed: 3}"), known).sampler == Gp(seed=3, startup=4)
    assert completed(sweep("sampler={seed: 5}"), known).sampler == Gp(seed=5, startup=4)
    assert completed(sweep("sampler={name: tpe, seed: 3}"), known).sampler == Tpe(seed=3)


def test_an_argument_of_a_class_of_another_package_is_a_key_like_others() -> None:
    bounds = '{class: "optuna.pruners:ThresholdPruner", lower: 0, upper: 3}'
    known = kept(f"pruner={bounds}")
    fewer = sweep('pruner={class: "optuna.pruners:ThresholdPruner", upper: 3}')
    assert agrees(fewer, known)
    assert set(changed_keys(fewer, completed(fewer, known))) == {"pruner.lower", "defaults"}
    assert not agrees(sweep(f"pruner={bounds.replace('3', '4')}"), known)
    assert parse_sweep(sweep(f"pruner={bounds}").as_written()) == sweep(f"pruner={bounds}")


@pytest.mark.parametrize(
    "change",
    [
        "search.batch=100",
        "score.samples=100",
        "score.extractor=cnn",
        "sampler=random",
        "pruner.growth=2",
        "finals={trials: 3, samples: 500}",
        "rungs=[1]",
        "stop_on=[mode-collapse]",
        "dataset.fit=true",
    ],
)
def test_a_key_that_the_file_gives_another_value_is_a_change(change: str) -> None:
    assert not agrees(sweep(change), kept())
    assert agrees(sweep(change), kept(change))
    assert agrees(sweep(), kept(change)) is (change not in ("search.batch=100", "rungs=[1]"))


def test_the_budget_is_that_of_the_file_as_a_whole() -> None:
    assert completed(sweep("budget={hours: 2}"), kept()).budget == sweep("budget={hours: 2}").budget


def test_a_sweep_is_sent_to_a_cluster_as_its_file_has_it() -> None:
    file = sweep("sampler={seed: 3}", "score.extractor=cnn")
    sent = file.as_written()
    assert "samples" not in sent
    assert "also" not in sent
    assert parse_sweep(sent) == file
    assert parse_sweep(sent).as_written() == sent
    assert read_kept(sent).as_written() == sent


def test_more_trials_than_a_grid_has_points_are_refused() -> None:
    grid = sweep("search={batch: {choice: [50, 100]}}", "sampler=grid", "budget.trials=2")
    check_trials(grid, "small")
    with pytest.raises(InputError, match=r"small: budget\.trials: 3 is more than the 2 points of the grid"):
        check_trials(grid.model_copy(update={"budget": settings.Budget(trials=3)}), "small")


# Keys on their way out


def test_a_deprecated_key_is_read_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(load, "DEPRECATED", {("score", "images"): Deprecated(("score", "samples"))})
    with caplog.at_level(logging.WARNING):
        read = parse_sweep(FILE + "score: {images: 300}\n", "small.yaml")
    assert read.score.samples == 300
    assert caplog.messages == ["small.yaml:8: score.images is deprecated; use score.samples"]
    with pytest.raises(InputError, match=r"small\.yaml:8: score\.samples: input should be greater than or equal to 2"):
        parse_sweep(FILE + "score: {images: 1}\n", "small.yaml")


def test_a_key_that_is_gone_is_refused_with_its_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Deprecated(("score", "samples"), accepted=False)
    monkeypatch.setattr(load, "DEPRECATED", {("images",): gone})
    with pytest.raises(InputError, match=r"small\.yaml:8: images: this key is gone; use score\.samples"):
        parse_sweep(FILE + "images: 300\n", "small.yaml")
    assert sweep().name == "small"
