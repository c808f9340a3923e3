"""Detects failures of a run from the numbers that its rungs record.

Every detector is a pure function of the rungs so far. It reports nothing if a number that it needs is missing.

The thresholds come from the failure table of the reference systems (the reports are named in brackets) and may need
tuning. That table asks for moving averages and for 500 steps of persistence. A rung holds means over the steps since
the previous rung, or measurements of one set of samples, so persistence is counted between rungs: from the first of
consecutive bad rungs to the last. One bad rung is enough for only two failures: losses that are not finite, and classes
that are never drawn.

The levels of a young run are not judged. In a run of narman-dcgan at a quarter of its width, which succeeds later, all
samples are alike for the first 800 steps, D is right on 98 % of the images for 600, and a classifier finds fewer than 8
classes for 1,600.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, linear_regression, median, stdev

import torch
from torch import Tensor

from trainers.config import Config
from trainers.evaluation.scores import METRICS, Score
from trainers.losses import fake_target

#: Verdicts that never stop a run.
INFORMATIONAL: frozenset[str] = frozenset({"under-trained"})
#: Generator steps from the first to the last of the consecutive bad rungs.
PERSISTENCE_STEPS = 500
#: Generator steps until which a run counts as young.
WARMUP_STEPS = 2000
#: Mode collapse [monir-2019, narman-2019]: distance between samples divided by that between real images.
DIVERSITY = 0.5
#: exp(entropy) of the classes of the samples, divided by the number of classes: 8 of 10.
EFFECTIVE_CLASSES = 0.8
#: Share of the rarest class divided by its fair share 1 / classes: 1 % with 10 classes.
RAREST_CLASS = 0.1
#: Images per class that are needed to judge shares and accuracies of classes.
SAMPLES_PER_CLASS = 10
#: Largest factor between a balanced class and its fair share; exp(entropy) is then at least 0.92 per class.
BALANCE = 1.5
#: Images that `diversity` compares, and those that `repeats` compares.
COMPARED = 64
REPEATS_COMPARED = 256
#: Few images that repeat [monir-2019]: share of samples nearer to another one than this quantile of real images.
REPEATED = 0.2
REAL_QUANTILE = 0.01
#: Over-confident discriminator [narman-2019, hamed-2019], under bce.
D_ACCURACY = 0.98
D_OF_FAKE = 0.02
D_LOSS_ABOVE_FLOOR = 0.05
#: -log D(G(z)) at D(G(z)) = 1e-7, where code with a guarded logarithm stops. Losses on logits are unbounded.
G_LOSS_PINNED = 15.94
#: Vanishing gradients [monir-2019, toh-2024, hamed-2019]: norm of G's gradient, and its ratio to that of D.
VANISHED_NORM = 1e-6
VANISHED_RATIO = 1e-3
#: Exploding gradients [monir-2019, hamed-2019]: norm of a gradient, and its ratio to the median over the run.
EXPLODED_NORM = 1e3
EXPLODED_RATIO = 100.0
#: Wasserstein critic [hamed-2019]: deviation of E D(x) - E D(G(z)) divided by its mean, over means of rungs.
DRIFT_RATIO = 3.0
DRIFT_STEPS = 1000
DRIFT_RUNGS = 5
#: Share of the clipped parameters that lie on the clipping bound.
CLIPPED_SHARE = 0.5
#: Bounds of the critic's mean slope under a gradient penalty, whose target is 1.
PENALTY_SLOPES = (0.5, 2.0)
#: Missing class [narman-2019]: 0.9 ** 100, the probability that 100 draws of 10 classes miss a given class.
ABSENT_BY_CHANCE = 2.7e-5
CLASS_ACCURACY = 0.5
#: Median accuracy from which on single classes are judged: below it, classes of natural images differ widely.
CLASSES_LEARNT = 0.8
#: Late decay [toh-2024]: share of the best score and number of standard errors by which consecutive scores are worse.
DECAY_SHARE = 0.1
DECAY_ERRORS = 2.0
DECAY_EVALUATIONS = 3
#: Too short a run [hamed-2019, monir-2019]: change of log FID along a line fitted to the last part of the run.
LAST_PART = 0.2
LOG_FID_FALL = -0.02


@dataclass(frozen=True)
class Verdict:
    """A detected failure."""

    kind: str
    """A key of DETECTORS."""
    evidence: str
    """One sentence with the numbers and the threshold."""


@dataclass(frozen=True)
class Observation:
    """The measurements of one rung; what was not measured is None or absent."""

    images: int
    """Images shown to the generator so far."""
    losses: Mapping[str, float] = field(default_factory=dict)
    """Means since the previous rung: loss_d, loss_g, d_real and d_fake (logits), d_accuracy (share of images on the
    right side of logit 0), grad_norm_g, grad_norm_d, penalty_slope (norm of the critic's gradient at the penalised
    points); and clipped_share at the rung. Other entries are only checked to be finite."""
    scores: Mapping[str, Score] = field(default_factory=dict)
    """By metric; late decay is judged by the first one."""
    diversity: float | None = None
    """Result of the function `diversity`."""
    repeats: float | None = None
    """Result of the function `repeats`."""
    class_shares: tuple[float, ...] | None = None
    """Shares of the classes among the samples. None if they need not be equal (see `balanced`), or if there are fewer
    than SAMPLES_PER_CLASS samples per class."""
    per_class_accuracy: tuple[float | None, ...] | None = None
    """Accuracy of the samples generated for each class, None for a class without samples. Conditional generators only;
    None if there are fewer than SAMPLES_PER_CLASS samples per class."""
    drawn_classes: tuple[int, ...] | None = None
    """Classes that may be drawn for the generator since the previous rung; conditional generators only."""


Complaint = Callable[[Observation], str | None]
Detector = Callable[[Sequence[Observation], Config, int], str | None]


def inspect(history: Sequence[Observation], config: Config, classes: int) -> list[Verdict]:
    """The failures of a run at the last rung of `history`, in the order of DETECTORS; `classes` of the data."""
    found = {kind: detector(history, config, classes) for kind, detector in DETECTORS.items()} if history else {}
    return [Verdict(kind, evidence) for kind, evidence in found.items() if evidence is not None]


def diverged(history: Sequence[Observation], config: Config, classes: int) -> str | None:
    """A loss or score that is not finite."""
    last = history[-1]
    values = {**last.losses, **{name: score.value for name, score in last.scores.items()}}
    bad = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    return f"{', '.join(bad)} after {last.images} images" if bad else None


def mode_collapse(history: Sequence[Observation], config: Config, classes: int) -> str | None:
    """Samples that are too similar, or that lack classes.

    Lacking classes count only if an earlier rung had all classes: as long as samples look like noise, the classes that
    a classifier assigns to them say nothing. (Measured on monir-dcgan at an eighth of its width, on shapes32: 2 of 10
    classes after 3,000 good steps.)
    """

    def lacking(seen: Observation) -> str | None:
        shares = seen.class_shares
        effective, rarest = (math.exp(_entropy(shares)), min(shares)) if shares else (None, None)
        return _below("effective number of classes", effective, EFFECTIVE_CLASSES * classes) or _below(
            "share of the rarest class", rarest, RAREST_CLASS / classes
        )

    had_all = any(seen.class_shares is not None and lacking(seen) is None for seen in history)

    def complaint(seen: Observation) -> str | None:
        return (
            _below("diversity", seen.diversity, DIVERSITY)
            or _above("share of samples that repeat another", seen.repeats, REPEATED)
            or (lacking(seen) if had_all else None)
        )

    return _persistent(history, config, complaint)


def over_confident(history: Sequence[Observation], config: Config, classes: int) -> str | None:
    """A discriminator under bce that is nearly always right, so that the generator learns nothing from it."""
    if config.loss != "bce":
        return None
    floor, fooled = sum(bce_floor(config)), fake_target(config) + D_OF_FAKE
    fooled_logit = math.log(fooled / (1 - fooled))

    def complaint(seen: Observation) -> str | None:
        get = seen.losses.get
        accurate = _above("accuracy of D", get("d_accuracy"), D_ACCURACY)
        certain = _below("its mean logit of samples", get("d_fake"), fooled_logit)
        return (
            (f"{accurate} and {certain}" if accurate and certain else None)
            or _below(f"D's loss, whose floor is {floor:.4g},", get("loss_d"), floor + D_LOSS_ABOVE_FLOOR)
            or _above("G's loss", None if config.saturating else get("loss_g"), G_LOSS_PINNED)
        )

    return _persistent(history, config, complaint)


def vanishing_gradients(history: Sequence[Observation], config: Config, classes: int) -> str | None:
    """A generator whose gradient is nearly 0, or tiny compared with the discriminator's."""

    def complaint(seen: Observation) -> str | None:
        g, d = seen.losses.get("grad_norm_g"), seen.losses.get("grad_norm_d")
        ratio = g / d if g is not None and d else None
        return _below("gradient norm of G", g, VANISHED_NORM) or _below(
            "gradient norm of G over D's", ratio, VANISHED_RATIO
        )

    return _persistent(history, config, complaint)


