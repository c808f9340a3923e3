"""Laws of a run of several processes: messages, rungs, checkpoints, and what happens where one of them dies."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.team import HOST, Failed, Team
from tests.trainers.parallel.test_parallel import SMALL, new_trainer
from trainers.catalogue import SYSTEMS
from trainers.config import overlay
from trainers.data.catalogue import load
from trainers.data.images import ImageData
from trainers.data.spec import DatasetSpec
from trainers.evaluation.evaluator import Evaluator
from trainers.evaluation.extractors import Extractor, Features, build_extractor
from trainers.evaluation.reference import reference_of
from trainers.evaluation.spec import ExtractorSpec
from trainers.parallel.group import ALONE, Listening, Parallel, join, listen
from trainers.run import Run
from trainers.rungs import Rung

#: More than a batch of the extractor, and odd.
SAMPLES, AGAIN = 1001, 1101


@pytest.fixture(scope="module")
def processes() -> Iterator[Team]:
    team = Team(3)
    yield team
    team.stop()


@pytest.fixture(scope="module", params=[2, 3])
def team(processes: Team, request: pytest.FixtureRequest) -> Iterator[Team]:
    """So many processes as one group, for all tests of this number."""
    with processes.group(request.param):
        yield processes


# Messages


def exchanged(parallel: Parallel) -> dict[str, Any]:
    """What each kind of message brings."""
    rank, size = parallel.rank, parallel.size
    parameters = [torch.zeros(2, 3), torch.zeros(2), torch.zeros(1, dtype=torch.float64)]
    parameters[0].grad, parameters[2].grad = torch.full((3, 2), rank + 1.0).t(), torch.full((1,), rank + 0.5).double()
    parallel.reduce_gradients(parameters)
    buffers = [torch.full((2,), float(rank)), torch.tensor(rank), torch.full((3, 2), 7.0 + rank).t()]
    parallel.broadcast(buffers)
    state = ({"a": torch.eye(2).t(), "b": torch.tensor(3), "r": torch.get_rng_state()}, {"x": [1, 0.1]})
    return {
        "gradients": [parameter.grad for parameter in parameters],
        "mean": parallel.mean({"x": torch.tensor(rank + 1.0), "y": torch.tensor(2 * rank, dtype=torch.float64)}),
        "nothing": parallel.mean({}),
        "buffers": buffers,
        "state": parallel.broadcast_state(state if rank == 0 else None),
        "uneven": parallel.spread(lambda rows: rows[:, None] * torch.ones(2), torch.arange(4 * size + 1)),
        "several": parallel.spread(lambda rows: (rows * 2, None, rows.byte()), torch.arange(7)),
        "few": parallel.spread(lambda rows: rows + len(rows), torch.arange(size - 1)),
        "named": parallel.spread(lambda rows: Features(rows, None), torch.arange(5)),
        "shard": parallel.shard(torch.arange(2 * size)),
    }


def test_messages_bring_what_they_promise(team: Team) -> None:
    size = team.size
    for rank, found in enumerate(team.all(exchanged)):
        first, none, last = found["gradients"]
        assert none is None
        torch.testing.assert_close(first, torch.full((2, 3), (size + 1) / 2))
        torch.testing.assert_close(last, torch.tensor([size / 2], dtype=torch.float64))
        assert {name: float(value) for name, value in found["mean"].items()} == {"x": (size + 1) / 2, "y": size - 1}
        assert found["nothing"] == {}
        assert [buffer.unique().tolist() for buffer in found["buffers"]] == [[0], [0], [7]]
        tensors, header = found["state"]
        assert torch.equal(tensors["a"], torch.eye(2))
        assert tensors["b"].shape == ()
        assert header == {"x": [1, 0.1]}
        assert found["uneven"].tolist() == [[row, row] for row in range(4 * size + 1)]
        doubled, nothing, small = found["several"]
        assert (doubled.tolist(), nothing) == (list(range(0, 14, 2)), None)
        assert (small.dtype, small.tolist()) == (torch.uint8, list(range(7)))
        assert found["few"].tolist() == list(range(size - 1, 2 * size - 2))
        assert isinstance(found["named"], Features)
        assert found["named"].features.tolist() == list(range(5))
        assert found["shard"].tolist() == [2 * rank, 2 * rank + 1]


def test_one_process_gives_back_what_it_was_given() -> None:
    tensor, values, state = torch.ones(3), {"x": torch.ones(())}, ({"a": torch.ones(1)}, {"b": 1})
    assert ALONE.shard(tensor) is tensor
    assert ALONE.sum(tensor) is tensor
    assert ALONE.spread(lambda rows: rows, tensor) is tensor
    assert ALONE.mean(values) == values
    assert ALONE.broadcast_state(state) is state
    assert listen(HOST).join(1, "cpu", 1) is ALONE
    ALONE.leave()


# Rungs


def new_run(parallel: Parallel, cache: Path) -> Run:
    spec, system = DatasetSpec(name="mnist-mini"), SYSTEMS["narman-cgan"]
    train, test = load(spec, "train"), load(spec, "test")
    extractor = build_extractor(ExtractorSpec(name="lenet"), train, test, cache, "cpu")
    evaluator = Evaluator(extractor, reference_of(extractor, train, cache), ("kid", "fid", "is", "accuracy"), 0)
    config = overlay(system.defaults, SMALL | {"batch": 12, "ema_decay": 0.9})
    return Run("narman-cgan", system, config, train, evaluator, [24, 48], SAMPLES, parallel=parallel)


def passed(parallel: Parallel, cache: Path, folder: Path) -> tuple[list[Rung], bytes]:
    """History and all of the training's state after a rung, a second measurement, a restart and a rung."""
    run = new_run(parallel, cache)
    if parallel.rank == 0:
        run.next_rung()
        assert run.may_measure(AGAIN)
        run.measure_again(AGAIN)
        assert not run.may_measure(AGAIN)
        run.save(folder)
    else:
        run.follow(24)
        run.follow_measure(AGAIN)
    run = new_run(parallel, cache)
    if parallel.rank == 0:
        assert run.restore(folder)
    run.share()
    assert (run.trainer.images, run.target) == (24, 48)
    if parallel.rank == 0:
        run.next_rung()
    else:
        run.follow(48)
    return run.history, b"".join(tensor.numpy().tobytes() for _, tensor in sorted(run.trainer.state()[0].items()))


