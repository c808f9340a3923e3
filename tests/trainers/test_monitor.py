"""Each detector finds its failure, says why in numbers, and leaves a healthy run alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from trainers import monitor
from trainers.catalogue import SYSTEMS
from trainers.config import Config, overlay
from trainers.data.images import ImageData
from trainers.evaluation.scores import Score
from trainers.losses import d_loss
from trainers.monitor import Observation, inspect
from trainers.trainer import Trainer

CLASSES = 10
BATCH = 100
#: Images between rungs: 250 steps, so that three bad rungs in a row persist and two do not.
RUNG = 250 * BATCH
UNIFORM = (0.1,) * CLASSES
LOSSES = {
    "bce": {"loss_d": 1.2, "loss_g": 0.9, "d_real": 0.4, "d_fake": -0.4, "d_accuracy": 0.7},
    "wasserstein": {"loss_d": -3.0, "loss_g": 1.0, "d_real": 2.0, "d_fake": -1.0},
}
NORMS = {"grad_norm_g": 0.5, "grad_norm_d": 20.0, "clipped_share": 0.2, "penalty_slope": 1.0}


def _config(**settings: Any) -> Config:
    return overlay(Config(batch=BATCH), settings)


def _score(metric: str, value: float, stderr: float | None = None) -> Score:
    return Score(metric, value, stderr, 1000, "lenet-x", "mnist-x", 0)


def _healthy(loss: str = "bce", rungs: int = 12) -> list[Observation]:
    return [
        Observation(
            images=(index + 1) * RUNG,
            losses={**LOSSES[loss], **NORMS},
            scores={"kid": _score("kid", 0.01, 0.001), "fid": _score("fid", 20.0)},
            diversity=0.95,
            class_shares=UNIFORM,
            per_class_accuracy=(0.97,) * CLASSES,
            drawn_classes=tuple(range(CLASSES)),
        )
        for index in range(rungs)
    ]


def _with(seen: Observation, **changes: Any) -> Observation:
    """`seen` with other fields; the names of losses stand for themselves."""
    own = {field.name for field in fields(Observation)}
    losses = {name: value for name, value in changes.items() if name not in own}
    rest = {name: value for name, value in changes.items() if name in own}
    return replace(seen, losses={**seen.losses, **losses}, **rest)


def _ends(history: Sequence[Observation], count: int = 3, **changes: Any) -> list[Observation]:
    """`history` with `changes` to its last `count` rungs."""
    return [*history[:-count], *(_with(seen, **changes) for seen in history[-count:])]


def _fids(*values: float) -> list[Observation]:
    healthy = _healthy(rungs=len(values))
    return [replace(seen, scores={"fid": _score("fid", v)}) for seen, v in zip(healthy, values, strict=True)]


def _falling(change: float) -> list[Observation]:
    """15 rungs, from each to the next of which log FID falls by `change`."""
    return _fids(*(30 * math.exp(-change * index) for index in range(15)))


def _kids(*values: float, stderr: float) -> list[Observation]:
    healthy = _healthy(rungs=len(values))
    return [replace(seen, scores={"kid": _score("kid", v, stderr)}) for seen, v in zip(healthy, values, strict=True)]


def _gaps(*values: float) -> list[Observation]:
    healthy = _healthy("wasserstein", rungs=len(values))
    return [_with(seen, d_real=value, d_fake=0.0) for seen, value in zip(healthy, values, strict=True)]


def _kinds(history: Sequence[Observation], config: Config) -> list[str]:
    return [verdict.kind for verdict in inspect(history, config, CLASSES)]


def _one_of_ten(value: float | None, others: float) -> tuple[float | None, ...]:
    return (*(others,) * (CLASSES - 1), value)


BCE, SMOOTH = _config(), _config(smoothing="fixed", smoothing_strength=0.1)
TWO_SIDED = _config(smoothing="two-sided", smoothing_strength=0.1)
WASSERSTEIN = _config(loss="wasserstein")
CLIPPED = _config(loss="wasserstein", lipschitz="clip+spectral")
PENALISED = _config(loss="wasserstein", lipschitz="penalty")
W, CONFIDENT = "wasserstein", "over-confident-discriminator"

Changes = dict[str, Any]
#: Kind, configuration, changes to the last three rungs just beyond the threshold, and just before it.
PERSISTENT: dict[str, tuple[str, Config, Changes, Changes]] = {
    "samples alike": ("mode-collapse", BCE, {"diversity": 0.49}, {"diversity": 0.51}),
    "samples repeat": ("mode-collapse", BCE, {"repeats": 0.21}, {"repeats": 0.19}),
    # exp(entropy) is 7.99 and 8.04; no class is below 1 %.
    "few classes": (
        "mode-collapse",
        BCE,
        {"class_shares": (0.013,) * 3 + (0.961 / 7,) * 7},
        {"class_shares": (0.014,) * 3 + (0.958 / 7,) * 7},
    ),
    "a class gone": (
        "mode-collapse",
        BCE,
        {"class_shares": _one_of_ten(0.009, 0.991 / 9)},
        {"class_shares": _one_of_ten(0.011, 0.989 / 9)},
    ),
    # The sigmoid of -3.9 is 0.0198, that of -2 is 0.1192.
    "D is right": (CONFIDENT, BCE, {"d_accuracy": 0.981, "d_fake": -3.9}, {"d_accuracy": 0.979, "d_fake": -3.9}),
    "D is sure": (CONFIDENT, BCE, {"d_accuracy": 0.981, "d_fake": -3.9}, {"d_accuracy": 0.981, "d_fake": -3.88}),
    "two-sided": (CONFIDENT, TWO_SIDED, {"d_accuracy": 1.0, "d_fake": -2.0}, {"d_accuracy": 1.0, "d_fake": -1.98}),
    "D loss at 0": (CONFIDENT, BCE, {"loss_d": 0.049}, {"loss_d": 0.051}),
    "D loss at a smoothed floor": (CONFIDENT, SMOOTH, {"loss_d": 0.3251 + 0.049}, {"loss_d": 0.3251 + 0.051}),
    "G loss beyond a log guard": (CONFIDENT, BCE, {"loss_g": 16.0}, {"loss_g": 15.9}),
    "no gradient": (
        "vanishing-gradients",
        BCE,
        {"grad_norm_g": 0.9e-6, "grad_norm_d": 1e-6},
        {"grad_norm_g": 1.1e-6, "grad_norm_d": 1e-6},
    ),
    "D takes the gradient": ("vanishing-gradients", BCE, {"grad_norm_g": 0.019}, {"grad_norm_g": 0.021}),
    "100 times G's median": ("exploding-gradients", BCE, {"grad_norm_g": 51.0}, {"grad_norm_g": 49.0}),
    "huge gradient of D": (
        "exploding-gradients",
        BCE,
        {"grad_norm_d": 1001.0, "grad_norm_g": 2.0},
        {"grad_norm_d": 999.0, "grad_norm_g": 2.0},
    ),
    "clipped to two points": ("critic-drift", CLIPPED, {"clipped_share": 0.51}, {"clipped_share": 0.49}),
    "the critic is flat": ("critic-drift", PENALISED, {"penalty_slope": 0.49}, {"penalty_slope": 0.51}),
    "the critic is steep": ("critic-drift", PENALISED, {"penalty_slope": 2.01}, {"penalty_slope": 1.99}),
    "label 9 is not learnt": (
        "missing-class",
        BCE,
        {"per_class_accuracy": _one_of_ten(0.49, 0.97)},
        {"per_class_accuracy": _one_of_ten(0.51, 0.97)},
    ),
}

#: As above with whole histories, for what is not told from three rungs in turn.
TABLE: dict[str, tuple[str, Config, list[Observation], list[Observation]]] = {
    "the critic swings": ("critic-drift", WASSERSTEIN, _gaps(-4, 5, -4, 5, 6.4), _gaps(-4, 5, -4, 5, 7.2)),
    "label 9 is never drawn": ("missing-class", BCE, _ends(_healthy(), 1, drawn_classes=tuple(range(9))), _healthy()),
    "FID rises": ("late-decay", BCE, _fids(20, 10, 11.1, 11.1, 11.1), _fids(20, 10, 11.1, 10.9, 11.1)),
    # Two combined standard errors are 0.00283.
    "KID leaves its noise": (
        "late-decay",
        BCE,
        _kids(0.02, -0.001, 0.0020, 0.0020, 0.0020, stderr=0.001),
        _kids(0.02, -0.001, 0.0018, 0.0018, 0.0018, stderr=0.001),
    ),
    # Over the last fifth, from rung 12 to 15, the line falls by three times this change.
    "FID still falls": ("under-trained", BCE, _falling(0.0068), _falling(0.0065)),
} | {
    name: (kind, config, _ends(_healthy(config.loss), **failing), _ends(_healthy(config.loss), **sound))
    for name, (kind, config, failing, sound) in PERSISTENT.items()
}


@pytest.mark.parametrize(("kind", "config", "failing", "sound"), TABLE.values(), ids=TABLE)
def test_a_detector_fires_beyond_its_threshold_and_not_before(
    kind: str, config: Config, failing: list[Observation], sound: list[Observation]
) -> None:
    assert _kinds(failing, config) == [kind]
    assert _kinds(sound, config) == []


@pytest.mark.parametrize("config", [BCE, SMOOTH, TWO_SIDED, WASSERSTEIN, CLIPPED, PENALISED])
def test_a_healthy_run_has_no_verdict_at_any_rung(config: Config) -> None:
    history = _healthy(config.loss)
    assert [_kinds(history[:end], config) for end in range(len(history) + 1)] == [[]] * 13


def test_every_detector_is_in_the_table() -> None:
    assert set(monitor.KINDS) == {kind for kind, *_ in TABLE.values()} | {"diverged"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("config", [BCE, WASSERSTEIN], ids=["bce", "wasserstein"])
def test_one_loss_that_is_not_finite_is_divergence_and_named(value: float, config: Config) -> None:
    history = _ends(_healthy(config.loss), 1, loss_g=value)
    (verdict,) = inspect(history, config, CLASSES)
    assert verdict.kind == "diverged"
    assert verdict.evidence == f"loss_g is {value} after {12 * RUNG} images"


def test_a_score_that_is_not_finite_is_divergence() -> None:
    assert _kinds(_fids(20, math.nan), BCE) == ["diverged"]


@pytest.mark.parametrize("name", PERSISTENT)
def test_a_failure_must_persist_for_500_steps_up_to_the_last_rung(name: str) -> None:
    kind, config, failing, _ = TABLE[name]
    assert _kinds(failing, config) == [kind]
    healthy = _healthy(config.loss)
    assert _kinds([*healthy[:-2], *failing[-2:]], config) == []
    assert _kinds([*failing[:-1], healthy[-1]], config) == []
    assert _kinds([*failing[:-2], healthy[-2], failing[-1]], config) == []


def test_classes_that_a_run_has_never_had_are_yet_to_be_learnt_not_lost() -> None:
    few = {"class_shares": (0.5, 0.5, *(0.0,) * 8)}
    assert _kinds(_ends(_healthy(), 12, **few), BCE) == []
    assert _kinds(_ends(_healthy(), 11, **few), BCE) == ["mode-collapse"]


@pytest.mark.parametrize("name", PERSISTENT)
def test_a_young_run_is_not_judged_by_levels(name: str) -> None:
    kind, config, changes, _ = PERSISTENT[name]
    assert _kinds(_ends(_healthy(config.loss, rungs=9), **changes), config) == []
    assert _kinds(_ends(_healthy(config.loss, rungs=10), **changes), config) == [kind]


def test_persistence_counts_generator_steps_not_images() -> None:
    history = _ends(_healthy(), diversity=0.1)
    assert _kinds(history, BCE) == ["mode-collapse"]
    assert _kinds(history, _config(batch=BATCH + 1)) == []


@pytest.mark.parametrize("name", TABLE)
def test_without_its_numbers_a_detector_is_silent(name: str) -> None:
    _, config, failing, _ = TABLE[name]
    assert _kinds([Observation(seen.images) for seen in failing], config) == []


def test_no_history_has_no_verdict() -> None:
    assert inspect([], BCE, CLASSES) == []


@pytest.mark.parametrize("loss", ["wasserstein", "hinge", "least-squares"])
def test_the_level_of_the_loss_means_nothing_without_cross_entropy(loss: str) -> None:
    history = _ends(_healthy(), loss_d=0.0, loss_g=30.0, d_accuracy=1.0, d_fake=-9.0)
    assert _kinds(history, _config(loss=loss)) == []
    assert _kinds(history, BCE) == ["over-confident-discriminator"]


def test_a_saturating_generators_loss_is_not_held_against_a_log_guard() -> None:
    assert _kinds(_ends(_healthy(), loss_g=27.6), _config(saturating=True)) == []


def test_a_clipped_share_counts_under_clipping_alone_and_a_slope_under_a_penalty_alone() -> None:
    assert _kinds(_ends(_healthy(W), clipped_share=0.9), PENALISED) == []
    assert _kinds(_ends(_healthy(W), penalty_slope=9.0), CLIPPED) == []


def test_the_critics_swing_needs_five_rungs_over_1000_steps() -> None:
    gaps = _gaps(-4, 5, -4, 5, -1)
    assert _kinds(gaps[1:], WASSERSTEIN) == []
    assert _kinds(gaps, overlay(WASSERSTEIN, {"batch": BATCH + 1})) == []
    assert _kinds(gaps, _config(loss="hinge")) == []


def test_classes_missing_from_few_draws_are_chance() -> None:
    few = [Observation(99, drawn_classes=(0, 1))]
    assert _kinds(few, BCE) == []
    assert _kinds([replace(few[0], images=100)], BCE) == ["missing-class"]


def test_a_run_in_which_most_classes_are_not_learnt_yet_misses_none() -> None:
    assert _kinds(_ends(_healthy(), per_class_accuracy=(0.9,) * 4 + (0.3,) * 6), BCE) == []
    assert _kinds(_ends(_healthy(), per_class_accuracy=_one_of_ten(0.4, 0.79)), BCE) == []
    assert _kinds(_ends(_healthy(), per_class_accuracy=_one_of_ten(0.4, 0.81)), BCE) == ["missing-class"]


def test_a_class_that_nobody_asked_for_has_no_accuracy() -> None:
    assert _kinds(_ends(_healthy(), per_class_accuracy=_one_of_ten(None, 0.97)), BCE) == []
    evidence = inspect(_ends(_healthy(), per_class_accuracy=(None, 0.2, *(0.9,) * 8)), BCE, CLASSES)[0].evidence
    assert evidence == "accuracy of class 1 is 0.2 < 0.5, for 500 steps"


def test_decay_is_told_by_the_first_metric_and_in_its_direction() -> None:
    def history(*values: float) -> list[Observation]:
        healthy = _healthy(rungs=len(values))
        rising = {"fid": _score("fid", 50.0)}
        pairs = zip(healthy, values, strict=True)
        return [replace(seen, scores={"is": _score("is", v, 0.1), **rising}) for seen, v in pairs]

    assert _kinds(history(5, 9, 8, 8, 8), BCE) == ["late-decay"]
    assert _kinds(history(5, 9, 8.2, 8.2, 8.2), BCE) == []
    assert _kinds(history(5, 6, 7, 8, 9), BCE) == []


def test_decay_within_a_tenth_is_none_however_sure() -> None:
    assert _kinds(_kids(0.02, 0.010, 0.0109, 0.0109, 0.0109, stderr=1e-6), BCE) == []
    assert _kinds(_kids(0.02, 0.010, 0.0111, 0.0111, 0.0111, stderr=1e-6), BCE) == ["late-decay"]


def test_under_training_is_for_information() -> None:
    assert set(monitor.KINDS) - set(monitor.STOPPING) == monitor.INFORMATIONAL == {"under-trained"}


def test_two_evaluations_or_a_fid_of_zero_have_no_slope() -> None:
    assert _kinds(_fids(*range(30, 25, -1)), BCE) == []
    assert _kinds(_fids(*range(14, -1, -1)), BCE) == []


FLOORS = [("none", 0.1, 0.0), ("fixed", 0.1, 0.3251), ("fixed", 0.05, 0.1985), ("random", 0.05, 0.1169)]


@pytest.mark.parametrize(("smoothing", "strength", "floor"), FLOORS)
def test_the_floor_of_the_real_half_is_the_published_one(smoothing: str, strength: float, floor: float) -> None:
    config = _config(smoothing=smoothing, smoothing_strength=strength)
    real, fake = monitor.bce_floor(config)
    assert real == pytest.approx(floor, abs=5e-5)
    assert fake == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"smoothing": "fixed"},
        {"smoothing": "random", "smoothing_strength": 0.3},
        {"smoothing": "two-sided"},
        {"label_flip": 0.2},
        {"smoothing": "random", "label_flip": 0.1},
    ],
    ids=str,
)
def test_the_floor_is_the_lowest_loss_over_all_logits(settings: dict[str, Any]) -> None:
    config = _config(**settings)

    def loss(real: float, fake: float) -> float:
        torch.manual_seed(0)
        return d_loss(torch.full((20_000,), real), torch.full((20_000,), fake), config).item()

    # The two halves depend on one logit each, so they are minimised in turn.
    logits = [-40.0, *(step / 10 for step in range(-60, 61)), 40.0]
    best_real = min(logits, key=lambda logit: loss(logit, 0.0))
    lowest = min(loss(best_real, logit) for logit in logits)
    assert lowest == pytest.approx(sum(monitor.bce_floor(config)), abs=0.01)


def _train(data: ImageData, steps: Sequence[int], **settings: Any) -> tuple[list[Observation], Config]:
    few = replace(data, images=data.images[:300], labels=data.labels[:300])
    system = SYSTEMS["narman-cgan"]
    config = overlay(system.defaults, {"width": 0.25, "batch": 8, "threads": 1, **settings})
    trainer, history = Trainer(system, config, few), []
    for step in steps:
        losses = trainer.advance(step * config.batch)
        images, labels = trainer.sample(monitor.COMPARED, seed=0)
        diversity = monitor.diversity(images, few.images, (labels, few.labels))
        history.append(Observation(trainer.images, losses, diversity=diversity))
    return history, config


def test_a_small_run_at_default_settings_has_no_verdict(
    mnist_mini: tuple[ImageData, ImageData], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "WARMUP_STEPS", 0)
    history, config = _train(mnist_mini[0], (50, 300, 560))
    assert [_kinds(history[:end], config) for end in (1, 2, 3)] == [[], [], []]
    first, *later = [seen.diversity or 0.0 for seen in history]
    # The first samples are alike in sound runs too, which is why a collapse must persist.
    assert first < monitor.DIVERSITY < min(later)


@pytest.mark.slow
def test_a_learning_rate_of_one_makes_an_over_confident_discriminator(
    mnist_mini: tuple[ImageData, ImageData], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "WARMUP_STEPS", 0)
    history, config = _train(mnist_mini[0], (50, 300, 560), g_lr=1.0, d_lr=1.0)
    # What becomes of the samples differs between seeds: mostly one image for each class.
    assert "over-confident-discriminator" in _kinds(history, config)
