"""The images of batch k as a pure function of (seed, k), so that the position in the data is one integer."""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.seeds import seed_of


def seeded(*entropy: int) -> torch.Generator:
    """A CPU generator seeded by `seed_of`."""
    return torch.Generator().manual_seed(seed_of(*entropy))


class IndexStream:
    """`stream(k)` gives the indices of batch k, int64 [batch], out of `count` images.

    `sampling` is random: drawn with replacement; shuffled: a new permutation per epoch; or sequential: the order of the
    data. The last two drop the rest of an epoch that fills no batch, and raise ValueError if `batch` > `count`.
    """

    def __init__(self, count: int, batch: int, sampling: str, seed: int) -> None:
        if sampling != "random" and count < batch:
            raise ValueError(f"batch {batch} is larger than the data set of {count} images")
        self._count, self._batch, self._sampling, self._seed = count, batch, sampling, seed
        self._epoch = -1
        self._permutation = torch.empty(0, dtype=torch.int64)

    def __call__(self, k: int) -> Tensor:
        if self._sampling == "random":
            return torch.randint(self._count, (self._batch,), generator=seeded(self._seed, 1, k))
        per_epoch = self._count // self._batch
        epoch, part = divmod(k, per_epoch)
        if self._sampling == "sequential":
            return torch.arange(part * self._batch, (part + 1) * self._batch)
        if epoch != self._epoch:
            self._permutation = torch.randperm(self._count, generator=seeded(self._seed, 0, epoch))
            self._epoch = epoch
        return self._permutation[part * self._batch : (part + 1) * self._batch]