def exploding_gradients(history: Sequence[Observation], config: Config, classes: int) -> str | None:
    """Gradients that are huge, or huge compared with their median over the run."""
    names = ("grad_norm_g", "grad_norm_d")
    usual = {name: median([seen.losses.get(name, math.inf) for seen in history]) for name in names}

    def complaint(seen: Observation) -> str | None:
        limits = {name: min(EXPLODED_NORM, EXPLODED_RATIO * usual[name]) for name in names}
        found = (_above(f"{name}, median {usual[name]:.4g},", seen.losses.get(name), limits[name]) for name in names)
        return next(filter(None, found), None)

    return _persistent(history, config, complaint)


def critic_drift(history: Sequence[Observation], config: Config, classes: int) -> str | None:
    """A Wasserstein critic that oscillates, lies on its clipping bound, or does not follow its gradient penalty."""
    if config.loss != "wasserstein":
        return None

    def complaint(seen: Observation) -> str | None:
        low, high = PENALTY_SLOPES
        bound = seen.losses.get("clipped_share") if config.controls("clip") else None
        slope = seen.losses.get("penalty_slope") if config.controls("penalty") else None
        return (
            _above("share of clipped parameters on the bound", bound, CLIPPED_SHARE)
            or _below("slope of the critic", slope, low)
            or _above("slope of the critic", slope, high)
        )

    return _oscillation(history, config) or _persistent(history, config, complaint)


