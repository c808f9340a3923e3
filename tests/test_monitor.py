"""Each detector finds its failure, says why in numbers, and leaves a healthy run alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from trainers import SYSTEMS, monitor
from trainers.config import Config, overlay
from trainers.data import ImageData
from trainers.evaluation.scores import Score
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
NORMS = {"grad_norm_g": 0.5, "grad_norm_d": 2.0, "clipped_share": 0.2, "penalty_slope": 1.0}


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


def _kids(*values: float, stderr: float) -> list[Observation]:
    healthy = _healthy(rungs=len(values))
    return [replace(seen, scores={"kid": _score("kid", v, stderr)}) for seen, v in zip(healthy, values, strict=True)]


def _gaps(*values: float) -> list[Observation]:
    healthy = _healthy("wasserstein", rungs=len(values))
    return [_with(seen, d_real=value, d_fake=0.0) for seen, value in zip(healthy, values, strict=True)]


def _kinds(history: Sequence[Observation], config: Config) -> list[str]:
    return [verdict.kind for verdict in inspect(history, config, CLASSES)]


def _one_of_ten(value: float, others: float) -> tuple[float, ...]:
    return (*(others,) * (CLASSES - 1), value)


BCE, SMOOTH = _config(), _config(smoothing="fixed", smoothing_strength=0.1)
TWO_SIDED = _config(smoothing="two-sided", smoothing_strength=0.1)
WASSERSTEIN = _config(loss="wasserstein")
CLIPPED = _config(loss="wasserstein", lipschitz="clip+spectral")
PENALISED = _config(loss="wasserstein", lipschitz="penalty")
W = "wasserstein"

#: Kind, configuration, a history just beyond the threshold, one just before it.
TABLE: dict[str, tuple[str, Config, list[Observation], list[Observation]]] = {
    "samples alike": ("mode-collapse", BCE, _ends(_healthy(), diversity=0.49), _ends(_healthy(), diversity=0.51)),
    "few classes": (
        "mode-collapse",
        BCE,
        # exp(entropy) is 7.98 and 8.07; no class is below 1 %.
        _ends(_healthy(), class_shares=(0.02,) * 3 + (0.94 / 7,) * 7),
        _ends(_healthy(), class_shares=(0.0213,) * 3 + (0.9361 / 7,) * 7),
    ),
    "a class gone": (
        "mode-collapse",
        BCE,
        _ends(_healthy(), class_shares=_one_of_ten(0.009, 0.991 / 9)),
        _ends(_healthy(), class_shares=_one_of_ten(0.011, 0.989 / 9)),
    ),
    "D always right": (
        "over-confident-discriminator",
        BCE,
        _ends(_healthy(), d_accuracy=0.981, d_fake=-3.9),  # sigmoid(-3.9) is 0.0198
        _ends(_healthy(), d_accuracy=0.981, d_fake=-3.88),
    ),
    "D right but not sure": (
        "over-confident-discriminator",
        BCE,
        _ends(_healthy(), d_accuracy=0.981, d_fake=-3.9),
        _ends(_healthy(), d_accuracy=0.979, d_fake=-9.0),
    ),
    "D always right, two-sided": (
        "over-confident-discriminator",
        TWO_SIDED,
        _ends(_healthy(), d_accuracy=0.99, d_fake=-2.0),  # 0.1192 < 0.1 + 0.02
        _ends(_healthy(), d_accuracy=0.99, d_fake=-1.98),
    ),
    "D loss at 0": (
        "over-confident-discriminator",
        BCE,
        _ends(_healthy(), loss_d=0.049),
        _ends(_healthy(), loss_d=0.051),
    ),
    "D loss at its smoothed floor": (
        "over-confident-discriminator",
        SMOOTH,
        _ends(_healthy(), loss_d=0.3251 + 0.049),
        _ends(_healthy(), loss_d=0.3251 + 0.051),
    ),
    "G loss beyond a log guard": (
        "over-confident-discriminator",
        BCE,
        _ends(_healthy(), loss_g=27.6),
        _ends(_healthy(), loss_g=15.9),
    ),
    "no gradient": (
        "vanishing-gradients",
        BCE,
        _ends(_healthy(), grad_norm_g=0.9e-6, grad_norm_d=1e-6),
        _ends(_healthy(), grad_norm_g=1.1e-6, grad_norm_d=1e-6),
    ),
    "D takes all the gradient": (
        "vanishing-gradients",
        BCE,
        _ends(_healthy(), grad_norm_g=0.9e-3, grad_norm_d=1.0),
        _ends(_healthy(), grad_norm_g=1.1e-3, grad_norm_d=1.0),
    ),
    "huge gradient of D": (
        "exploding-gradients",
        BCE,
        _ends(_healthy(), 12, grad_norm_d=1001.0, grad_norm_g=20.0),
        _ends(_healthy(), 12, grad_norm_d=999.0, grad_norm_g=20.0),
    ),
    "a hundred times G's usual gradient": (
        "exploding-gradients",
        BCE,
        _ends(_healthy(), grad_norm_g=51.0),
        _ends(_healthy(), grad_norm_g=49.0),
    ),
    "the critic swings": ("critic-drift", WASSERSTEIN, _gaps(-4, 5, -4, 5, -1), _gaps(1, 5, 1, 5, 1)),
    "clipped to two points": (
        "critic-drift",
        CLIPPED,
        _ends(_healthy(W), clipped_share=0.51),
        _ends(_healthy(W), clipped_share=0.49),
    ),
    "the critic is flat": (
        "critic-drift",
        PENALISED,
        _ends(_healthy(W), penalty_slope=0.49),
        _ends(_healthy(W), penalty_slope=0.51),
    ),
    "the critic is steep": (
        "critic-drift",
        PENALISED,
        _ends(_healthy(W), penalty_slope=2.01),
        _ends(_healthy(W), penalty_slope=1.99),
    ),
    "label 9 is never drawn": (
        "missing-class",
        BCE,
        _ends(_healthy(), 1, drawn_classes=tuple(range(9))),
        _ends(_healthy(), 1, drawn_classes=tuple(range(10))),
    ),
    "label 9 is not learnt": (
        "missing-class",
        BCE,
        _ends(_healthy(), per_class_accuracy=_one_of_ten(0.49, 0.97)),
        _ends(_healthy(), per_class_accuracy=_one_of_ten(0.51, 0.97)),
    ),
    "FID rises": ("late-decay", BCE, _fids(20, 10, 11.1, 11.1, 11.1), _fids(20, 10, 11.1, 10.9, 11.1)),
    "KID leaves its noise": (
        "late-decay",
        BCE,
        _kids(0.02, -0.001, 0.0020, 0.0020, 0.0020, stderr=0.001),  # 2 combined errors are 0.00283
        _kids(0.02, -0.001, 0.0018, 0.0018, 0.0018, stderr=0.001),
    ),
    # Over the last fifth, rungs 12 to 15, the line falls by 3 times the rung's change.
    "FID still falls": (
        "under-trained",
        BCE,
        _fids(*(30 * math.exp(-0.0068 * index) for index in range(15))),
        _fids(*(30 * math.exp(-0.0065 * index) for index in range(15))),
    ),
}


@pytest.mark.parametrize(("kind", "config", "failing", "sound"), TABLE.values(), ids=TABLE)
def test_a_detector_fires_beyond_its_threshold_and_not_before(
    kind: str, config: Config, failing: list[Observation], sound: list[Observation]
) -> None:
    assert _kinds(failing, config) == [kind]
    assert _kinds(sound, config) == []


@pytest.mark.parametrize("config", [BCE, SMOOTH, TWO_SIDED], ids=["none", "fixed", "two-sided"])
def test_a_healthy_run_has_no_verdict_at_any_rung(config: Config) -> None:
    history = _healthy()
    assert [_kinds(history[:end], config) for end in range(len(history) + 1)] == [[]] * 13


@pytest.mark.parametrize("config", [WASSERSTEIN, CLIPPED, PENALISED], ids=["free", "clipped", "penalised"])
def test_a_healthy_critic_has_no_verdict(config: Config) -> None:
    assert _kinds(_healthy(W), config) == []


def test_every_detector_is_in_the_table() -> None:
    assert len(monitor.DETECTORS) == len({kind for kind, *_ in TABLE.values()} | {"diverged"})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("config", [BCE, WASSERSTEIN], ids=["bce", "wasserstein"])
def test_one_loss_that_is_not_finite_is_divergence_and_named(value: float, config: Config) -> None:
    history = _ends(_healthy(config.loss), 1, loss_g=value)
    (verdict,) = inspect(history, config, CLASSES)
    assert verdict.kind == "diverged"
    assert verdict.evidence == f"loss_g is {value} after {12 * RUNG} images"


def test_a_score_that_is_not_finite_is_divergence() -> None:
    assert _kinds(_fids(20, math.nan), BCE) == ["diverged"]


def _persistent(row: tuple[str, Config, list[Observation], list[Observation]]) -> bool:
    """Whether the row's failure is told from rungs in turn rather than from one rung or from the scores."""
    kind, _, failing, _ = row
    return kind not in ("late-decay", "under-trained") and failing[-1].drawn_classes == tuple(range(CLASSES))


