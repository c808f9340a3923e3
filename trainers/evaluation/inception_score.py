"""Inception score (Salimans et al., 2016) with any classifier, for the three marginals in use."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Marginal = Literal["split", "pooled", "external"]
#: Lower bound of the shares of a marginal, as in narman-2019: a class that an external marginal lacks would make the
#: score infinite.
_LEAST_SHARE = torch.finfo(torch.float64).eps


def inception_score(
    logits: Tensor, splits: int = 10, seed: int = 0, marginal: Marginal = "split"
) -> tuple[float, float]:
    """Mean and standard deviation over `splits` of exp(mean_i KL(p(y|x_i) || p(y))), logits [N, K].

    `marginal` chooses the images whose mean of p(y|x) is p(y):

    - split: the split itself, so that the score of every split lies in [1, K].
    - pooled: all images. With a certain classifier, this raises the score by about (K - 1) / 2 * splits / N of its
      value.
    - external: the next split, whose images are not scored with it. This raises the score by as much again, so it can
      exceed K, as some published values do.

    The rows are shuffled by `seed` first, since splits of images in the order of their classes would score far too low.
    The standard deviation is that of the population (divided by `splits`), as in published results. Raises ValueError
    for fewer than 2 rows per split, non-finite logits, or an external marginal of a single split.
    """
    if len(logits) < 2 * splits:
        raise ValueError(f"{splits} splits need at least {2 * splits} samples, got {len(logits)}")
    if marginal == "external" and splits < 2:
        raise ValueError("an external marginal is that of another split, so 2 splits or more are needed")
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
    """exp of the mean divergence of the rows, log-probabilities [n, K], from a log-marginal [K]."""
    # 0 log 0 is 0: if log_p is very negative, exp underflows to 0.
    return (log_p.exp() * (log_p - log_marginal)).sum(dim=1).mean().exp()
