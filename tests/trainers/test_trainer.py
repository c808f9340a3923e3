"""The loop counts what it promises, disturbs nobody, and goes on after a restart as if nothing had happened."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainers import checkpoint
from trainers.catalogue import SYSTEMS
from trainers.config import Config, overlay
from trainers.data.images import ImageData
from trainers.data.shapes import draw
from trainers.gan import System
from trainers.trainer import Trainer

BATCH = 4
#: Five whole batches per shuffled epoch, so that restarts fall inside of epochs.
COUNT = 22
#: The plainest systems: the loop is the same for all, and test_conformance.py runs every system through it.
PLAIN = pytest.mark.parametrize("system_id", ["monir-dcgan", "narman-dcgan", "narman-cgan"])
SETTINGS: dict[str, dict[str, Any]] = {
    "as-is": {},
    "shuffled-cosine": {"sampling": "shuffled", "schedule": "cosine", "smoothing": "random", "dropout": 0.3},
    "random-linear": {"sampling": "random", "schedule": "linear", "ema_decay": 0.9, "n_critic": 2},
    "wasserstein-exponential": {
        "loss": "wasserstein",
        "smoothing": "none",
        "lipschitz": "clip",
        "schedule": "exponential",
        "schedule_period": 2,
        "sampling": "shuffled",
        "n_critic": 2,
        "ema_decay": 0.5,
        "dropout": 0.5,
    },
    "fixed-constant": {"smoothing": "fixed", "schedule": "constant", "sampling": "random", "beta1": 0.0},
}
SMALL = {"batch": BATCH, "width": 0.125, "threads": 1, "kimg": 0.04}


def _data(system: System) -> ImageData:
    channels, height, width = system.shape
    images, labels = draw(COUNT, seed=0)
    cut = torch.from_numpy(images)[:, :channels, :height, :width].contiguous()
    return ImageData(cut, torch.from_numpy(labels), classes=10, name="shapes", split="train")


def _config(system_id: str, **settings: Any) -> Config:
    return overlay(SYSTEMS[system_id].defaults, SMALL | settings)


def _trainer(system_id: str, **settings: Any) -> Trainer:
    system = SYSTEMS[system_id]
    return Trainer(system, _config(system_id, **settings), _data(system))


def _snapshot(trainer: Trainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.state()[0].items()}


def _assert_equal(first: Trainer, second: Trainer) -> None:
    (tensors, header), (others, other_header) = first.state(), second.state()
    assert header == other_header
    assert tensors.keys() == others.keys()
    assert [name for name, tensor in tensors.items() if not torch.equal(tensor, others[name])] == []


@PLAIN
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_run_that_was_interrupted_ends_with_the_same_bits(
    system_id: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    whole = _trainer(system_id, **settings)
    whole.advance(7 * BATCH)
    first = _trainer(system_id, **settings)
    first.advance(3 * BATCH)
    tensors, header = first.state()
    checkpoint.write(tmp_path / "c", tensors, header, {})
    second = _trainer(system_id, **settings)
    tensors, header, _ = checkpoint.read(tmp_path / "c")
    second.load_state(tensors, header)
    second.advance(7 * BATCH)
    _assert_equal(whole, second)


@PLAIN
def test_a_restart_before_the_first_step_changes_nothing(system_id: str, tmp_path: Path) -> None:
    first, second = _trainer(system_id), _trainer(system_id)
    checkpoint.write(tmp_path / "c", *first.state(), {})
    tensors, header, _ = checkpoint.read(tmp_path / "c")
    second.load_state(tensors, header)
    for trainer in (first, second):
        trainer.advance(BATCH)
    _assert_equal(first, second)


@PLAIN
def test_two_trainers_of_one_configuration_end_with_the_same_bits_and_another_seed_does_not(system_id: str) -> None:
    first, second, other = (_trainer(system_id, seed=seed) for seed in (4, 4, 5))
    for trainer in (first, second, other):
        trainer.advance(2 * BATCH)
    _assert_equal(first, second)
    theirs = other.state()[0]
    assert any(not torch.equal(tensor, theirs[name]) for name, tensor in first.state()[0].items())


@PLAIN
def test_whatever_happens_between_two_advances_changes_nothing(system_id: str) -> None:
    settings = SETTINGS["shuffled-cosine"] | {"ema_decay": 0.9}
    undisturbed = _trainer(system_id, **settings)
    undisturbed.advance(4 * BATCH)
    disturbed, neighbour = _trainer(system_id, **settings), _trainer(system_id, seed=9, **settings)
    threads = torch.get_num_threads()
    try:
        for step in range(1, 5):
            torch.manual_seed(step)
            torch.rand(step)
            torch.set_num_threads(1 + step % 2)
            disturbed.advance(step * BATCH)
            neighbour.advance(step * BATCH)
    finally:
        torch.set_num_threads(threads)
    _assert_equal(undisturbed, disturbed)


@PLAIN
def test_the_outer_random_state_and_thread_count_are_left_as_they_were(system_id: str) -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    try:
        torch.set_num_threads(2)
        trainer = _trainer(system_id, **SETTINGS["shuffled-cosine"])
        trainer.advance(BATCH)
        trainer.sample(3, seed=0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_environment_is_restored_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = _trainer("narman-cgan", threads=2)
    state, threads = torch.get_rng_state(), torch.get_num_threads()

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(trainer.gan, "after_step", fail)
    with pytest.raises(ZeroDivisionError):
        trainer.advance(BATCH)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@PLAIN
@pytest.mark.parametrize("n_critic", [1, 3])
def test_the_discriminator_steps_n_critic_times_per_generator_step(system_id: str, n_critic: int) -> None:
    trainer = _trainer(system_id, n_critic=n_critic)
    steps: Counter[str] = Counter()
    after_step = trainer.gan.after_step

    def count(phase: str, nets: dict[str, Any]) -> None:
        steps[phase] += 1
        after_step(phase, nets)

    trainer.gan.after_step = count  # type: ignore[method-assign]
    trainer.advance(4 * BATCH)
    assert steps == {"d": 4 * n_critic, "g": 4}
    tensors, header = trainer.state()
    assert header["iteration"] == 4
    assert trainer.images == 4 * BATCH
    assert {int(t) for name, t in tensors.items() if name.startswith("opt.d.") and name.endswith(".step")} == {
        4 * n_critic
    }
    assert {int(t) for name, t in tensors.items() if name.startswith("opt.g.") and name.endswith(".step")} == {4}


@pytest.mark.parametrize("n_critic", [1, 3])
def test_every_critic_update_draws_a_fresh_batch_and_the_generator_none(n_critic: int) -> None:
    trainer = _trainer("narman-dcgan", n_critic=n_critic)
    trainer.advance(2 * BATCH)
    assert trainer.state()[1]["batches"] == 2 * n_critic


@PLAIN
def test_a_phase_changes_the_parameters_of_its_own_network_alone(system_id: str) -> None:
    trainer = _trainer(system_id, n_critic=2)
    seen: list[tuple[str, dict[str, bytes]]] = []

    def digest() -> dict[str, bytes]:
        return {
            name: b"".join(p.detach().numpy().tobytes() for p in net.parameters()) for name, net in trainer.nets.items()
        }

    before = digest()
    trainer.gan.after_step = lambda phase, nets: seen.append((phase, digest()))  # type: ignore[method-assign]
    trainer.advance(2 * BATCH)
    assert [phase for phase, _ in seen] == ["d", "d", "g"] * 2
    for phase, after in seen:
        assert {name for name in after if after[name] != before[name]} == {phase}
        before = after


@PLAIN
def test_a_critics_parameters_are_bounded_after_each_of_its_steps(system_id: str) -> None:
    trainer = _trainer(system_id, loss="wasserstein", smoothing="none", lipschitz="clip", n_critic=2, clip_value=0.015)
    after_step, largest = trainer.gan.after_step, []

    def observe(phase: str, nets: dict[str, Any]) -> None:
        after_step(phase, nets)
        if phase == "d":
            largest.append(max(p.abs().max().item() for p in nets["d"].parameters()))

    trainer.gan.after_step = observe  # type: ignore[method-assign]
    trainer.advance(2 * BATCH)
    assert len(largest) == 4
    assert largest == pytest.approx([0.015] * 4)
    assert max(p.abs().max().item() for p in trainer.nets["g"].parameters()) > 0.5


def test_training_stops_at_the_first_whole_batch_that_reaches_the_goal() -> None:
    trainer = _trainer("narman-cgan")
    trainer.advance(2 * BATCH + 1)
    assert trainer.images == 3 * BATCH
    assert trainer.advance(3 * BATCH) == {}
    assert trainer.images == 3 * BATCH


def test_losses_are_means_since_the_last_call() -> None:
    split, whole = _trainer("narman-cgan"), _trainer("narman-cgan")
    parts = [split.advance(step * BATCH)["loss_d"] for step in (1, 2)]
    assert whole.advance(2 * BATCH)["loss_d"] == pytest.approx(sum(parts) / 2, rel=1e-6)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_both_learning_rates_follow_the_schedule(schedule: str) -> None:
    # Adam's first step is lr in every entry that has a gradient, whatever the gradient's size.
    trainer = _trainer(
        "narman-cgan", schedule=schedule, beta1=0.0, beta2=0.0, g_lr=1e-3, d_lr=4e-3, kimg=4 * BATCH / 1000
    )
    for factor in {"linear": (1.0, 0.75, 0.5), "cosine": (1.0, 0.853553, 0.5)}[schedule]:
        before = {name: [p.clone() for p in net.parameters()] for name, net in trainer.nets.items()}
        trainer.advance(trainer.images + BATCH)
        for name, lr in (("g", 1e-3), ("d", 4e-3)):
            moved = [
                (p - q).abs().max().item() for p, q in zip(trainer.nets[name].parameters(), before[name], strict=True)
            ]
            assert max(moved) == pytest.approx(lr * factor, rel=1e-2)


def test_the_averaged_generator_by_hand() -> None:
    trainer = _trainer("narman-dcgan", ema_decay=0.75)
    average = {key: tensor.clone() for key, tensor in trainer.nets["g"].state_dict().items()}
    for _ in range(3):
        trainer.advance(trainer.images + BATCH)
        for key, live in trainer.nets["g"].state_dict().items():
            average[key] = 0.75 * average[key] + 0.25 * live if live.is_floating_point() else live.clone()
    averaged = trainer.generator.state_dict()
    assert averaged.keys() == average.keys()
    for key, expected in average.items():
        torch.testing.assert_close(averaged[key], expected, rtol=1e-5, atol=1e-7)
    assert not any(p.requires_grad for p in trainer.generator.parameters())


def test_without_averaging_the_live_generator_is_scored() -> None:
    trainer = _trainer("narman-dcgan", ema_decay=0.0)
    assert trainer.generator is trainer.nets["g"]
    assert not any(name.startswith("ema.") for name in trainer.state()[0])


def test_averaging_does_not_change_the_training() -> None:
    plain, averaged = _trainer("narman-dcgan", ema_decay=0.0), _trainer("narman-dcgan", ema_decay=0.9)
    for trainer in (plain, averaged):
        trainer.advance(3 * BATCH)
    theirs = averaged.state()[0]
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in plain.state()[0].items())


def test_real_images_reach_the_discriminator_in_the_range_of_tanh(monkeypatch: pytest.MonkeyPatch) -> None:
    system = SYSTEMS["narman-cgan"]
    data = _data(system)
    data.images[0, 0, 0, 0], data.images[1, 0, 0, 0] = 0, 255
    trainer = Trainer(system, _config("narman-cgan", batch=COUNT, kimg=1, sampling="shuffled"), data)
    seen = []
    loss = trainer.gan.loss

    def look(phase: str, nets: Any, batch: Any) -> dict[str, Tensor]:
        seen.append(batch)
        return loss(phase, nets, batch)

    monkeypatch.setattr(trainer.gan, "loss", look)
    trainer.advance(COUNT)
    for batch in seen:
        assert (batch.real.min(), batch.real.max()) == (-1, 1)
        assert torch.bincount(batch.labels).tolist() == torch.bincount(data.labels).tolist()
    assert not torch.equal(seen[0].z, seen[1].z)


def test_a_batch_holds_the_images_with_their_own_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    system = SYSTEMS["narman-cgan"]
    labels = torch.arange(20) % 10
    images = (labels * 20).to(torch.uint8)[:, None, None, None].expand(-1, *system.shape).contiguous()
    trainer = Trainer(system, _config("narman-cgan"), ImageData(images, labels, 10, "levels", "train"))
    loss = trainer.gan.loss

    def look(phase: str, nets: Any, batch: Any) -> dict[str, Tensor]:
        levels = ((batch.real[:, 0, 0, 0] + 1) * 127.5).round()
        assert torch.equal(levels, batch.labels * 20.0)
        return loss(phase, nets, batch)

    monkeypatch.setattr(trainer.gan, "loss", look)
    trainer.advance(5 * BATCH)


def test_a_state_of_another_configuration_is_refused() -> None:
    tensors, header = _trainer("narman-cgan").state()
    with pytest.raises(ValueError, match=r"written with g_lr 0.0002, not 0.001"):
        _trainer("narman-cgan", g_lr=1e-3).load_state(tensors, header)


@pytest.mark.parametrize("prefix", ["net.g.", "net.d.", "ema.", "opt.g.", "opt.d.", "random."])
def test_a_state_with_missing_tensors_is_refused(prefix: str) -> None:
    trainer = _trainer("narman-cgan", ema_decay=0.9)
    trainer.advance(BATCH)
    tensors, header = trainer.state()
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    assert len(rest) < len(tensors)
    with pytest.raises(RuntimeError):
        _trainer("narman-cgan", ema_decay=0.9).load_state(rest, header)


def test_a_trainer_that_took_over_a_state_shares_no_memory_with_its_source() -> None:
    first, second = _trainer("narman-cgan"), _trainer("narman-cgan")
    first.advance(BATCH)
    second.load_state(*first.state())
    before = _snapshot(first)
    second.advance(3 * BATCH)
    assert [name for name, tensor in first.state()[0].items() if not torch.equal(tensor, before[name])] == []


def test_a_states_header_is_json() -> None:
    header = _trainer("narman-cgan").state()[1]
    assert json.loads(json.dumps(header)) == header
