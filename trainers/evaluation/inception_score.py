"""Inception score (Salimans et al., 2016) under any classifier, with each of the marginals in use."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Marginal = Literal["split", "pooled", "external"]
#: A class that a foreign marginal lacks would make the score infinite: its share is at least this, as in narman-2019.
_LEAST_SHARE = torch.finfo(torch.float64).eps


def inception_score(
    logits: Tensor, splits: int = 10, seed: int = 0, marginal: Marginal = "split"
) -> tuple[float, float]:
    """Mean and standard deviation over `splits` of exp(mean_i KL(p(y|x_i) || p(y))), logits [N, K].

    `marginal` says of which images p(y) is the mean:
    split: of the split itself, so that every split lies in [1, K];
    pooled: of all images, which raises it by a share of about (K - 1) / 2 * splits / N where verdicts are certain;
    external: of the next split, images that are not scored with it, which raises it as much again: it may pass K, as
    some published values do.
    The rows are shuffled by `seed` first: splits of images in the order of their classes would score far too low. The
    standard deviation is the population's (divided by `splits`), as in published results. Raises ValueError for fewer
    than 2 rows per split, non-finite logits, or an external marginal of a single split.
    """
    if len(logits) < 2 * splits:
        raise ValueError(f"{splits} splits need at least {2 * splits} samples, got {len(logits)}")
    if marginal == "external" and splits < 2:
        raise ValueError("an external marginal is that of another split, and there is but one")
    if not torch.isfinite(logits).all():
        raise ValueError("logits are not finite")
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(seed))
    log_p = torch.log_softmax(logits[order.to(logits.device)].double(), dim=1)
    parts = log_p.tensor_split(splits)
    sources = {"split": parts, "pooled": (log_p,) * splits, "external": (*parts[1:], parts[0])}[marginal]
    scores = torch.stack([_score(part, _log_mean(source)) for part, source in zip(parts, sources, strict=True)])
    return float(scores.mean()), float(scores.std(correction=0))


def _log_mean(log_p: Tensor) -> Tensor:
    """Log of the mean of the rows, log-probabilities [n, K] -> [K]."""
    return (log_p.logsumexp(dim=0) - math.log(len(log_p))).clamp(min=math.log(_LEAST_SHARE))


def _score(log_p: Tensor, log_marginal: Tensor) -> Tensor:
    """exp of the mean divergence of the rows, log-probabilities [n, K], from a marginal [K]."""
    # 0 log 0 is 0, and exp underflows to that 0 where log_p is hugely negative.
    return (log_p.exp() * (log_p - log_marginal)).sum(dim=1).mean().exp()
