"""Inception score (Salimans et al., 2016) under any classifier."""

from __future__ import annotations

import torch
from torch import Tensor


def inception_score(logits: Tensor, splits: int = 10, seed: int = 0) -> tuple[float, float]:
    """Mean and standard deviation over `splits` of exp(mean_i KL(p(y|x_i) || p(y))), logits [N, K].

    Each split has its own marginal p(y), so that every split lies in [1, K]. The rows are shuffled by `seed` first:
    splits of images in the order of their classes would score far too low. The standard deviation is the population's
    (divided by `splits`), as in published results. Raises ValueError for fewer than 2 rows per split or non-finite
    logits.
    """
    if len(logits) < 2 * splits:
        raise ValueError(f"{splits} splits need at least {2 * splits} samples, got {len(logits)}")
    if not torch.isfinite(logits).all():
        raise ValueError("logits are not finite")
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(seed))
    log_p = torch.log_softmax(logits[order.to(logits.device)].double(), dim=1)
    scores = torch.stack([_score(part) for part in log_p.tensor_split(splits)])
    return float(scores.mean()), float(scores.std(correction=0))


def _score(log_p: Tensor) -> Tensor:
    """exp of the mean divergence of the rows, log-probabilities [n, K], from their own mean."""
    log_marginal = log_p.logsumexp(dim=0) - torch.log(torch.tensor(len(log_p), dtype=torch.float64))
    # 0 log 0 is 0, and exp underflows to that 0 where log_p is hugely negative.
    return (log_p.exp() * (log_p - log_marginal)).sum(dim=1).mean().exp()
