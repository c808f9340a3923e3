"""Kernel inception distance (Binkowski et al., 2018): exact, over all pairs, with its standard error."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainers.evaluation.resize import full_precision

#: Pairs of so many rows fit the caches of a CPU.
_BLOCK = 1024


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
    cross, within = kernel_sums(samples, reference) / m, kernel_sums(samples)
    u = within / (n - 1) - cross
    stderr = float(2 * u.std() / math.sqrt(n))
    if biased:
        within = (within + _diagonal(samples)) / n
        term = ((m - 1) * term + float(_diagonal(reference).mean())) / m
        # Rounding alone can take the square of a distance below 0.
        return max(0.0, float((within - 2 * cross).mean()) + term), stderr
    return float(u.mean() + term - cross.mean()), stderr


def mean_kernel(features: Tensor) -> float:
    """Mean of k over all ordered pairs of unlike rows of [N, D]. Raises ValueError as `kid` does."""
    _check(features)
    return float(kernel_sums(features).mean()) / (len(features) - 1)


def kernel_sums(x: Tensor, y: Tensor | None = None) -> Tensor:
    """Sum over j of k(x_i, y_j) for every i, float64 [N]; without `y` over all x_j but x_i, each pair computed once.

    Products are of the type of `x` and summed up in float64: what float32 rounds off a sum, 1e-7 of it, is far below
    any standard error. Memory is bounded whatever N and M are.
    """
    sums = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    with full_precision():
        for start in range(0, len(x), _BLOCK):
            rows = slice(start, start + _BLOCK)
            if y is not None:
                for columns in torch.split(y, _BLOCK):
                    sums[rows] += _kernels(x[rows], columns).sum(dim=1)
                continue
            sums[rows] += _kernels(x[rows], x[rows]).fill_diagonal_(0).sum(dim=1)
            for other in range(start + _BLOCK, len(x), _BLOCK):
                pairs = _kernels(x[rows], x[other : other + _BLOCK])
                sums[rows] += pairs.sum(dim=1)
                sums[other : other + _BLOCK] += pairs.sum(dim=0)
    return sums


def _diagonal(x: Tensor) -> Tensor:
    return (x.double().square().sum(dim=1) / x.shape[1] + 1) ** 3


def _kernels(x: Tensor, y: Tensor) -> Tensor:
    return torch.addmm(x.new_ones(()), x, y.T, alpha=1 / x.shape[1]).pow_(3)


def _check(features: Tensor) -> None:
    if len(features) < 2:
        raise ValueError(f"an unbiased estimate needs at least 2 samples, got {len(features)}")
    if not torch.isfinite(features).all():
        raise ValueError("features are not finite")
