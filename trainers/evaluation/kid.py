"""Kernel inception distance (Binkowski et al., 2018) over all pairs, with its standard error."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainers.evaluation.resize import full_precision

#: Rows per block: the kernels of a pair of blocks fit into the caches of a CPU.
_BLOCK = 1024


def kid(
    samples: Tensor, reference: Tensor, reference_term: float | None = None, biased: bool = False
) -> tuple[float, float]:
    """Squared MMD between features [N, D] and [M, D] under k(x, y) = (x.y/D + 1)^3, and its standard error.

    The unbiased estimate leaves out pairs of a row with itself and may be negative. `biased` includes them (the
    V-statistic of toh-2024): it is at least 0, too large by terms of order 1/N and 1/M, and counts as another metric.
    The standard error is that of the U-statistic over the samples, for a fixed reference: 2 sd(u) / sqrt(N) with
    u_i = mean_{j != i} k(x_i, x_j) - mean_r k(x_i, r). This is a first-order estimate: too small for about a hundred
    samples with heavy tails, too large between equal distributions. `reference_term` is `mean_kernel(reference)`, if it
    is already known. Raises ValueError for N < 2, M < 2 or non-finite features.
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
        # Without rounding errors this square of a distance could not be negative.
        return max(0.0, float((within - 2 * cross).mean()) + term), stderr
    return float(u.mean() + term - cross.mean()), stderr


def mean_kernel(features: Tensor) -> float:
    """Mean of k over all pairs of two different rows of [N, D]. Raises ValueError like `kid`."""
    _check(features)
    return float(kernel_sums(features).mean()) / (len(features) - 1)


def kernel_sums(x: Tensor, y: Tensor | None = None) -> Tensor:
    """Sum over j of k(x_i, y_j) for every i, float64 [N]; without `y` over all x_j but x_i, each pair computed once.

    Kernels have the type of `x` and are added in float64: the rounding error of float32, 1e-7 of a sum, is far below
    any standard error. Pairs are computed in blocks, so memory does not grow
    with N M.
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
