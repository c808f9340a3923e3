"""Laws of training in bfloat16: the same algorithm to its few digits, and as repeatable as float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.golden import new_trainer
from tests.trainers.test_conformance import equal

#: One of each kind of loss, with every kind of layer, penalty and phase among them.
KINDS = ["narman-cgan", "monir-sagan", "das-vaegan", "das-infogan", "das-acgan", "wgan-gp-32", "sngan-32"]


def _steps(system_id: str, precision: str, steps: int = 1) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights before and after some steps of plain gradient descent, in which the gradients show."""
    settings = {
        "optimizer": "sgd",
        "beta1": 0.0,
        "g_lr": 0.01,
        "d_lr": 0.01,
        "dropout": 0.0,
        "init_std": 0.1,
        "batch": 16,
    }
    trainer = new_trainer(system_id, precision=precision, **settings)
    before = {
        f"{name}.{key}": p.detach().clone() for name, net in trainer.nets.items() for key, p in net.named_parameters()
    }
    trainer.advance(steps * trainer.config.batch)
    after = {f"{name}.{key}": p.detach() for name, net in trainer.nets.items() for key, p in net.named_parameters()}
    return before, after


@pytest.mark.parametrize("system_id", KINDS)
def test_gradients_in_bfloat16_point_where_those_in_float32_point(system_id: str) -> None:
    changes = []
    for precision in ("float32", "bfloat16"):
        before, after = _steps(system_id, precision)
        changes.append(torch.cat([(after[key] - before[key]).flatten() for key in before]))
    assert not torch.equal(*changes)
    assert (
        torch.nn.functional.cosine_similarity(*changes, dim=0) > 0.8
    )  # unlike directions of so many dimensions give 0


@pytest.mark.parametrize("system_id", KINDS)
def test_every_parameter_that_learns_in_float32_learns_in_bfloat16(system_id: str) -> None:
    moved = []
    for precision in ("float32", "bfloat16"):
        before, after = _steps(system_id, precision, steps=2)
        moved.append({key for key in before if not torch.equal(before[key], after[key])})
    assert moved[0] <= moved[1]


@pytest.mark.parametrize("system_id", KINDS)
def test_losses_keep_their_digits_over_many_steps(system_id: str) -> None:
    trainer = new_trainer(system_id, precision="bfloat16")
    loss, seen = trainer.gan.loss, []

    def recorded(*arguments: Any) -> dict[str, Tensor]:
        found = loss(*arguments)
        if "d_real" in found:
            seen.append(found["d_real"].item())
        return found

    trainer.gan.loss = recorded  # type: ignore[method-assign]
    mean = trainer.advance(20 * trainer.config.batch)["d_real"]
    assert mean == pytest.approx(sum(seen) / len(seen), rel=1e-4, abs=1e-6)


def test_weights_and_their_averages_stay_float32() -> None:
    trainer = new_trainer("narman-cgan", precision="bfloat16", ema_decay=0.9)
    trainer.advance(8)
    assert {t.dtype for t in trainer.state()[0].values() if t.is_floating_point()} == {torch.float32}


def test_a_restart_in_bfloat16_changes_no_bit() -> None:
    whole, half, resumed = (new_trainer("monir-sagan", precision="bfloat16") for _ in range(3))
    whole.advance(16)
    half.advance(8)
    resumed.load_state(*half.state())
    resumed.advance(16)
    assert equal(whole.state()[0], resumed.state()[0])
