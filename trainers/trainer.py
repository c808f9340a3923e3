"""The one loop for every GAN: phases, schedules, averaged generator, state in and out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from trainers import losses
from trainers.augment import augment, oversampled
from trainers.config import Config, from_stored
from trainers.data.batches import IndexStream, seeded
from trainers.data.images import ImageData
from trainers.gan import Batch, Phase, System
from trainers.layers import uniform
from trainers.optimizers import make_optimizer, slots
from trainers.parallel.batch_norm import BatchNorm, synchronise
from trainers.parallel.draws import global_draws
from trainers.parallel.group import ALONE, Parallel
from trainers.schedules import lr_factor

SAMPLE_BATCH = 500


class Trainer:
    """One GAN in training on one device; everything that changes is in `state()`.

    The trainer has its own random state: code that runs between two calls changes nothing, and the random state, thread
    count and default dtype of the process are left as they were. `dtype` is that of weights, images and noise.

    If several processes train together (`parallel`), each has all of the state, draws the whole batch and takes its
    part of it. With synchronised batch norm, and losses that are means over images, they learn what one process would.
    All of them call `advance` and `sample` in the same order. With local batch norm the statistics of process 0 are
    kept.
    """

    def __init__(
        self,
        system: System,
        config: Config,
        data: ImageData,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        parallel: Parallel = ALONE,
        batch_norm: BatchNorm = "synchronised",
    ) -> None:
        """Raises ValueError if the batch cannot be shared evenly, or the data hold less than one batch."""
        if config.batch % parallel.size:
            raise ValueError(f"batch {config.batch} is no multiple of the {parallel.size} workers that share it")
        self.parallel = parallel
        self.config = config
        self.device = torch.device(device)
        self.dtype = dtype
        self.data = data.to(self.device)
        self.iteration = 0
        self._batches = 0
        self._drawn = min(config.drawn_classes or data.classes, data.classes)
        count = max(len(data.images), config.oversampling)
        self._stream = IndexStream(count, config.batch, config.sampling, config.seed)
        self._real: tuple[Tensor, Tensor]
        self._random_state = _seeded_random_state(config.seed, self.device)
        with self._own_environment():
            self.gan = system.gan(config, data.classes)
            self.nets = {name: self._placed(net) for name, net in self.gan.networks().items()}
        self._ema = deepcopy(self.nets["g"]).requires_grad_(False) if config.ema_decay else None
        for net in self.nets.values() if batch_norm == "synchronised" else ():
            synchronise(net, parallel)
        self._optimizers = {
            phase.name: make_optimizer(
                config,
                [p for name in phase.nets for p in self.nets[name].parameters()],
                getattr(config, f"{phase.name}_lr"),
            )
            for phase in self.gan.phases
        }

    @cached_property
    def _indices(self) -> Tensor | None:
        """The images of an oversampled epoch, on the device; None without oversampling. Only training needs them."""
        labels, count = self.data.labels.cpu(), self.config.oversampling
        if count <= len(labels):
            return None
        return oversampled(labels, count, seeded(self.config.seed, 3)).to(self.device)

    @property
    def images(self) -> int:
        """Images shown to the generator so far."""
        return self.iteration * self.config.batch

    @property
    def generator(self) -> nn.Module:
        """The generator that is scored: the averaged one if `ema_decay` is set."""
        return self._ema if self._ema is not None else self.nets["g"]

    def advance(self, until: int) -> dict[str, float]:
        """Trains until `images` >= `until`; returns the mean of each recorded loss, and images/s.

        Losses are summed on the device and read once at the end: the loop never waits for the device.
        """
        sums: dict[str, Tensor] = {}
        counts: Counter[str] = Counter()
        first, start = self.images, time.perf_counter()
        with self._own_environment():
            while self.images < until:
                self._iterate(sums, counts)
            self.parallel.broadcast(self._buffers())
            sums = self.parallel.mean(sums)
        means = {name: total.item() / counts[name] for name, total in sums.items()}
        seconds = time.perf_counter() - start
        return {**means, "images_per_s": (self.images - first) / seconds} if means else {}

    def sample(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Images uint8 [count, C, H, W] from the noise of `seed`, and their labels int64 [count], 0, 1, ... in turn."""
        z = torch.randn(count, self.config.latent, generator=seeded(seed, 2))
        labels = torch.arange(count) % self.data.classes
        g, training = self.generator, self.generator.training

        def generated(rows: Tensor) -> Tensor:
            return torch.cat(
                [
                    _to_uint8(g(self._noise(z[part].to(self.device, self.dtype)), labels[part].to(self.device)))
                    for part in rows.split(SAMPLE_BATCH)
                ]
            )

        g.eval()
        try:
            with torch.no_grad(), self._own_environment():
                images = self.parallel.spread(generated, torch.arange(count))
        finally:
            g.train(training)
        return images, labels.to(self.device)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that training depends on: tensors by name, and a JSON-able header."""
        tensors = _of_networks(self.nets)
        if self._ema is not None:
            tensors |= {f"ema.{key}": t for key, t in self._ema.state_dict().items()}
        for phase, optimizer in self._optimizers.items():
            for index, kept in optimizer.state_dict()["state"].items():
                tensors |= {f"opt.{phase}.{index}.{slot}": t for slot, t in kept.items() if t is not None}
        tensors |= {f"random.{kind}": t for kind, t in self._random_state.items()}
        header = {"iteration": self.iteration, "batches": self._batches, "config": self.config.model_dump(mode="json")}
        return tensors, header

    def load_state(self, tensors: dict[str, Tensor], header: dict[str, Any], source: str = "the checkpoint") -> None:
        """Continues from `state()` of a trainer of the same system, configuration and dtype.

        A field that the stored configuration lacks is taken to have the default of its class. Raises ValueError if the
        configurations differ, InputError that names `source` if the stored one is none, or has fields that this program
        does not know, RuntimeError if a count is missing in the header, or if tensors are missing, unknown, or of
        another shape or dtype.
        """
        stored = from_stored(type(self.config), header.get("config"), source)
        if stored != self.config:
            pairs = ((name, value, getattr(self.config, name)) for name, value in stored)
            changed = [f"{name} {value!r}, not {own!r}" for name, value, own in pairs if value != own]
            raise ValueError(f"the checkpoint was written with {', '.join(changed)}")
        for key in ("iteration", "batches"):
            if type(count := header.get(key)) is not int or not 0 <= count < 2**63:
                raise RuntimeError(f"its header has no whole number {key!r} of 0 or more")
        self._check_tensors(tensors, header["iteration"])
        for name, net in self.nets.items():
            net.load_state_dict(_below(tensors, f"net.{name}."))
        if self._ema is not None:
            self._ema.load_state_dict(_below(tensors, "ema."))
        for phase, optimizer in self._optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, tensor in _below(tensors, f"opt.{phase}.").items():
                index, slot = key.split(".")
                state.setdefault(int(index), {})[slot] = tensor.clone()  # Adam would take the tensor itself
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        self._random_state |= {kind: t.cpu() for kind, t in _below(tensors, "random.").items()}
        self.iteration, self._batches = header["iteration"], header["batches"]

    def _check_tensors(self, tensors: dict[str, Tensor], iteration: int) -> None:
        """Raises RuntimeError unless `tensors` have names, dtypes and shapes of a state after `iteration` steps."""
        expected = self._expected(iteration)
        # A checkpoint from a CPU has no random state of a GPU, which then begins from its seed.
        if missing := sorted((expected.keys() ^ tensors.keys()) - {"random.cuda"}):
            raise RuntimeError(f"its tensors are not this trainer's: {', '.join(missing[:5])}")
        for name in expected.keys() & tensors.keys():
            _check_form(tensors, name, expected[name])
        torch.Generator().set_state(tensors["random.cpu"])  # raises RuntimeError for bytes that are no state

    def _expected(self, iteration: int) -> dict[str, str]:
        """Dtypes and shapes of a state's tensors after `iteration` steps: optimizers keep slots from the first on."""
        forms = {name: _form(tensor) for name, tensor in self.state()[0].items() if not name.startswith("opt.")}
        count = _form(torch.zeros((), dtype=torch.promote_types(self.dtype, torch.float32)))
        for phase in self.gan.phases:
            parameters = [p for name in phase.nets for p in self.nets[name].parameters()]
            for slot in slots(self.config) if iteration else ():
                for index, parameter in enumerate(parameters):
                    forms[f"opt.{phase.name}.{index}.{slot}"] = count if slot == "step" else _form(parameter)
        return forms

    def _placed(self, net: nn.Module) -> nn.Module:
        net.to(self.device)
        if self.config.precision == "bfloat16":
            # Convolutions in bfloat16 are faster with the channels innermost; those in float32 are not.
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own types lack it
        return net

    def _iterate(self, sums: dict[str, Tensor], counts: Counter[str]) -> None:
        factor = lr_factor(self.config, self.iteration)
        for phase in self.gan.phases:
            repeat = phase.repeat if isinstance(phase.repeat, int) else getattr(self.config, phase.repeat)
            for group in self._optimizers[phase.name].param_groups:
                group["lr"] = getattr(self.config, f"{phase.name}_lr") * factor
            for _ in range(repeat):
                for name, value in self._update(phase).items():
                    value = losses.wide(value.detach())
                    sums[name] = sums[name] + value if name in sums else value
                    counts[name] += 1
        self.iteration += 1
        self._average()

    def _update(self, phase: Phase) -> dict[str, Tensor]:
        batch = self._batch(phase.fresh)
        low = self.config.precision == "bfloat16"
        with (
            torch.autocast(self.device.type, torch.bfloat16, enabled=low),
            global_draws(self.parallel, self.config.batch),
        ):
            found = self.gan.loss(phase.name, self.nets, batch)
        optimizer = self._optimizers[phase.name]
        optimizer.zero_grad()
        # Only the phase's own parameters: the other networks' weight gradients would be thrown away.
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        next(iter(found.values())).backward(inputs=parameters)
        self.parallel.reduce_gradients(parameters)
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        optimizer.step()
        self.gan.after_step(phase.name, self.nets)
        return {**found, f"grad_norm_{phase.name}": norm}

    def _batch(self, fresh: bool) -> Batch:
        """The own part of the global batch, all of which is drawn: random states stay the same in every process."""
        if fresh:
            index = self._stream(self._batches).to(self.device, non_blocking=True)
            if self._indices is not None:
                index = self._indices[index]
            images, labels = self.data.images[index].to(self.dtype) / 127.5 - 1, self.data.labels[index]
            self._real = augment(images, labels, self.data.classes, self.config)
            self._batches += 1
        real, labels = self._real
        size = self.config.batch
        shard = self.parallel.shard
        return Batch(
            real=shard(real),
            labels=shard(labels),
            z=shard(self._noise(torch.randn(size, self.config.latent, device=self.device, dtype=self.dtype))),
            fake_labels=shard(torch.randint(self._drawn, (size,), device=self.device)),
        )

    def _noise(self, normal: Tensor) -> Tensor:
        """Standard normal numbers as noise of the configured law."""
        return uniform(normal) if self.config.latent_law == "uniform" else normal

    def _buffers(self) -> Iterator[Tensor]:
        for net in (*self.nets.values(), *([self._ema] if self._ema is not None else [])):
            yield from net.buffers()

    @torch.no_grad()
    def _average(self) -> None:
        if self._ema is None:
            return
        weight = 1 - self.config.ema_decay
        torch._foreach_lerp_(list(self._ema.parameters()), list(self.nets["g"].parameters()), weight)
        for (name, average), live in zip(self._ema.named_buffers(), self.nets["g"].buffers(), strict=True):
            # Batch statistics belong to the weights, so they are averaged with them; counters and the unit vectors of
            # spectral normalisation are not.
            average.lerp_(live, weight) if "running_" in name else average.copy_(live)

    @contextmanager
    def _own_environment(self) -> Iterator[None]:
        threads, dtype, outer = torch.get_num_threads(), torch.get_default_dtype(), _random_state(self.device)
        torch.set_default_dtype(self.dtype)
        if self.device.type == "cpu":
            torch.set_num_threads(self.config.threads)
        _set_random_state(self._random_state, self.device)
        try:
            yield
        finally:
            self._random_state = _random_state(self.device)
            _set_random_state(outer, self.device)
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)


