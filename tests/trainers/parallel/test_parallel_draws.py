"""Random numbers of a part of a batch are those of the whole batch, and the rest of the world is left alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers import losses
from trainers.config import Config
from trainers.gans.vaegan import draw
from trainers.parallel.draws import global_draws
from trainers.parallel.group import Parallel
from trainers.regularizers import gradient_penalty

BATCH = 12
#: Each makes rows for the images x [B, 5] that it is given.
DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "rand": lambda x: torch.rand(len(x), 2),
    "rand of a shape": lambda x: torch.rand((len(x), 1, 1), dtype=torch.float64),
    "rand of a keyword": lambda x: torch.rand(size=(len(x),)),
    "randn": lambda x: torch.randn(x.shape),
    "randint": lambda x: torch.randint(10, (len(x),)),
    "randint between": lambda x: torch.randint(3, 10, size=(len(x), 2)),
    "randint of keywords": lambda x: torch.randint(low=3, high=10, size=(len(x),)),
    "rand_like": torch.rand_like,
    "randn_like": lambda x: torch.randn_like(x[:, 0], dtype=torch.float64),
    "randint_like": lambda x: torch.randint_like(x, 10),
    "dropout": lambda x: functional.dropout(x, 0.4),
    "dropout in place": lambda x: functional.dropout(x.clone(), 0.4, inplace=True),
    "dropout of channels": lambda x: functional.dropout2d(x[:, :, None, None].expand(-1, -1, 2, 3), 0.4),
    "dropout layer": lambda x: nn.Dropout(0.4)(x),
    "dropout of evaluation": lambda x: nn.Dropout(0.4).eval()(x),
    "noise of an autoencoder": lambda x: draw(x, x / 2),
    "targets": lambda x: losses.real_target(x[:, 0], Config(smoothing="random", label_flip=0.3)),
}


def parts_of(make: Callable[[Tensor], Tensor], x: Tensor, size: int) -> list[Tensor]:
    """What `make` gives in each of `size` processes, which draw on as the next line of each shows."""
    found, following = [], []
    for rank in range(size):
        parallel = Parallel(rank, size)
        torch.manual_seed(0)
        with global_draws(parallel, len(x)):
            found.append(make(parallel.shard(x)))
        following.append(torch.rand(3))
    assert all(torch.equal(numbers, following[0]) for numbers in following)
    return found


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("make", DRAWS.values(), ids=DRAWS)
def test_parts_are_those_of_the_whole(make: Callable[[Tensor], Tensor], size: int) -> None:
    x = torch.randn(BATCH, 5, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    whole = make(x)
    assert torch.equal(torch.cat(parts_of(make, x, size)), whole)


def test_dropout_in_bfloat16_keeps_what_that_of_the_whole_keeps() -> None:
    x = torch.randn(BATCH, 9, 5, 4, generator=torch.Generator().manual_seed(1)).bfloat16()
    x = x.to(memory_format=torch.channels_last)
    torch.manual_seed(0)
    whole = functional.dropout(x, 0.3)
    found = torch.cat(parts_of(lambda own: functional.dropout(own, 0.3), x, 3))
    assert found.dtype == torch.bfloat16
    assert torch.equal(found == 0, whole == 0)
    torch.testing.assert_close(found, whole, rtol=0.01, atol=0)


def test_batches_one_behind_the_other_are_each_cut() -> None:
    x = torch.ones(BATCH, 5)
    torch.manual_seed(0)
    real, fake = functional.dropout(torch.cat([x, -x]), 0.5).chunk(2)
    parts = [part.chunk(2) for part in parts_of(lambda own: functional.dropout(torch.cat([own, -own]), 0.5), x, 3)]
    assert torch.equal(torch.cat([own for own, _ in parts]), real)
    assert torch.equal(torch.cat([own for _, own in parts]), fake)


@pytest.mark.parametrize("shape", [(), (5,), (5, 4)])
def test_what_is_no_part_of_a_batch_is_the_same_everywhere(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    whole = torch.rand(shape)
    assert all(torch.equal(part, whole) for part in parts_of(lambda _: torch.rand(shape), torch.ones(BATCH), 3))


def test_a_gradient_penalty_lies_at_the_points_of_the_whole_batch() -> None:
    generator = torch.Generator().manual_seed(1)
    real, fake = torch.randn(2, BATCH, 1, 3, 3, generator=generator)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.Tanh(), nn.Linear(4, 1))

    def penalty(both: Tensor) -> Tensor:
        return gradient_penalty(lambda images, labels: critic(images), *both.unbind(1), both).value  # type: ignore[arg-type]

    torch.manual_seed(0)
    whole = penalty(torch.stack([real, fake], 1))
    parts = parts_of(penalty, torch.stack([real, fake], 1), 4)
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


@pytest.mark.parametrize(
    "refused",
    [
        lambda x: torch.randperm(len(x)),
        lambda x: torch.bernoulli(x),
        lambda x: x.clone().uniform_(),
        lambda x: torch.normal(x, x),
        lambda x: torch.distributions.Beta(x, x).sample(),
        lambda x: functional.alpha_dropout(x, 0.5, True),
    ],
)
def test_what_cannot_be_cut_is_refused(refused: Callable[[Tensor], Tensor]) -> None:
    refused(torch.ones(4))
    with global_draws(Parallel(0, 1), 4):
        refused(torch.ones(4))
    with (
        pytest.raises(NotImplementedError, match="cannot be drawn for a part of a batch"),
        global_draws(Parallel(0, 2), 8),
    ):
        refused(torch.ones(4))
