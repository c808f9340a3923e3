"""Fréchet inception distance (Heusel et al., 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution over D features."""

    mean: Tensor
    """float64 [D]."""
    cov: Tensor
    """float64 [D, D], symmetric."""

    @cached_property
    def root(self) -> Tensor:
        """A with A A^T = cov, float64 [D, D]: eigenvectors scaled by the roots of their eigenvalues."""
        values, vectors = torch.linalg.eigh(self.cov)
        root: Tensor = vectors * values.clamp(min=0).sqrt()
        return root


def gaussian_of(features: Tensor) -> Gaussian:
    """Mean and unbiased covariance (N - 1) of features [N, D]. Raises ValueError for N < 2 or non-finite features."""
    if len(features) < 2:
        raise ValueError(f"a covariance needs at least 2 samples, got {len(features)}")
    # LAPACK may not return from a matrix that holds a NaN.
    if not torch.isfinite(features).all():
        raise ValueError("features are not finite")
    x = features.double()
    mean = x.mean(dim=0)
    centred = x - mean
    return Gaussian(mean, centred.T @ centred / (len(x) - 1))


def frechet_distance(x: Gaussian, reference: Gaussian) -> float:
    """|m_x - m_r|^2 + Tr(S_x + S_r - 2 (S_x S_r)^(1/2)), at least 0. Raises ValueError for non-finite moments.

    With S_r = A A^T, S_x S_r has the eigenvalues of the symmetric A^T S_x A. The distance falls with the number of
    samples like 1/N: values of unlike N do not compare.
    """
    for moment in (x.mean, x.cov, reference.mean, reference.cov):
        if not torch.isfinite(moment).all():
            raise ValueError("mean or covariance is not finite")
    product = reference.root.T @ x.cov @ reference.root
    # Halves of both triangles: rounding leaves the product slightly asymmetric, and eigvalsh reads one triangle.
    values = torch.linalg.eigvalsh((product + product.T) / 2)
    trace = torch.trace(x.cov) + torch.trace(reference.cov) - 2 * values.clamp(min=0).sqrt().sum()
    return max(0.0, float((x.mean - reference.mean).square().sum() + trace))
