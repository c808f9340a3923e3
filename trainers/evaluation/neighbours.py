"""Fidelity and diversity apart: precision and recall, density and coverage, from balls around nearest neighbours.

A set of features stands for its support by one closed ball per feature, which reaches to its k-th nearest neighbour in
the same set. Distances are squared throughout, and float64; memory is bounded whatever N and M are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainers.evaluation.scores import PRECISION_K

#: Neighbours that make the ball around a point for density and coverage (Naeem et al., 2020).

COVERAGE_K = 5

_BLOCK = 2048
#: Squared distances below this share of both squared norms are rounding: the features are equal.
_ROUNDING = 1e-12


def precision(samples: Tensor, reference: Tensor, radii: Tensor) -> tuple[float, float]:
    """Share of samples [N, D] within any ball of the reference [M, D], and its binomial standard error.

    `radii`, float64 [M], are `ball_radii(reference, PRECISION_K)`; the error holds for this very reference. Raises
    ValueError for N < 2 or non-finite features.
    """
    _check(samples, 2)
    inside, _ = _hits(samples, reference, radii)
    share = float((inside > 0).double().mean())
    return share, math.sqrt(share * (1 - share) / len(samples))


def recall(samples: Tensor, reference: Tensor) -> float:
    """Share of the reference [M, D] within any ball of the samples [N, D]; more samples have smaller balls.

    Raises ValueError for N <= PRECISION_K or non-finite features.
    """
    _check(reference, 1)
    inside, _ = _hits(reference, samples, ball_radii(samples, PRECISION_K))
    return float((inside > 0).double().mean())


def density(samples: Tensor, reference: Tensor, radii: Tensor) -> tuple[float, float]:
    """Mean over samples [N, D] of the number of the reference's balls around each, over k; and its standard error.

    It may pass 1. `radii` are `ball_radii(reference, COVERAGE_K)`; the error holds for this very reference. Raises
    ValueError for N < 2 or non-finite features.
    """
    _check(samples, 2)
    counts = _hits(samples, reference, radii)[0].double() / COVERAGE_K
    return float(counts.mean()), float(counts.std() / math.sqrt(len(samples)))


def coverage(samples: Tensor, reference: Tensor, radii: Tensor) -> float:
    """Share of the reference's balls that hold any of the samples [N, D]; more samples cover more.

    Of one distribution they cover about 1 - (M / (M + N))^k: 0.97 for N = M, 0.67 for a quarter as many. `radii` are
    `ball_radii(reference, COVERAGE_K)`. Raises ValueError for N < 2 or non-finite features.
    """
    _check(samples, 2)
    _, holds = _hits(samples, reference, radii)
    return float(holds.double().mean())


def ball_radii(features: Tensor, k: int) -> Tensor:
    """Squared distance of each of features [N, D] to its k-th nearest other one, float64 [N].

    Raises ValueError for N <= k or non-finite features.
    """
    _check(features, k + 1)
    radii = []
    for i, rows in enumerate(torch.split(features, _BLOCK)):
        nearest = torch.empty(len(rows), 0, dtype=torch.float64, device=features.device)
        for j, columns in enumerate(torch.split(features, _BLOCK)):
            distances = _squared_distances(rows, columns)
            if i == j:
                distances.fill_diagonal_(math.inf)
            nearest = torch.cat([nearest, distances], dim=1)
            nearest = nearest.topk(min(k, nearest.shape[1]), dim=1, largest=False).values
        radii.append(nearest.amax(dim=1))
    return torch.cat(radii)


def _hits(points: Tensor, centres: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
    """Number of balls around each of points [N, D], int64 [N], and which of the M balls hold a point, bool [M]."""
    counts, holds = [], torch.zeros(len(centres), dtype=torch.bool, device=centres.device)
    for rows in torch.split(points, _BLOCK):
        count = torch.zeros(len(rows), dtype=torch.int64, device=points.device)
        for first in range(0, len(centres), _BLOCK):
            block = slice(first, first + _BLOCK)
            inside = _squared_distances(rows, centres[block]) <= radii[block]
            count += inside.sum(dim=1)
            holds[block] |= inside.any(dim=0)
        counts.append(count)
    return torch.cat(counts), holds


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """float64 [N, M], exactly 0 between equal rows."""
    x, y = x.double(), y.double()
    norms = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1)
    distances = norms - 2 * (x @ y.T)
    return distances.masked_fill_(distances <= _ROUNDING * norms, 0.0)


def _check(features: Tensor, fewest: int) -> None:
    if len(features) < fewest:
        raise ValueError(f"nearest neighbours need at least {fewest} samples, got {len(features)}")
    if not torch.isfinite(features).all():
        raise ValueError("features are not finite")
