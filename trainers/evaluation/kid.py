"""Kernel inception distance (Binkowski et al., 2018): exact, over all pairs, with its standard error."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_BLOCK = 2048


def kid(
    samples: Tensor, reference: Tensor, reference_term: float | None = None, biased: bool = False
) -> tuple[float, float]:
    """Squared MMD between features [N, D] and [M, D] under k(x, y) = (x.y/D + 1)^3, and its standard error.

    Unbiased, it leaves pairs of a row with itself out and may be negative. `biased` keeps them (the V-statistic of
    toh-2024): never below 0, too large by about 1/N and 1/M, and another metric. The standard error is that of the
    U-statistic over the samples with the reference held fixed: 2 sd(u) / sqrt(N) with
    u_i = mean_{j != i} k(x_i, x_j) - mean_r k(x_i, r). It is first-order: too small for a hundred samples of heavy
    tails, too large between equal distributions. `reference_term` is `mean_kernel(reference)` where it is known
    already. Raises ValueError for N < 2, M < 2 or non-finite features.
    """
    for features in (samples, reference):
        _check(features)
    n, m = len(samples), len(reference)
    term = mean_kernel(reference) if reference_term is None else reference_term
    cross = kernel_sums(samples, reference) / m
    within, own = kernel_sums(samples, samples), _diagonal(samples)
    u = (within - own) / (n - 1) - cross
    stderr = float(2 * u.std() / math.sqrt(n))
    if biased:
        term = ((m - 1) * term + float(_diagonal(reference).mean())) / m
        # Rounding alone can take the square of a distance below 0.
        return max(0.0, float((within / n - 2 * cross).mean()) + term), stderr
    return float(u.mean() + term - cross.mean()), stderr


def mean_kernel(features: Tensor) -> float:
    """Mean of k over all ordered pairs of unlike rows of [N, D]. Raises ValueError as `kid` does."""
    _check(features)
    count = len(features)
    return float((kernel_sums(features, features) - _diagonal(features)).sum() / (count * (count - 1)))


def kernel_sums(x: Tensor, y: Tensor) -> Tensor:
    """Sum over j of k(x_i, y_j) for every i, float64 [N]; memory is bounded whatever N and M are."""
    sums = [
        sum(
            (_kernel(rows.double() @ columns.double().T, x.shape[1]).sum(dim=1) for columns in torch.split(y, _BLOCK)),
            0.0,
        )
        for rows in torch.split(x, _BLOCK)
    ]
    return torch.cat([torch.as_tensor(part) for part in sums])


def _diagonal(x: Tensor) -> Tensor:
    return _kernel(x.double().square().sum(dim=1), x.shape[1])


def _kernel(product: Tensor, dim: int) -> Tensor:
    return (product / dim + 1) ** 3


def _check(features: Tensor) -> None:
    if len(features) < 2:
        raise ValueError(f"an unbiased estimate needs at least 2 samples, got {len(features)}")
    if not torch.isfinite(features).all():
        raise ValueError("features are not finite")
