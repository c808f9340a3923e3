"""Batches are a pure function of (seed, k), and shuffled epochs show every image at most once."""

from __future__ import annotations

import pytest
import torch

from trainers.data.batches import IndexStream, seeded

COUNT, BATCH = 23, 5
PER_EPOCH = COUNT // BATCH
SAMPLINGS = pytest.mark.parametrize("sampling", ["shuffled", "random"])


def _epoch(stream: IndexStream, epoch: int) -> list[int]:
    return torch.cat([stream(epoch * PER_EPOCH + part) for part in range(PER_EPOCH)]).tolist()


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_a_shuffled_epoch_repeats_no_image_and_drops_the_part_that_fills_no_batch(epoch: int) -> None:
    chosen = _epoch(IndexStream(COUNT, BATCH, "shuffled", seed=0), epoch)
    assert len(chosen) == PER_EPOCH * BATCH
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(range(COUNT))


def test_a_shuffled_epoch_of_whole_batches_is_a_permutation() -> None:
    stream = IndexStream(20, 5, "shuffled", seed=0)
    assert sorted(torch.cat([stream(k) for k in range(4)]).tolist()) == list(range(20))


def test_every_shuffled_epoch_has_an_order_of_its_own_and_drops_other_images() -> None:
    stream = IndexStream(COUNT, BATCH, "shuffled", seed=0)
    epochs = [_epoch(stream, epoch) for epoch in range(20)]
    assert len({tuple(epoch) for epoch in epochs}) == 20
    assert set().union(*epochs) == set(range(COUNT))


@SAMPLINGS
def test_a_batch_does_not_depend_on_what_was_asked_before(sampling: str) -> None:
    in_turn = IndexStream(COUNT, BATCH, sampling, seed=3)
    expected = [in_turn(k).tolist() for k in range(30)]
    in_disorder = IndexStream(COUNT, BATCH, sampling, seed=3)
    order = torch.randperm(30, generator=seeded(0)).tolist()
    assert {k: in_disorder(k).tolist() for k in order} == dict(enumerate(expected))


@SAMPLINGS
def test_batches_neither_read_nor_move_the_global_random_state(sampling: str) -> None:
    torch.manual_seed(1)
    first = IndexStream(COUNT, BATCH, sampling, seed=3)(2)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(IndexStream(COUNT, BATCH, sampling, seed=3)(2), first)
    assert torch.equal(torch.get_rng_state(), before)


@SAMPLINGS
def test_seeds_give_unlike_batches(sampling: str) -> None:
    drawn = {tuple(IndexStream(10_000, 50, sampling, seed=seed)(k).tolist()) for seed in range(10) for k in range(10)}
    assert len(drawn) == 100


def test_random_batches_reach_every_image_about_equally_often() -> None:
    stream = IndexStream(COUNT, BATCH, "random", seed=0)
    counts = torch.bincount(torch.cat([stream(k) for k in range(4600)]), minlength=COUNT)
    # 1,000 expected per image, deviation 31.
    assert counts.min() > 1000 - 155
    assert counts.max() < 1000 + 155


def test_random_batches_draw_with_replacement() -> None:
    stream = IndexStream(COUNT, BATCH, "random", seed=0)
    assert any(len(set(stream(k).tolist())) < BATCH for k in range(20))


def test_random_batches_may_be_larger_than_the_data() -> None:
    assert IndexStream(3, 8, "random", seed=0)(0).shape == (8,)


def test_a_shuffled_epoch_without_a_whole_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch 24 .* 23 images"):
        IndexStream(23, 24, "shuffled", seed=0)


@SAMPLINGS
def test_indices_are_int64(sampling: str) -> None:
    assert IndexStream(COUNT, BATCH, sampling, seed=0)(0).dtype == torch.int64