PERSISTENT = {name: row for name, row in TABLE.items() if _persistent(row) and name != "the critic swings"}


@pytest.mark.parametrize(("kind", "config", "failing", "sound"), PERSISTENT.values(), ids=PERSISTENT)
def test_a_failure_must_persist_for_500_steps_up_to_the_last_rung(
    kind: str, config: Config, failing: list[Observation], sound: list[Observation]
) -> None:
    healthy = _healthy(config.loss)
    assert _kinds([*healthy[:-2], *failing[-2:]], config) == []
    assert _kinds([*failing[:-1], healthy[-1]], config) == []
    assert _kinds([*failing[:-2], healthy[-2], failing[-1]], config) == []
    assert kind in _kinds([*healthy[:-3], *failing[-3:]], config)


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


@pytest.mark.parametrize("config", [WASSERSTEIN, PENALISED], ids=["free", "penalised"])
def test_a_clipped_share_counts_only_under_clipping(config: Config) -> None:
    assert _kinds(_ends(_healthy(W), clipped_share=0.9), config) == []


def test_a_slope_counts_only_under_a_penalty() -> None:
    assert _kinds(_ends(_healthy(W), penalty_slope=9.0), CLIPPED) == []


def test_the_critics_swing_needs_five_rungs_over_1000_steps() -> None:
    gaps = _gaps(-4, 5, -4, 5, -1)
    assert _kinds(gaps[1:], WASSERSTEIN) == []
    assert _kinds(gaps, overlay(WASSERSTEIN, {"batch": BATCH + 1})) == []
    assert _kinds(gaps, BCE) == []