def missing_class(history: Sequence[Observation], config: Config, classes: int) -> str | None:
    """A class that is never drawn, or whose samples are not recognised while those of most other classes are."""
    last = history[-1]
    draws = last.images - (history[-2].images if len(history) > 1 else 0)
    absent = sorted(set(range(classes)) - set(last.drawn_classes)) if last.drawn_classes is not None else []
    if absent and (chance := (1 - 1 / classes) ** draws) < ABSENT_BY_CHANCE:
        return f"{draws} draws left out {absent}, chance {chance:.2g} < {ABSENT_BY_CHANCE}"

    def complaint(seen: Observation) -> str | None:
        accuracies = {c: share for c, share in enumerate(seen.per_class_accuracy or ()) if share is not None}
        if not accuracies or median(accuracies.values()) < CLASSES_LEARNT:
            return None
        worst = min(accuracies, key=accuracies.__getitem__)
        return _below(f"accuracy of class {worst}", accuracies[worst], CLASS_ACCURACY)

    return _persistent(history, config, complaint)


def late_decay(history: Sequence[Observation], config: Config, classes: int) -> str | None:
    """Scores that stay worse than the best one by more than a share of it and by more than their errors explain."""
    if not history[-1].scores:
        return None
    metric = METRICS[next(iter(history[-1].scores))]
    scores = [seen.scores[metric.name] for seen in history if metric.name in seen.scores]
    best = min(scores, key=lambda score: score.cost)
    recent = scores[-DECAY_EVALUATIONS:]

    def decayed(score: Score) -> bool:
        errors = DECAY_ERRORS * math.hypot(score.stderr or 0.0, best.stderr or 0.0)
        return score.cost - best.cost > max(DECAY_SHARE * abs(best.value), errors)

    if len(recent) < DECAY_EVALUATIONS or not all(map(decayed, recent)):
        return None
    values = ", ".join(f"{score.value:.4g}" for score in recent)
    margin = f"over {DECAY_SHARE:.0%} and {DECAY_ERRORS:g} standard errors worse than the best, {best.value:.4g}"
    return f"{metric.name} is {values}, {margin}"


