"""Laws of several processes that train one model: together they learn what one with the whole batch learns."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tests.support.team import Team
from trainers import checkpoint
from trainers.catalogue import SYSTEMS
from trainers.config import overlay
from trainers.data.images import ImageData
from trainers.data.shapes import draw
from trainers.parallel.batch_norm import BatchNorm, synchronise
from trainers.parallel.group import ALONE, Parallel
from trainers.trainer import Trainer

BATCH = 8
STEPS = 20
SMALL = {"batch": BATCH, "width": 0.125, "threads": 1, "kimg": 1, "n_critic": 1}
WGAN_GP = {"loss": "wasserstein", "smoothing": "none", "label_flip": 0.0, "lipschitz": "penalty"}
#: System and settings for each kind of thing that could tell a part of a batch from the whole.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "no norm": ("toh-dcgan-1", {"dropout": 0.4, "init_std": 0.1}),
    "batch norm": ("narman-dcgan", {"dropout": 0.3, "smoothing": "random", "label_flip": 0.1, "ema_decay": 0.9}),
    "penalty": ("toh-dcgan-1", {**WGAN_GP, "dropout": 0.4, "init_std": 0.1}),
    "spectral": ("monir-dcgan", {"lipschitz": "spectral", "width": 0.0625}),
}
#: Of these two processes must do.
MORE_CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "penalty through batch norm": ("narman-dcgan", {**WGAN_GP, "dropout": 0.3, "dropout_place": "logit"}),
    "noise in the loss": ("das-vaegan", {"g_lr": 3e-6, "d_lr": 3e-6, "enc_lr": 3e-6, "width": 0.0625}),
    "mixed images": ("das-sagan", {"cutmix": 0.5, "saturation": 0.3, "width": 0.0625}),
}
ONE_OF_EACH_GAN = {system.gan: system_id for system_id, system in reversed(SYSTEMS.items())}
BOTH = pytest.mark.parametrize("team", [2, pytest.param(4, marks=pytest.mark.slow)], indirect=True)
TWO = pytest.mark.parametrize("team", [2], indirect=True)


@pytest.fixture(scope="module")
def processes() -> Iterator[Team]:
    team = Team(4)
    yield team
    team.stop()


@pytest.fixture(scope="module")
def team(processes: Team, request: pytest.FixtureRequest) -> Iterator[Team]:
    """So many processes as one group, for all tests of this number."""
    with processes.group(request.param):
        yield processes


def new_trainer(
    parallel: Parallel, system_id: str, settings: dict[str, Any], batch_norm: BatchNorm = "synchronised"
) -> Trainer:
    system = SYSTEMS[system_id]
    channels, height, width = system.shape
    images, labels = draw(44, seed=0)
    pixels = nn.functional.interpolate(torch.from_numpy(images)[:, :channels], (height, width)).contiguous()
    data = ImageData(pixels, torch.from_numpy(labels), classes=10, name="shapes", split="train")
    config = overlay(system.defaults, SMALL | settings)
    return Trainer(system, config, data, dtype=torch.float64, parallel=parallel, batch_norm=batch_norm)


def gradients(trainer: Trainer) -> dict[str, Tensor]:
    """Those of each network's last update."""
    named = [(f"net.{n}.{key}", p.grad) for n, net in trainer.nets.items() for key, p in net.named_parameters()]
    return {name: gradient.clone() for name, gradient in named if gradient is not None}


class Learnt(NamedTuple):
    gradients: dict[str, Tensor]
    """Of the first iteration."""
    losses: list[dict[str, float]]
    """Of the first iteration, and of all others."""
    state: dict[str, Tensor]
    header: dict[str, Any]


def learn(parallel: Parallel, system_id: str, settings: dict[str, Any], steps: int = STEPS) -> Learnt:
    trainer = new_trainer(parallel, system_id, settings)
    losses = [trainer.advance(BATCH)]
    first = gradients(trainer)
    losses.append(trainer.advance(steps * BATCH))
    for record in losses:
        record.pop("images_per_s", None)
    tensors, header = trainer.state()
    return Learnt(first, losses, {name: tensor.clone() for name, tensor in tensors.items()}, header)


@functools.cache
def alone(case: str) -> Learnt:
    """What one process learns."""
    return learn(ALONE, *(CASES | MORE_CASES)[case])


