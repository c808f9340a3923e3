"""A run from rung to rung: what the monitor is told, and what it says of small runs that really fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import made_up
from trainers import monitor
from trainers.catalogue import SYSTEMS
from trainers.config import configure, overlay
from trainers.data.images import ImageData
from trainers.evaluation.evaluator import Evaluator
from trainers.evaluation.extractors import Extractor
from trainers.evaluation.reference import reference_of
from trainers.regularizers import clipped
from trainers.run import Run
from trainers.rungs import Rung, worth_keeping
from trainers.trainer import Trainer

#: das-gan is made of perceptrons: at this size thousands of steps take seconds.
SMALL = {"width": 0.1, "batch": 8}
#: D learns fast and G hardly at all.
OVERWHELMED = {"g_lr": 1e-6, "d_lr": 2e-3}

NewRun = Callable[..., Run]


@pytest.fixture(scope="module")
def evaluator(mnist_mini: tuple[ImageData, ImageData], mnist_mini_lenet: Extractor, cache_dir: Path) -> Evaluator:
    return Evaluator(mnist_mini_lenet, reference_of(mnist_mini_lenet, mnist_mini[0], cache_dir), ("kid",), 0)


@pytest.fixture
def new_run(mnist_mini: tuple[ImageData, ImageData], evaluator: Evaluator) -> NewRun:
    """Makes a small run with rungs at these numbers of steps."""

    def build(system_id: str, steps: Sequence[int], samples: int = 100, **settings: Any) -> Run:
        system = SYSTEMS[system_id]
        config = configure(system.defaults, {**SMALL, **settings}, "test")
        rungs = [step * config.batch for step in steps]
        return Run(system_id, system, config, mnist_mini[0], evaluator, rungs, samples)

    return build


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A monitor with a tenth of its patience."""
    for name in ("WARMUP_STEPS", "PERSISTENCE_STEPS"):
        monkeypatch.setattr(monitor, name, getattr(monitor, name) // 10)


def to_the_end(run: Run) -> list[list[str]]:
    """The kinds of the verdicts at each rung."""
    while not run.finished:
        run.next_rung()
    return [[verdict.partition(":")[0] for verdict in rung.verdicts] for rung in run.history]


# What a rung holds


def test_a_rung_knows_the_classes_of_its_samples(new_run: NewRun) -> None:
    rung = new_run("narman-cgan", [2]).next_rung()
    assert rung.class_shares is not None
    assert rung.per_class_accuracy is not None
    assert len(rung.class_shares) == len(rung.per_class_accuracy) == 10
    assert sum(rung.class_shares) == pytest.approx(1)
    assert Rung.from_json(json.loads(json.dumps(rung.to_json()))) == rung


def test_a_generator_that_sees_no_labels_has_no_accuracy_of_classes(new_run: NewRun) -> None:
    rung = new_run("das-gan", [2]).next_rung()
    assert rung.class_shares is not None
    assert rung.per_class_accuracy is None


def test_a_class_without_samples_has_no_accuracy(new_run: NewRun) -> None:
    rung = new_run("narman-cgan", [2], samples=8).next_rung()
    assert rung.per_class_accuracy is not None
    assert [share is None for share in rung.per_class_accuracy] == [False] * 8 + [True] * 2
    assert Rung.from_json(json.loads(json.dumps(rung.to_json()))) == rung


def test_the_share_of_clipped_numbers_is_that_of_the_critic_at_the_rung(new_run: NewRun) -> None:
    run = new_run("das-gan", [20, 40], loss="wasserstein", lipschitz="clip", clip_value=0.02, d_lr=1e-3)
    for _ in range(2):
        rung = run.next_rung()
        numbers = torch.cat([p.detach().flatten() for p in clipped(run.trainer.nets["d"], "trainable")])
        on_bound = (numbers.abs() == numbers.abs().max()).double().mean().item()
        assert rung.losses["clipped_share"] == pytest.approx(on_bound)
        assert 0 < on_bound < 1


def test_nothing_clipped_is_no_share_of_it(new_run: NewRun) -> None:
    assert "clipped_share" not in new_run("das-gan", [2]).next_rung().losses


#: One system of each GAN whose critic can be penalised.
PENALISED = {
    system.gan: system_id
    for system_id, system in SYSTEMS.items()
    if "penalty" in str(type(system.defaults).model_fields["lipschitz"].annotation)
}


@pytest.mark.parametrize("system_id", PENALISED.values())
def test_every_gan_with_a_penalty_records_the_slope_that_it_acts_on(
    system_id: str, mnist_mini: tuple[ImageData, ImageData]
) -> None:
    system = SYSTEMS[system_id]
    config = overlay(system.defaults, {"batch": 4, "width": 0.1, "lipschitz": "penalty", "n_critic": 1})
    data = replace(mnist_mini[0], images=mnist_mini[0].images[:40], labels=mnist_mini[0].labels[:40])
    losses = Trainer(system, config, data.fitted(system.shape)).advance(4)
    # Of one step: the penalty is the mean of (slope - 1)^2 over the batch, so no less than that of the mean slope.
    assert losses["penalty"] >= (losses["penalty_slope"] - 1) ** 2 - 1e-6
    assert losses["penalty_slope"] > 0


# What the monitor is told


def test_shares_of_classes_are_judged_where_they_ought_to_be_alike(new_run: NewRun) -> None:
    def judged(run: Run) -> tuple[bool, bool]:
        rung = Rung(8, {}, {}, 0.0, 0.0, class_shares=(0.1,) * 10, per_class_accuracy=(0.9,) * 10)
        seen = run._observed(rung)
        return seen.class_shares is not None, seen.per_class_accuracy is not None

    def uneven(run: Run) -> Run:
        kept = (run.data.labels < 5) | (torch.arange(len(run.data.labels)) % 3 == 0)
        run.data = replace(run.data, images=run.data.images[kept], labels=run.data.labels[kept])
        run.__post_init__()
        return run

    assert judged(new_run("das-gan", [1])) == (True, True)
    assert judged(uneven(new_run("das-gan", [1]))) == (False, True)
    # A conditional generator is asked for all classes alike.
    assert judged(uneven(new_run("narman-cgan", [1]))) == (True, True)
    # Of few samples a class may lack by chance.
    assert judged(new_run("narman-cgan", [1], samples=99)) == (False, False)


def test_a_resumed_run_is_judged_by_its_whole_history(new_run: NewRun, hasty: None, tmp_path: Path) -> None:
    def fresh() -> Run:
        return new_run("das-gan", [200, 230, 260], **OVERWHELMED)

    whole, first, second = fresh(), fresh(), fresh()
    to_the_end(whole)
    for _ in range(2):
        first.next_rung()
        first.save(tmp_path)
    assert second.restore(tmp_path)
    assert second.next_rung().verdicts == whole.history[-1].verdicts
    assert "for 60 steps" in whole.history[-1].verdicts[0]
    assert [second._observed(rung) for rung in first.history] == [first._observed(rung) for rung in first.history]


# What it says


def test_an_absurd_learning_rate_diverges_and_ends_the_run(new_run: NewRun) -> None:
    run = new_run("das-gan", [100, 200], loss="wasserstein", optimizer="sgd", g_lr=1.0, d_lr=1.0, init_std=0.5)
    assert to_the_end(run)[-1][0] == "diverged"
    assert run.history[-1].diverged is not None
    assert run.history[-1].scores == {}


def test_a_class_that_is_never_asked_for_is_missing_at_the_first_rung(new_run: NewRun) -> None:
    assert to_the_end(new_run("narman-cgan-no9", [13])) == [["missing-class"]]
    assert to_the_end(new_run("narman-cgan", [13])) == [[]]
    # A generator that sees no labels is asked for nothing.
    assert to_the_end(new_run("das-gan", [13], drawn_classes=9)) == [[]]


def test_a_critic_clipped_to_two_points_drifts(new_run: NewRun, hasty: None) -> None:
    crushed = {"loss": "wasserstein", "lipschitz": "clip", "clip_value": 1e-4, "d_lr": 1e-3}
    assert "critic-drift" in to_the_end(new_run("das-gan", [200, 250], **crushed))[-1]
    kinds = to_the_end(new_run("das-gan", [200, 250], **{**crushed, "clip_value": 10.0}))[-1]
    assert "critic-drift" not in kinds


def test_a_critic_that_ignores_its_penalty_drifts(new_run: NewRun, hasty: None) -> None:
    steep = {"loss": "wasserstein", "lipschitz": "penalty", "penalty_weight": 1e-4, "d_lr": 1e-2}
    run = new_run("das-gan", [200, 250], **steep)
    assert "critic-drift" in to_the_end(run)[-1]
    assert run.history[-1].losses["penalty_slope"] > monitor.PENALTY_SLOPES[1]


@pytest.mark.parametrize(
    ("settings", "kind"),
    [(OVERWHELMED, "over-confident-discriminator"), ({"g_lr": 2e-2}, "mode-collapse")],
    ids=["overwhelmed", "one image"],
)
def test_a_failure_is_told_when_the_run_is_old_enough(
    new_run: NewRun, hasty: None, settings: dict[str, Any], kind: str
) -> None:
    young, old, later = to_the_end(new_run("das-gan", [140, 200, 250], **settings))
    assert young == old == []
    assert kind in later


def test_the_collapse_of_monir_is_told_by_its_repeats_where_its_diversity_seems_sound(
    new_run: NewRun, hasty: None
) -> None:
    run = new_run("monir-dcgan-collapse", [200, 250], samples=200, **{"g_lr": 2e-2, "width": 0.125})
    assert "mode-collapse" in to_the_end(run)[-1]
    last = run.history[-1]
    assert last.repeats is not None
    assert last.repeats > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system_id", "settings", "kinds"),
    [
        ("narman-cgan", {}, set()),
        ("narman-dcgan", {}, set()),
        ("narman-dcgan-overconfident", {"g_lr": 1e-6}, {"over-confident-discriminator"}),
        ("das-gan", {"g_lr": 2e-2, "width": 0.1}, {"mode-collapse"}),
    ],
)
def test_networks_of_the_reference_fail_or_do_well_as_they_should(
    new_run: NewRun, system_id: str, settings: dict[str, Any], kinds: set[str]
) -> None:
    run = new_run(system_id, [500, 1000, 1500, 2000, 2500], samples=500, **{"width": 0.25, "batch": 16, **settings})
    found = {kind for rung in to_the_end(run) for kind in rung} - monitor.INFORMATIONAL
    assert found >= kinds if kinds else not found


@pytest.mark.parametrize(
    ("kids", "best", "kept"),
    [
        ([], 1, set()),
        ([5.0], 1, {1000}),
        ([5.0, 3.0, 4.0], 1, {2000}),
        ([5.0, 3.0, 2.0], 1, {2000, 3000}),
        ([3.0, 3.0, 3.0], 1, {1000}),
        ([5.0, 3.0, 2.0, 1.0], 2, {2000, 3000, 4000}),
    ],
)
def test_the_best_rungs_are_worth_keeping_and_those_the_last_one_may_yet_fall_behind(
    kids: list[float], best: int, kept: set[int]
) -> None:
    assert worth_keeping(made_up.history(*kids), "kid", best) == kept
    assert 9000 not in worth_keeping([*made_up.history(*kids), made_up.rung(9000, 0.0, diverged="nan")], "kid", best)
