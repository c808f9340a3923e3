"""Random numbers in losses and networks: drawn for the global batch by a process that has a part of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from trainers import losses
from trainers.parallel.group import Parallel


def global_draws(parallel: Parallel, batch: int) -> AbstractContextManager[object]:
    """In the block, random numbers for a part of the batch are drawn for the global batch, and the part is cut out.

    All processes have the same random state. Without this, images at the same position of two parts would get the same
    noise. With it, the numbers are those that one process would draw for the whole batch of `batch` images.

    This covers `rand`, `randn`, `randint`, their `_like` versions, and dropout of elements and of channels. A result
    with k times as many rows as the part has images, k >= 1, is taken as k batches one after the other, such as real
    and generated images; each of them is drawn for the global batch. Any other result is no part of a batch: it is
    drawn unchanged, the same in each process. Other random functions raise NotImplementedError: a permutation, for
    example, would need rows of other parts. With one process the block changes nothing.
    """
    return nullcontext() if parallel.size == 1 else _GlobalDraws(parallel, batch // parallel.size)


class _GlobalDraws(TorchFunctionMode):
    def __init__(self, parallel: Parallel, own: int) -> None:
        super().__init__()
        self._parallel, self._own = parallel, own

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            return self._dropout(func, *args, **kwargs)
        if func in _FACTORIES:
            return self._made(func, args, kwargs)
        if func in _LIKE:
            return self._like(func, *args, **kwargs)
        if getattr(func, "__name__", "") in _REFUSED:
            raise NotImplementedError(
                f"{func.__name__} cannot be drawn for a part of a batch: allowed are rand, randn, randint, "
                "their _like, and dropout"
            )
        return func(*args, **kwargs)

    def _made(self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """The draw of a function with a size: a keyword, a sequence after bounds, or all positional arguments."""
        size, bounds = kwargs.pop("size", None), args
        if size is None:
            place = next((place for place, value in enumerate(args) if isinstance(value, tuple | list)), None)
            size, bounds = (args, ()) if place is None else (args[place], args[:place])
        return self._cut(lambda shape: func(*bounds, size=shape, **kwargs), tuple(size))

    def _like(self, func: Callable[..., Tensor], input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self._cut(lambda shape: func(_empty(shape, input), *args, **kwargs), tuple(input.shape))

    def _dropout(
        self, func: Callable[..., Tensor], input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p in (0, 1):
            return func(input, p, training, inplace)
        kept = self._cut(lambda shape: func(_empty(shape, input).fill_(1), p, True), tuple(input.shape)) != 0
        # The factor would lose digits in bfloat16.
        mask = kept.to(losses.wide(input.new_empty(0)).dtype) / (1 - p)
        return input.mul_(mask) if inplace else (input * mask).to(input.dtype)

    def _cut(self, draw: Callable[[tuple[int, ...]], Tensor], shape: tuple[int, ...]) -> Tensor:
        """The rows of this process in what `draw` returns for the global batch; `shape` is that of its part."""
        if not shape or not shape[0] or shape[0] % self._own:
            return draw(shape)
        rows, rest = shape[0], shape[1:]
        batches: Tensor = draw((rows * self._parallel.size, *rest)).unflatten(0, (rows // self._own, -1))
        return batches.narrow(1, self._parallel.rank * self._own, self._own).reshape(shape)


def _empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    # Numbers are drawn in the order of memory, so the memory format must be the same.
    innermost = like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if innermost else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)


_FACTORIES = frozenset({torch.rand, torch.randn, torch.randint})
_LIKE = frozenset({torch.rand_like, torch.randn_like, torch.randint_like})
_DROPOUTS = frozenset({functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d})
#: Names of the other functions and methods that draw random numbers.
_REFUSED = frozenset(
    {"alpha_dropout", "bernoulli", "bernoulli_", "binomial", "cauchy_", "dropout", "dropout_", "exponential_"}
    | {"feature_alpha_dropout", "feature_dropout", "feature_dropout_", "geometric_", "gumbel_softmax", "log_normal_"}
    | {"multinomial", "normal", "normal_", "poisson", "random_", "randperm", "rrelu", "rrelu_", "uniform_"}
    | {"_sample_dirichlet", "_standard_gamma"}
)