def furthest(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference between two numbers of the same place."""
    assert found.keys() == expected.keys()
    return max((tensor.double() - expected[name].double()).abs().max().item() for name, tensor in found.items())


def driven(one: Learnt) -> dict[str, Tensor]:
    """The weights of a state that something drives.

    The bias before a batch norm has the gradient 0, computed as a rounding error that Adam makes large: it differs as
    much in one process where the order of a sum does.
    """
    undriven = {name for name, gradient in one.gradients.items() if gradient.abs().max() < 1e-10}
    return {name: one.state[name] for name in one.gradients.keys() - undriven}


def assert_learns_as_one(found: list[Learnt], one: Learnt) -> None:
    for each in found:
        assert furthest(each.gradients, one.gradients) < 1e-11
        assert furthest({name: each.state[name] for name in driven(one)}, driven(one)) < 1e-9
        for record, expected in zip(each.losses, one.losses, strict=True):
            assert record == pytest.approx(expected, rel=1e-7, abs=1e-9)
        assert each.state.keys() == found[0].state.keys()
        assert [name for name, tensor in each.state.items() if not torch.equal(tensor, found[0].state[name])] == []


# What is learnt


@BOTH
@pytest.mark.parametrize("case", CASES)
def test_processes_learn_what_one_learns(team: Team, case: str) -> None:
    assert_learns_as_one(team.all(learn, *CASES[case]), alone(case))


@TWO
@pytest.mark.parametrize("case", MORE_CASES)
def test_two_processes_learn_what_one_learns(team: Team, case: str) -> None:
    assert_learns_as_one(team.all(learn, *MORE_CASES[case]), alone(case))


@TWO
@pytest.mark.parametrize("system_id", ONE_OF_EACH_GAN.values())
def test_every_gan_has_the_gradients_of_one_process(team: Team, system_id: str) -> None:
    settings = {"width": 0.0625, "cutmix": 0.0}
    one = learn(ALONE, system_id, settings, steps=1)
    for each in team.all(learn, system_id, settings, 1):
        assert furthest(each.gradients, one.gradients) < 1e-9


def continue_from(parallel: Parallel, case: str, state: Any, steps: int) -> dict[str, Tensor]:
    trainer = new_trainer(parallel, *CASES[case])
    trainer.load_state(*parallel.broadcast_state(state if parallel.rank == 0 else None))
    trainer.advance(steps * BATCH)
    return {name: tensor.clone() for name, tensor in trainer.state()[0].items()}


@BOTH
def test_a_checkpoint_goes_on_with_any_number_of_processes(team: Team, tmp_path: Path) -> None:
    half = team.all(learn, *CASES["batch norm"], STEPS // 2)[0]
    checkpoint.write(tmp_path / "c", half.state, half.header, {})
    state = checkpoint.read(tmp_path / "c")[:2]
    expected = driven(alone("batch norm"))
    for found in [
        continue_from(ALONE, "batch norm", state, STEPS),
        *team.all(continue_from, "batch norm", state, STEPS),
    ]:
        assert furthest({name: found[name] for name in expected}, expected) < 1e-9


class Half(Parallel):
    """One of two processes that hears nothing of the other."""

    def reduce_gradients(self, parameters: Any) -> None:
        return None

    def mean(self, values: Any) -> dict[str, Tensor]:
        return dict(values)

    def broadcast(self, tensors: Any) -> None:
        return None


def learn_locally(parallel: Parallel) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Gradients of D's first update, its statistics after that update, and the state after the whole iteration."""
    trainer, seen = new_trainer(parallel, *CASES["batch norm"], batch_norm="local"), list[dict[str, Tensor]]()

    def look(phase: str, nets: dict[str, nn.Module]) -> None:
        seen.append({name: buffer.clone() for name, buffer in nets["d"].named_buffers()})

    trainer.gan.after_step = look  # type: ignore[method-assign]
    trainer.advance(BATCH)
    of_d = {name: gradient for name, gradient in gradients(trainer).items() if name.startswith("net.d.")}
    return of_d, seen[0], {name: tensor.clone() for name, tensor in trainer.state()[0].items()}


@TWO
def test_local_batch_norm_sees_its_own_part_and_the_first_processes_statistics_stay(team: Team) -> None:
    both, halves = team.all(learn_locally), [learn_locally(Half(rank, 2)) for rank in (0, 1)]
    mean = {name: (gradient + halves[1][0][name]) / 2 for name, gradient in halves[0][0].items()}
    assert furthest(both[0][0], mean) < 1e-11
    assert furthest(both[0][0], {name: alone("batch norm").gradients[name] for name in mean}) > 1e-3
    for (_, statistics, _), (_, own, _) in zip(both, halves, strict=True):
        assert furthest(statistics, own) < 1e-12
    assert furthest(both[0][1], both[1][1]) > 1e-3
    assert furthest(both[0][2], both[1][2]) == 0


# Batch normalisation by itself


def normalised(parallel: Parallel, norm: nn.Module, batches: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """What `norm` does in training: tensors of the own rows, and those that all processes should have alike.

    A loss and a penalty on its gradient are differentiated, so that what depends on the images does so twice.
    """
    synchronise(norm, parallel)
    rows: list[Tensor] = []
    whole: list[Tensor] = []
    for batch in batches:
        own = parallel.shard(batch).clone().requires_grad_(True)
        y = norm(own)
        each = (y.pow(3) + y.exp()).flatten(1).sum(1)
        (slope,) = torch.autograd.grad(each.sum(), own, create_graph=True)
        loss = each.mean() + (slope.flatten(1).norm(dim=1) - 1).square().mean()
        of_images, *of_weights = torch.autograd.grad(loss, [own, *norm.parameters()])
        for parameter, gradient in zip(norm.parameters(), of_weights, strict=True):
            parameter.grad = gradient
        parallel.reduce_gradients(norm.parameters())
        # Of the sum of what the processes minimise, whose mean is that of the whole batch.
        rows += [y.detach(), slope.detach(), of_images / parallel.size]
        whole += of_weights
    norm.eval()
    rows.append(norm(parallel.shard(batches[0])).detach())
    return rows, [*whole, *(buffer.double() for buffer in norm.buffers())]


@BOTH
@pytest.mark.parametrize("settings", [{}, {"momentum": None, "eps": 0.1}, {"affine": False}], ids=str)
@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 4, 2)], ids=str)
def test_synchronised_batch_norm_is_that_of_the_whole_batch(
    team: Team, shape: tuple[int, ...], settings: dict[str, Any]
) -> None:
    generator = torch.Generator().manual_seed(0)
    norm = (nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d)(3, dtype=torch.float64, **settings)
    for parameter in norm.parameters():
        nn.init.normal_(parameter, 1, generator=generator)
    batches = list(5 + torch.randn(3, 8, *shape, dtype=torch.float64, generator=generator))
    found = team.all(normalised, norm, batches)
    rows, whole = normalised(ALONE, norm, batches)
    for place, expected in enumerate(rows):
        torch.testing.assert_close(torch.cat([own[place] for own, _ in found]), expected, rtol=1e-10, atol=1e-10)
    for _, same in found:
        torch.testing.assert_close(same, whole, rtol=1e-10, atol=1e-10)


@TWO
def test_synchronised_batch_norm_keeps_the_digits_of_images_far_from_zero(team: Team) -> None:
    batches = [1e6 + torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))]
    norm = nn.BatchNorm1d(3, dtype=torch.float64)
    found = torch.cat([rows[0] for rows, _ in team.all(normalised, norm, batches)])
    centred = batches[0] - batches[0].mean(0)
    exact = centred / (centred.square().mean(0) + norm.eps).sqrt()
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-9)


def test_one_process_keeps_pytorchs_batch_norm() -> None:
    norm = nn.BatchNorm2d(3)
    synchronise(norm, ALONE)
    assert type(norm) is nn.BatchNorm2d


def test_a_batch_norm_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="BatchNorm3d cannot be synchronised: allowed are BatchNorm1d, BatchNorm2d"):
        synchronise(nn.BatchNorm3d(3), Parallel(0, 2))


@pytest.mark.parametrize("size", [3, 16])
def test_a_batch_that_cannot_be_shared_out_evenly_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"^batch 8 is no multiple of the {size} workers that share it$"):
        new_trainer(Parallel(0, size), *CASES["no norm"])