def _to_uint8(images: Tensor) -> Tensor:
    # Truncating instead of rounding would darken every image by half a level and shift FID.
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def check_networks(system: System, config: Config, classes: int, tensors: dict[str, Tensor]) -> None:
    """Raises RuntimeError unless `tensors` have those of a state's networks. Allocates no weights.

    A checkpoint's header may ask for networks of many gigabytes beside tensors of a few bytes.
    """
    with torch.device("meta"):
        nets = system.gan(config, classes).networks()
    for name, tensor in _of_networks(nets).items():
        if name not in tensors:
            raise RuntimeError(f"its tensors are not this trainer's: {name}")
        _check_form(tensors, name, _form(tensor))


def _of_networks(nets: dict[str, nn.Module]) -> dict[str, Tensor]:
    """The tensors of networks by their names in a state."""
    return {f"net.{name}.{key}": t for name, net in nets.items() for key, t in net.state_dict().items()}


def _check_form(tensors: dict[str, Tensor], name: str, expected: str) -> None:
    if (found := _form(tensors[name])) != expected:
        raise RuntimeError(f"its tensor {name} is {found}, not {expected}")


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def _seeded_random_state(seed: int, device: torch.device) -> dict[str, Tensor]:
    kinds = {"cpu", device.type}
    return {kind: torch.Generator(kind).manual_seed(seed).get_state() for kind in sorted(kinds)}