def test_rungs_of_several_processes_are_those_of_one(
    team: Team, mnist_mini_lenet: Extractor, mnist_mini: tuple[ImageData, ImageData], cache_dir: Path, tmp_path: Path
) -> None:
    reference_of(mnist_mini_lenet, mnist_mini[0], cache_dir)
    (history, state), *others = team.all(passed, cache_dir, tmp_path)
    assert others == [([], state)] * (team.size - 1)
    one = new_run(ALONE, cache_dir)
    assert one.restore(tmp_path)
    images, labels = one.trainer.sample(SAMPLES, 0)
    scores = {**one.evaluator(images, labels).scores}
    images, labels = one.trainer.sample(AGAIN, 0)
    scores["kid"] = one.evaluator(images, labels, metrics=("kid",)).scores["kid"]
    for name, score in scores.items():
        assert history[0].scores[name].n == score.n
        assert history[0].scores[name].value == pytest.approx(score.value, rel=1e-6)
        assert history[0].scores[name].stderr == (score.stderr and pytest.approx(score.stderr, rel=1e-5))
    one.next_rung()
    found, expected = history[1].losses, one.history[1].losses
    assert found.keys() == expected.keys()
    assert [found[name] for name in found if name != "images_per_s"] == pytest.approx(
        [expected[name] for name in found if name != "images_per_s"], rel=1e-4
    )
    assert history[1].scores["kid"].value == pytest.approx(one.history[1].scores["kid"].value, rel=1e-3)


def diverged(parallel: Parallel, cache: Path) -> tuple[list[Rung], float]:
    run = new_run(parallel, cache)
    if parallel.rank == 1:
        next(run.trainer.nets["g"].parameters()).data.fill_(math.nan)
    if parallel.rank == 0:
        run.next_rung()
    else:
        run.follow(24)
    return run.history, float(parallel.mean({"still": torch.tensor(1.0)})["still"])


def test_a_loss_that_is_not_finite_in_one_process_ends_the_rung_in_all(
    team: Team, mnist_mini_lenet: Extractor, cache_dir: Path
) -> None:
    (((rung,), still), *_) = team.all(diverged, cache_dir)
    assert rung.diverged is not None
    assert "loss_g is nan" in rung.diverged
    assert rung.scores == {}
    assert still == 1


# Meeting and parting


def listened(parallel: Parallel) -> set[str]:
    """Addresses at which this process can be reached, as the kernel writes them."""
    sockets = {os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
    lines = [
        line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]
    ]
    return {line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets}


@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's tables")
def test_processes_of_one_machine_can_be_reached_from_it_alone(team: Team) -> None:
    assert team.all(listened)[0] == {"0100007F"}
    assert set().union(*team.all(listened)) == {"0100007F"}


@pytest.mark.slow
def test_whoever_waits_for_nobody_says_so_in_time() -> None:
    listening = listen(HOST)
    with pytest.raises(RuntimeError):
        listening.join(2, "cpu", 2)
    with pytest.raises(RuntimeError):
        join(HOST, listening.port, 1, 2, "cpu", 2)
    assert not torch.distributed.is_initialized()


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(OSError, match="assign"):
        Listening("203.0.113.1")


def learn_until_one_dies(parallel: Parallel) -> None:
    trainer = new_trainer(parallel, "narman-dcgan", {"batch": 12})
    trainer.advance(12)
    if parallel.rank == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    trainer.advance(12_000)


def test_a_process_that_dies_ends_the_others_before_the_timeout_and_they_can_meet_again() -> None:
    team = Team(3)
    try:
        with team.group(3, timeout_s=86400):  # longer than any test may take
            first, second, third = team.outcomes(learn_until_one_dies)
        assert third == Failed("EOFError", "")
        assert first.kind == second.kind == "RuntimeError"
        with team.group(2):
            assert team.all(exchanged)
    finally:
        team.stop()
