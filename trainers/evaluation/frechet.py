"""Fréchet inception distance (Heusel et al., 2017): exact, in a low-rank form, and extrapolated to infinite samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

#: Number of sample sizes in `fid_infinity`, evenly spaced from a tenth of the samples to all of them.
POINTS = 15
_BLOCK = 256


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


class Moments:
    """Mean and unbiased covariance of features that come in batches, without keeping the batches.

    Each batch is centred on its own mean and then merged (Chan, Golub and LeVeque, 1983), so no digits are lost if the
    mean is far from 0.
    """

    def __init__(self) -> None:
        self.n = 0
        self._mean = torch.zeros(0, dtype=torch.float64)
        self._scatter = torch.zeros(0, 0, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Adds features [n, D], on the same device as the first batch. Raises ValueError if they are not finite."""
        _check_finite(features)
        if len(features) == 0:
            return
        x = features.double()
        if self.n == 0:
            self._mean, self._scatter = x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1], x.shape[1])
        count, total, mean = len(x), self.n + len(x), x.mean(dim=0)
        shift = mean - self._mean
        x = x - mean
        # The matrix is symmetric: only its lower blocks are computed.
        for block in _blocks(x.shape[1]):
            self._scatter[block, : block.stop].addmm_(x[:, block].T, x[:, : block.stop])
        if self.n:
            self._scatter.addr_(shift, shift, alpha=self.n * count / total)
        self._mean += shift * (count / total)
        self.n = total

    def gaussian(self) -> Gaussian:
        """Mean and covariance of the features so far. Raises ValueError for fewer than 2 features."""
        _check_count(self.n)
        cov = self._scatter / (self.n - 1)
        for block in _blocks(len(cov)):
            cov[: block.start, block] = cov[block, : block.start].T
        return Gaussian(self._mean.clone(), cov)


def gaussian_of(features: Tensor) -> Gaussian:
    """Mean and unbiased covariance (N - 1) of features [N, D]. Raises ValueError for N < 2 or non-finite features."""
    moments = Moments()
    moments.add(features)
    return moments.gaussian()


def frechet_distance(x: Gaussian, reference: Gaussian) -> float:
    """|m_x - m_r|^2 + Tr(S_x + S_r - 2 (S_x S_r)^(1/2)), at least 0. Raises ValueError for non-finite moments.

    With S_r = A A^T, S_x S_r has the same eigenvalues as the symmetric A^T S_x A. The expected distance exceeds the
    true one by about a constant / N: values of different N do not compare.
    """
    _check_moments(x, reference)
    product = reference.root.T @ x.cov @ reference.root
    # Rounding makes the product slightly asymmetric, and eigvalsh reads one triangle only: so both are averaged.
    values = torch.linalg.eigvalsh((product + product.T) / 2)
    return _distance(x.mean, torch.trace(x.cov), reference, values)


def fid(features: Tensor, reference: Gaussian) -> float:
    """`frechet_distance` of features [N, D] from the reference; if N <= D without their D x D covariance.

    In that case, with the centred features X, A^T S_x A has the same eigenvalues other than 0 as the N x N matrix B B^T
    with B = X A / sqrt(N - 1). Raises ValueError for N < 2 or non-finite features or moments.
    """
    _check_count(len(features))
    if len(features) > features.shape[1]:
        return frechet_distance(gaussian_of(features), reference)
    _check_finite(features)
    _check_moments(reference)
    x = features.double()
    mean = x.mean(dim=0)
    scaled = (x - mean) / math.sqrt(len(x) - 1)
    b = scaled @ reference.root
    # Centred rows sum to 0, so the smallest eigenvalue is 0. The root of its rounding error would not be negligible.
    values = torch.linalg.eigvalsh(b @ b.T)[1:]
    return _distance(mean, scaled.square().sum(), reference, values)


def fid_infinity(features: Tensor, reference: Gaussian, seed: int = 0) -> tuple[float, float]:
    """FID extrapolated to infinitely many samples (Chong and Forsyth, 2020), and the standard error of the fit.

    A line in 1/n is fitted to the FIDs of random subsets of features [N, D], drawn by `seed`. Its intercept is the
    value and may be negative. FID is linear in 1/n only for subsets larger than D; for smaller ones the value is
    a rough estimate. The subsets overlap, so the true error is larger than that of the fit. Raises ValueError for N <
    20 or non-finite features.
    """
    if len(features) < 20:
        raise ValueError(f"an extrapolated FID needs at least 20 samples, got {len(features)}")
    generator = torch.Generator().manual_seed(seed)
    counts = torch.linspace(len(features) / 10, len(features), POINTS, dtype=torch.float64).round().long()
    subsets = [torch.randperm(len(features), generator=generator)[:count] for count in counts.tolist()]
    values = [fid(features[subset.to(features.device)], reference) for subset in subsets]
    x, y = 1 / counts.double(), torch.tensor(values, dtype=torch.float64)
    spread = (x - x.mean()).square().sum()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / spread
    intercept = y.mean() - slope * x.mean()
    variance = (y - intercept - slope * x).square().sum() / (POINTS - 2)
    return float(intercept), float((variance * (1 / POINTS + x.mean().square() / spread)).sqrt())


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK))


def _distance(mean: Tensor, trace: Tensor, reference: Gaussian, eigenvalues: Tensor) -> float:
    """The distance, from the mean and the trace of the covariance of the samples and the eigenvalues of the product."""
    traces = trace + torch.trace(reference.cov) - 2 * eigenvalues.clamp(min=0).sqrt().sum()
    return max(0.0, float((mean - reference.mean).square().sum() + traces))


def _check_count(count: int) -> None:
    if count < 2:
        raise ValueError(f"a covariance needs at least 2 samples, got {count}")


def _check_moments(*gaussians: Gaussian) -> None:
    if not all(bool(torch.isfinite(moment).all()) for g in gaussians for moment in (g.mean, g.cov)):
        raise ValueError("mean or covariance is not finite")


def _check_finite(features: Tensor) -> None:
    # LAPACK may not return from a matrix that holds a NaN.
    if not torch.isfinite(features).all():
        raise ValueError("features are not finite")