def under_trained(history: Sequence[Observation], config: Config, classes: int) -> str | None:
    """A FID that still falls over the last part of the run so far."""
    end = history[-1].images
    late = [seen for seen in history if "fid" in seen.scores and end - seen.images <= LAST_PART * end]
    fids = [seen.scores["fid"].value for seen in late]
    # A line through fewer than three points is noise, and a FID of 0 has no logarithm.
    if len(fids) < 3 or not all(0 < fid < math.inf for fid in fids):
        return None
    slope = linear_regression([seen.images for seen in late], [math.log(fid) for fid in fids]).slope
    return _below(f"change of log FID over the last {LAST_PART:.0%}", slope * LAST_PART * end, LOG_FID_FALL)


#: All detectors by the kind of their verdict, the most serious first. Each returns its evidence, or None.
DETECTORS: Mapping[str, Detector] = {
    "diverged": diverged,
    "exploding-gradients": exploding_gradients,
    "vanishing-gradients": vanishing_gradients,
    "over-confident-discriminator": over_confident,
    "critic-drift": critic_drift,
    "mode-collapse": mode_collapse,
    "missing-class": missing_class,
    "late-decay": late_decay,
    "under-trained": under_trained,
}
KINDS: tuple[str, ...] = tuple(DETECTORS)
#: Verdicts that may end a run; the others are for information.
STOPPING: tuple[str, ...] = tuple(kind for kind in KINDS if kind not in INFORMATIONAL)


def bce_floor(config: Config) -> tuple[float, float]:
    """The lowest possible values of the two terms of D's bce loss, on real and on generated images.

    Cross-entropy is linear in its target. If D cannot predict the targets, whose mean is t, its best answer is t, and
    the loss is the entropy -t log t - (1 - t) log(1 - t).
    """
    softened = {"none": 0.0, "random": 0.5}.get(config.smoothing, 1.0) * config.smoothing_strength
    real, fake = (1 - softened) * (1 - config.label_flip), fake_target(config)
    return _entropy((real, 1 - real)), _entropy((fake, 1 - fake))


def diversity(images: Tensor, real: Tensor, labels: tuple[Tensor, Tensor] | None = None) -> float | None:
    """Mean distance between generated images divided by that between real ones; 1 is equally diverse.

    Images are uint8 [N, C, H, W]. With `labels`, int64 [N] of the generated and of the real images, only images of one
    class are compared, which detects a conditional generator with one image per class. None if there is no pair to
    compare, or if all real images are equal.
    """
    own, wanted = labels or (None, None)
    ratio = float(mean_distance(images, own) / mean_distance(real, wanted).to(images.device))
    return ratio if math.isfinite(ratio) else None