def test_classes_missing_from_few_draws_are_chance() -> None:
    few = [Observation(99, drawn_classes=(0, 1))]
    assert _kinds(few, BCE) == []
    assert _kinds([replace(few[0], images=100)], BCE) == ["missing-class"]


def test_a_run_in_which_most_classes_are_not_learnt_yet_misses_none() -> None:
    assert _kinds(_ends(_healthy(), per_class_accuracy=(0.9,) * 4 + (0.3,) * 6), BCE) == []


def test_a_class_that_nobody_asked_for_has_no_accuracy() -> None:
    assert _kinds(_ends(_healthy(), per_class_accuracy=_one_of_ten(math.nan, 0.97)), BCE) == []
    evidence = inspect(_ends(_healthy(), per_class_accuracy=(math.nan, 0.2, *(0.9,) * 8)), BCE, CLASSES)[0].evidence
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
    assert {kind for kind, *_ in TABLE.values()} > monitor.INFORMATIONAL == {"under-trained"}


def test_two_evaluations_or_a_fid_of_zero_have_no_slope() -> None:
    assert _kinds(_fids(*range(30, 25, -1)), BCE) == []
    assert _kinds(_fids(*range(14, -1, -1)), BCE) == []


FLOORS = [("none", 0.1, 0.0), ("fixed", 0.1, 0.3251), ("fixed", 0.05, 0.1985), ("random", 0.05, 0.1169)]


