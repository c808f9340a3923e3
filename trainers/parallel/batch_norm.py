"""Batch normalisation over the batches of all processes, which replaces PyTorch's in finished networks.

`nn.SyncBatchNorm` does not take tensors on the CPU, and cannot be differentiated twice, which a gradient penalty needs.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from trainers import losses
from trainers.parallel.group import Parallel

#: Whether batch statistics are those of the global batch, or those of each process's part.
BatchNorm = Literal["synchronised", "local"]


class _Synchronised(nn.modules.batchnorm._BatchNorm):
    """Batch norm by the statistics of the global batch in training mode; in evaluation mode the same as its base."""

    parallel: Parallel

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        x = losses.wide(input)
        dims = [dim for dim in range(x.ndim) if dim != 1]
        mean, variance, count = _statistics(x, dims, self.parallel)
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach() * (count / (count - 1)))
        shape = [1, -1, *[1] * (x.ndim - 2)]
        scale = (variance + self.eps).rsqrt()
        y = (x - mean.view(shape)) * (scale if self.weight is None else scale * self.weight).view(shape)
        return (y if self.bias is None else y + self.bias.view(shape)).to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.item()
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


class _Synchronised1d(_Synchronised, nn.BatchNorm1d):
    pass


class _Synchronised2d(_Synchronised, nn.BatchNorm2d):
    pass


def synchronise(net: nn.Module, parallel: Parallel) -> None:
    """Makes every batch norm in `net` use the batches of all processes; names and values of its state stay the same.

    Each process must pass the same number of images. With one process nothing changes. Raises TypeError for a batch
    norm other than BatchNorm1d and BatchNorm2d.
    """
    if parallel.size == 1:
        return
    kinds: dict[type[nn.Module], type[_Synchronised]] = {
        nn.BatchNorm1d: _Synchronised1d,
        nn.BatchNorm2d: _Synchronised2d,
    }
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if type(module) not in kinds:
                raise TypeError(f"{type(module).__name__} cannot be synchronised: allowed are BatchNorm1d, BatchNorm2d")
            module.__class__ = kinds[type(module)]
            cast(_Synchronised, module).parallel = parallel


def _statistics(x: Tensor, dims: list[int], parallel: Parallel) -> tuple[Tensor, Tensor, int]:
    """Mean and biased variance of each channel over all processes, and the number of values per channel.

    Each process computes its own pair in two passes; one message exchanges them. The variance of the whole is the mean
    of their variances plus the variance of their means (Chan et al., 1979), which loses no digits, unlike a difference
    of sums.
    """
    own = torch.stack(torch.var_mean(x, dims, correction=0))
    behind = parallel.size - 1 - parallel.rank
    pairs = parallel.sum(pad(own[None], (0, 0, 0, 0, parallel.rank, behind)))
    variances, means = pairs.unbind(1)
    mean = means.mean(0)
    count = parallel.size * x.numel() // x.shape[1]
    return mean, variances.mean(0) + (means - mean).square().mean(0), count
