"""One run on several processes: each has the whole networks and a part of every batch.

Only the Trainer and the Run know about this; GANs are written for one model on one device. Processes connect at an
address of the first one (`listen`, `join`) and then exchange data by collectives, which all of them must call in the
same order.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar, cast

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor

from trainers.parallel.interfaces import facing, resolved

_HEADER = "header"
#: Result of a function for `spread`: a tensor, or a tuple of tensors and None.
_Rows = TypeVar("_Rows", bound="Tensor | tuple[Tensor | None, ...]")

State = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors by name and a JSON-able header, as `Trainer.state` gives them."""


class Parallel:
    """This process as number `rank` of the `size` processes that train one model.

    All methods except `shard` and `leave` are collectives: all processes call them in the same order and wait for each
    other. A process that waits raises RuntimeError as soon as a connection breaks, or at the timeout of `join`; with
    NCCL, its watchdog ends the process instead. With size 1 every method returns its argument.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | str = "cpu") -> None:
        self.rank, self.size, self.device = rank, size, torch.device(device)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parallel:
        return self  # modules that hold it may be copied, the group is not

    def shard(self, tensor: Tensor) -> Tensor:
        """This process's rows of a global batch [N, ...], a view [N / size, ...]. N must be a multiple of the size."""
        if self.size == 1:
            return tensor
        own = len(tensor) // self.size
        return tensor.narrow(0, self.rank * own, own)

    def reduce_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replaces each gradient by its mean over the processes, with one message per dtype.

        Parameters without a gradient are skipped: all processes run the same graph, so it is missing in all of them.
        """
        if self.size > 1:
            self._flat([p.grad for p in parameters if p.grad is not None], self._average)

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean of each scalar over the processes, in float64, with one message for all."""
        if self.size == 1 or not values:
            return dict(values)
        together = torch.stack([value.detach().to(self.device, torch.float64) for value in values.values()])
        self._average(together)
        return dict(zip(values, together.unbind(), strict=True))

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, differentiable any number of times.

        Gradients are those of the sum of the losses of all processes.
        """
        return tensor if self.size == 1 else cast(Tensor, _Sum.apply(tensor))  # type: ignore[no-untyped-call]

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites each tensor with that of process 0, with one message per dtype."""
        if self.size > 1:
            self._flat(list(tensors), lambda flat: dist.broadcast(flat, src=0))

    def broadcast_state(self, state: State | None) -> State:
        """The state of process 0, on the CPU of every process. The other processes pass None."""
        if self.size == 1:
            assert state is not None
            return state
        whole = None if state is None else _packed(*state)
        length = torch.tensor([0 if whole is None else len(whole)], device=self.device)
        dist.broadcast(length, src=0)
        content = torch.empty(int(length), dtype=torch.uint8, device=self.device)
        if whole is not None:
            content.copy_(torch.frombuffer(whole, dtype=torch.uint8))
        dist.broadcast(content, src=0)
        return state if state is not None else _unpacked(content.cpu().numpy().tobytes())

    def spread(self, function: Callable[[Tensor], _Rows], tensor: Tensor) -> _Rows:
        """`function(tensor)`, computed in parts by all processes; `function` returns one row per row of its argument.

        `function` returns a tensor [n, ...], or a tuple of such tensors and None, on one device and of the same types
        in each process. Each process computes a contiguous part; the parts differ by at most one row. All processes get
        all rows, in order. With fewer rows than processes, each process computes all.
        """
        if self.size == 1 or len(tensor) < self.size:
            return function(tensor)
        parts = tensor.tensor_split(self.size)
        found, lengths = function(parts[self.rank]), [len(part) for part in parts]
        if isinstance(found, Tensor):
            return cast(_Rows, self._gathered(found, lengths))
        columns = [None if column is None else self._gathered(column, lengths) for column in found]
        kind: Any = type(found)
        return cast(_Rows, kind(*columns) if hasattr(kind, "_fields") else kind(columns))

    def leave(self) -> None:
        """Leaves the group, without a message to the others and without waiting; the process may join another group."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def _average(self, flat: Tensor) -> None:
        dist.all_reduce(flat)
        flat.div_(self.size)

    def _flat(self, tensors: Sequence[Tensor], collective: Callable[[Tensor], Any]) -> None:
        """Applies `collective` to all tensors of each dtype as one buffer, which then overwrites them."""
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            alike = [tensor.detach() for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in alike]).to(self.device)
            collective(flat)
            pieces = flat.split([tensor.numel() for tensor in alike])
            for tensor, piece in zip(alike, pieces, strict=True):
                tensor.copy_(piece.view(tensor.shape))

    def _gathered(self, part: Tensor, lengths: list[int]) -> Tensor:
        """The parts of all processes joined in order; they have `lengths` rows."""
        padded = torch.zeros((max(lengths), *part.shape[1:]), dtype=part.dtype, device=self.device)
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, padded)
        return torch.cat([rows[:length] for rows, length in zip(parts, lengths, strict=True)]).to(part.device)


#: A single process.
ALONE = Parallel()


class _Sum(torch.autograd.Function):
    """The sum over all processes. The losses of all are summed too, so the backward pass is the same sum."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return cast(Tensor, _Sum.apply(gradients[0]))  # type: ignore[no-untyped-call]


