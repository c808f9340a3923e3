"""The scores that documents report of the implemented systems, and whether a measured score is comparable with them."""

from __future__ import annotations

from dataclasses import dataclass

from trainers.evaluation.scores import Score


@dataclass(frozen=True)
class Reported:
    """One score that a document reports."""

    document: str
    metric: str
    text: str
    """The score as printed, with a note if it is doubtful."""
    dataset: str
    extractor: str
    """The kind of feature extractor or classifier: inception or lenet."""
    samples: int | None
    """The number of generated images; None if the document does not say it."""


def _monir(text: str) -> tuple[Reported, ...]:
    return (Reported("monir-2019", "fid", text, "cifar10", "inception", 1000),)


def _hamed(text: str) -> tuple[Reported, ...]:
    return (Reported("hamed-2019", "fid", text, "cifar10", "inception", None),)


def _toh(fid: str, kid: str) -> tuple[Reported, ...]:
    return tuple(
        Reported("toh-2024", metric, text, "cifar10", "inception", None)
        for metric, text in (("fid", fid), ("kid", kid))
    )


def _narman(score: str, accuracy: str | None = None) -> tuple[Reported, ...]:
    found = [Reported("narman-2019", "is", score, "mnist", "lenet", 10_000)]
    if accuracy is not None:
        found.append(Reported("narman-2019", "accuracy", accuracy, "mnist", "lenet", 10_000))
    return tuple(found)


_ABOVE = "(above 10, which its formula cannot give)"
REPORTED: dict[str, tuple[Reported, ...]] = {
    "monir-dcgan": _monir("about 80 (lowest)"),
    "toh-dcgan-1": _toh("53", "0.04"),
    "toh-dcgan-2": _toh("54", "0.04"),
    "toh-dcgan-3": _toh("47", "0.03"),
    "toh-dcgan-4": _toh("62", "0.47 (probably 0.047)"),
    "toh-wgan-1": _toh("129", "0.08"),
    "toh-wgan-2": _toh("182", "0.19"),
    "toh-sadcgan-1": _toh("50", "0.04"),
    "toh-sadcgan-2": _toh("49", "0.04"),
    "toh-cgan-1": _toh("36", "0.02"),
    "toh-cgan-2": _toh("38", "0.02"),
    "toh-cgan-3": _toh("36", "0.018"),
    "toh-improved-dcgan-3": _toh("50", "0.02"),
    "toh-improved-cgan-1": _toh("31", "0.01"),
    "hamed-dcgan": _hamed("about 100 (best)"),
    "narman-dcgan": _narman("9.026 ± 0.043"),
    "narman-cgan": _narman("9.982 ± 0.041", "98.7 %"),
    "narman-cgan-osls": _narman(f"10.032 ± 0.06 {_ABOVE}", "99.3 %"),
    "narman-cgan-osls-extra": _narman("9.75 ± 0.022", "94.9 %"),
    "narman-cgan-x2-osls": _narman(f"10.029 ± 0.028 {_ABOVE}", "99.7 %"),
    "narman-cgan-osls-k4": _narman("9.74 ± 0.055", "95.8 %"),
    "narman-cgan-x2-osls-dropout": _narman(f"10.08 ± 0.037 {_ABOVE}", "99.3 %"),
    "narman-cgan-x05": _narman("9.835 ± 0.038", "95.3 %"),
    "narman-cgan-x05-15ep": _narman("9.706 ± 0.029", "92.1 %"),
}


def differences(reported: Reported, score: Score, dataset: str) -> str:
    """Why a measured score is not comparable with the reported one; empty if no reason is known."""
    reasons = []
    if dataset != reported.dataset:
        reasons.append(f"data set {dataset}, reported {reported.dataset}")
    if not score.extractor.startswith(reported.extractor):
        reasons.append(f"extractor {score.extractor}, reported {reported.extractor}")
    if reported.samples is None:
        reasons.append(f"N {score.n:,}, reported N unknown")
    elif score.n != reported.samples:
        reasons.append(f"N {score.n:,}, reported {reported.samples:,}")
    return "; ".join(reasons)