def mean_distance(images: Tensor, labels: Tensor | None = None) -> Tensor:
    """Mean L2 distance between pairs of the first COMPARED of uint8 images [N, C, H, W], pixels scaled to [-1, 1].

    With `labels`, int64 [N], only pairs of equal labels count. The result is a float64 scalar, NaN if there is no pair.
    """
    pixels = images[:COMPARED].flatten(1).double() / 127.5 - 1
    # Rounding errors of matrix products would give equal images a distance above 0.
    distances = torch.cdist(pixels, pixels, compute_mode="donot_use_mm_for_euclid_dist")
    pairs = torch.ones_like(distances).triu(1)
    if labels is not None:
        kept = labels[:COMPARED].to(images.device)
        pairs = pairs * (kept[:, None] == kept)
    return (distances * pairs).sum() / pairs.sum()


def repeats(images: Tensor, real: Tensor) -> float | None:
    """Share in [0, 1] of generated images whose nearest neighbour is closer than that of 99 % of the real images.

    Both are uint8 [N, C, H, W]; the first REPEATS_COMPARED of each are compared, equally many, since more images lie
    closer together. This detects a small set of repeated images, which `diversity` misses if they are diverse.
    None for fewer than 100 images.
    """
    count = min(REPEATS_COMPARED, len(images), len(real))
    if count < 1 / REAL_QUANTILE:
        return None
    own, other = (_nearest(part[:count]) for part in (images, real))
    return float((own < torch.quantile(other, REAL_QUANTILE).to(own.device)).double().mean())


def _nearest(images: Tensor) -> Tensor:
    pixels = images.flatten(1).double()
    distances = torch.cdist(pixels, pixels, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.fill_diagonal_(math.inf).amin(dim=1)


def balanced(labels: Tensor, classes: int) -> bool:
    """Whether each class has its fair share among `labels` (int64 [N]), within a factor of BALANCE.

    An unconditional generator should reproduce the shares of the classes in its real images. If those are unbalanced,
    unequal shares are no failure. A conditional generator is asked for all classes equally often.
    """
    shares = torch.bincount(labels.cpu(), minlength=classes).double() * classes / len(labels)
    return bool(((shares >= 1 / BALANCE) & (shares <= BALANCE)).all())


def _persistent(history: Sequence[Observation], config: Config, complaint: Complaint) -> str | None:
    """The complaint of the last rung, if it has lasted for PERSISTENCE_STEPS; rungs of a young run do not count."""
    evidence, first = complaint(history[-1]), history[-1].images
    for seen in reversed(history):
        if seen.images < WARMUP_STEPS * config.batch or complaint(seen) is None:
            break
        first = seen.images
    steps = (history[-1].images - first) / config.batch
    return f"{evidence}, for {steps:.0f} steps" if evidence and steps >= PERSISTENCE_STEPS else None


def _oscillation(history: Sequence[Observation], config: Config) -> str | None:
    """The complaint that the gap between the critic's means varies too much over the last DRIFT_RUNGS rungs."""
    window = history[-DRIFT_RUNGS:]
    gaps = [o.losses["d_real"] - o.losses["d_fake"] for o in window if {"d_real", "d_fake"} <= o.losses.keys()]
    steps = (window[-1].images - window[0].images) / config.batch
    if len(gaps) < DRIFT_RUNGS or steps < DRIFT_STEPS or not all(map(math.isfinite, gaps)):
        return None
    limit = DRIFT_RATIO * abs(fmean(gaps))
    evidence = _above(f"deviation of the critic's gap, {DRIFT_RATIO:g} times whose mean", stdev(gaps), limit)
    return f"{evidence}, over {steps:.0f} steps" if evidence else None


def _below(name: str, value: float | None, limit: float) -> str | None:
    return f"{name} is {value:.4g} < {limit:.4g}" if value is not None and value < limit else None


def _above(name: str, value: float | None, limit: float) -> str | None:
    return f"{name} is {value:.4g} > {limit:.4g}" if value is not None and value > limit else None


def _entropy(shares: Iterable[float]) -> float:
    return -sum(share * math.log(share) for share in shares if share > 0)