class Listening:
    """An address at which process 0 waits for the others; no other service of its machine is reachable there."""

    def __init__(self, host: str) -> None:
        """Opens a free port at `host`, an address of this machine, and at no other address. Raises OSError."""
        self.host = host
        self._socket = socket.create_server((host, 0), family=resolved(host)[0])
        self.port: int = self._socket.getsockname()[1]

    def join(self, size: int, device: torch.device | str, timeout_s: float) -> Parallel:
        """Like `join`, for process 0. The address serves one group."""
        if size == 1:
            self.close()
            return ALONE
        return _meet(self.host, self.port, 0, size, torch.device(device), timeout_s, self._socket.detach())

    def close(self) -> None:
        """Closes the port, if no group was made from it."""
        self._socket.close()


def listen(host: str) -> Listening:
    """Opens a port at `host` for process 0; the others need its number. Raises OSError if `host` is another machine."""
    return Listening(host)


def join(host: str, port: int, rank: int, size: int, device: torch.device | str, timeout_s: float) -> Parallel:
    """Joins as process `rank` of `size`, and returns when all have joined; process 0 listens at `host` and `port`.

    The processes use NCCL if `device` is a GPU, else gloo, over the network interface that leads to `host`: with a
    loopback address, other machines cannot reach them. Raises RuntimeError if not all join within `timeout_s` seconds,
    which is also the timeout of each collective.
    """
    return _meet(host, port, rank, size, torch.device(device), timeout_s, None)


def _meet(
    host: str, port: int, rank: int, size: int, device: torch.device, timeout_s: float, listening: int | None
) -> Parallel:
    timeout = timedelta(seconds=timeout_s)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    store = dist.TCPStore(  # type: ignore[attr-defined]  # torch's own types lack it
        host, port, is_master=rank == 0, timeout=timeout, wait_for_workers=False, master_listen_fd=listening
    )
    with facing(host):
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=timeout,
            device_id=device if device.type == "cuda" else None,
        )
        met = Parallel(rank, size, device)
        try:
            # The first message opens the connections. Without it a process could end before the others are connected.
            met.mean({"here": torch.ones(())})
        except RuntimeError:
            met.leave()
            raise
    return met


def _packed(tensors: dict[str, Tensor], header: dict[str, Any]) -> bytearray:
    # The format of checkpoints: exact, and reading it runs no code.
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return bytearray(safetensors.torch.save(whole, {_HEADER: json.dumps(header)}))


def _unpacked(content: bytes) -> State:
    length = int.from_bytes(content[:8], "little")  # of the header before the numbers
    header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_HEADER])
    return safetensors.torch.load(content), header
