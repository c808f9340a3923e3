"""Fidelity and diversity as two numbers: precision and recall, or density and coverage.

The support of a set of features is estimated by one closed ball around each feature, which reaches to its k-th nearest
neighbour in the set. All distances are squared and float64. They are computed in blocks, so memory does not grow
with N M.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainers.evaluation.scores import COVERAGE_K, PRECISION_K

_BLOCK = 2048
#: Squared distances below this share of the sum of both squared norms are rounding errors: the features are equal.
_ROUNDING = 1e-12


def precision(samples: Tensor, reference: Tensor, radii: Tensor) -> tuple[float, float]:
    """Share of samples [N, D] within any ball of the reference [M, D] (Kynkäänniemi et al., 2019).

    The second value is its binomial standard error for a fixed reference. `radii`, float64 [M], are
    `ball_radii(reference, PRECISION_K)`. Raises
    ValueError for N < 2 or non-finite features.
    """
    _check(samples, 2)
    inside, _ = _hits(samples, reference, radii)
    share = float((inside > 0).double().mean())
    return share, math.sqrt(share * (1 - share) / len(samples))


def recall(samples: Tensor, reference: Tensor) -> float:
    """Share of the reference [M, D] within any ball of the samples [N, D] (Kynkäänniemi et al., 2019).

    It depends on N, since the balls of more samples are smaller.

    Raises ValueError for N <= PRECISION_K or non-finite features.
    """
    _check(reference, 1)
    inside, _ = _hits(reference, samples, ball_radii(samples, PRECISION_K))
    return float((inside > 0).double().mean())


def density(samples: Tensor, reference: Tensor, radii: Tensor) -> tuple[float, float]:
    """Mean number of balls of the reference [M, D] that hold a sample, divided by k (Naeem et al., 2020).

    The mean is over samples [N, D] and may exceed 1. The second value is its standard error for a fixed reference.
    `radii`, float64 [M], are `ball_radii(reference, COVERAGE_K)`. Raises
    ValueError for N < 2 or non-finite features.
    """
    _check(samples, 2)
    counts = _hits(samples, reference, radii)[0].double() / COVERAGE_K
    return float(counts.mean()), float(counts.std() / math.sqrt(len(samples)))


def coverage(samples: Tensor, reference: Tensor, radii: Tensor) -> float:
    """Share of the balls of the reference [M, D] that hold any of the samples [N, D] (Naeem et al., 2020).

    It grows with N: if samples and reference have the same distribution, it is about 1 - (M / (M + N))^k, which is 0.97
    for N = M and 0.67 for N = M / 4. `radii`, float64 [M], are `ball_radii(reference, COVERAGE_K)`. Raises ValueError
    for N < 2 or non-finite features.
    """
    _check(samples, 2)
    _, holds = _hits(samples, reference, radii)
    return float(holds.double().mean())


def ball_radii(features: Tensor, k: int) -> Tensor:
    """Squared distance of each of features [N, D] to its k-th nearest neighbour, float64 [N].

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
    """The number of balls that hold each of points [N, D], int64 [N], and whether each ball holds a point, bool [M]."""
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