@pytest.mark.parametrize(("smoothing", "strength", "floor"), FLOORS)
def test_the_floor_of_the_real_half_is_the_published_one(smoothing: str, strength: float, floor: float) -> None:
    config = _config(smoothing=smoothing, smoothing_strength=strength)
    assert monitor.bce_floor(config) == (pytest.approx(floor, abs=5e-5), 0.0)


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
def test_the_best_constant_discriminator_reaches_the_floor_and_none_goes_below(settings: dict[str, Any]) -> None:
    from trainers.losses import d_loss

    config = _config(**settings)
    torch.manual_seed(0)
    logits = torch.linspace(-6, 6, 61, dtype=torch.float64)
    count = 20_000

    def mean_loss(real: float, fake: float) -> float:
        return d_loss(torch.full((count,), real), torch.full((count,), fake), config).item()

    far = -30.0  # here the generated half is at its floor without two-sided smoothing
    on_real = [mean_loss(logit, far) for logit in logits.tolist()]
    on_fake = [mean_loss(30.0, logit) for logit in logits.tolist()]
    offset = mean_loss(30.0, far)
    real, fake = monitor.bce_floor(config)
    # What one half adds is known up to what the other adds at its fixed logit.
    lowest = min(on_real) + min(on_fake) - offset
    assert lowest == pytest.approx(real + fake, abs=0.3)


def _noise(count: int, seed: int, channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, channels, 6, 6), generator=generator, dtype=torch.uint8)


def test_the_mean_distance_is_that_of_all_pairs_of_the_first_64() -> None:
    images = _noise(70, 0, channels=3)
    pixels = images[:64].double() / 127.5 - 1
    pairs = [float((pixels[i] - pixels[j]).square().sum().sqrt()) for i in range(64) for j in range(i)]
    assert monitor.mean_distance(images).item() == pytest.approx(math.fsum(pairs) / len(pairs), rel=1e-12)


def test_diversity_is_one_for_the_real_images_and_exactly_zero_for_one_image() -> None:
    real = _noise(80, 0)
    assert monitor.diversity(real, real) == 1
    assert monitor.diversity(real[:1].expand(80, -1, -1, -1), real) == 0
    half = (real[:64].double() / 2).round().to(torch.uint8)
    assert monitor.diversity(half, real) == pytest.approx(0.5, rel=0.02)


def test_only_diversity_within_classes_tells_one_image_per_class() -> None:
    real, labels = _noise(80, 0), torch.arange(80) % 10
    repeated = real[:10].repeat(8, 1, 1, 1)
    alone, within = monitor.diversity(repeated, real), monitor.diversity(repeated, real, (labels, labels))
    assert alone is not None
    assert alone > 0.8
    assert within == 0


def test_diversity_is_unknown_without_pairs_or_with_equal_real_images() -> None:
    real, all_unlike = _noise(20, 0), torch.arange(20)
    assert monitor.diversity(real, real, (all_unlike, all_unlike)) is None
    assert monitor.diversity(real, torch.zeros_like(real)) is None


def test_shares_and_accuracies_of_classes_are_those_of_the_decisions() -> None:
    logits = torch.tensor([[3.0, 0, 0], [0, 2, 1], [0, 2, 1], [1, 0, -1]])
    assert monitor.class_shares(logits) == (0.5, 0.5, 0.0)
    accuracies = monitor.per_class_accuracy(logits, torch.tensor([0, 1, 0, 0]))
    assert accuracies[:2] == (pytest.approx(2 / 3), 1.0)
    assert math.isnan(accuracies[2])


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


def test_a_small_run_at_default_settings_has_no_verdict(mnist_mini: tuple[ImageData, ImageData]) -> None:
    history, config = _train(mnist_mini[0], (50, 300, 560))
    assert history[-1].diversity is not None
    assert [_kinds(history[:end], config) for end in (1, 2, 3)] == [[], [], []]


def test_a_learning_rate_of_one_collapses_under_an_over_confident_discriminator(
    mnist_mini: tuple[ImageData, ImageData],
) -> None:
    history, config = _train(mnist_mini[0], (50, 300, 560), g_lr=1.0, d_lr=1.0)
    assert _kinds(history, config) == ["over-confident-discriminator", "mode-collapse"]
    assert history[-1].diversity == 0
