"""Learning rates start at their configured value and end where their schedule says; configurations are strict."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from trainers.catalogue import SYSTEMS
from trainers.config import Config, configure, overlay
from trainers.errors import InputError
from trainers.schedules import lr_factor

STEPS = 200
FALLING = pytest.mark.parametrize("schedule", ["linear", "cosine"])


def _config(schedule: str) -> Config:
    return Config.model_validate({"schedule": schedule, "kimg": STEPS * 50 / 1000, "batch": 50})


def test_exponential_is_a_staircase_of_the_configured_rate_and_period() -> None:
    config = overlay(_config("exponential"), {"schedule_rate": 0.5, "schedule_period": 10})
    assert [lr_factor(config, i) for i in (0, 9, 10, 19, 20, 39)] == [1, 1, 0.5, 0.5, 0.25, 0.125]


def test_the_conditional_gan_reaches_its_reported_final_rate_at_step_18000() -> None:
    config = SYSTEMS["narman-cgan"].defaults
    assert config.kimg * 1000 / config.batch == 18_000
    assert config.g_lr * lr_factor(config, 18_000) == pytest.approx(3.16e-5, rel=2e-3)
    assert config.g_lr * lr_factor(config, 18_000) == pytest.approx(2e-4 * 0.95**36, rel=1e-12)


def test_constant_never_changes() -> None:
    assert {lr_factor(_config("constant"), i) for i in range(3 * STEPS)} == {1.0}


@FALLING
def test_falling_schedules_go_from_1_to_0_and_never_rise(schedule: str) -> None:
    factors = [lr_factor(_config(schedule), i) for i in range(STEPS + 1)]
    assert factors[0] == 1
    assert factors[-1] == pytest.approx(0, abs=1e-12)
    assert all(after < before for before, after in pairwise(factors))


@FALLING
def test_falling_schedules_stay_at_0_beyond_the_end(schedule: str) -> None:
    assert lr_factor(_config(schedule), 2 * STEPS) == pytest.approx(0, abs=1e-12)


def test_linear_and_cosine_by_hand_at_a_quarter() -> None:
    assert lr_factor(_config("linear"), STEPS // 4) == pytest.approx(0.75)
    assert lr_factor(_config("cosine"), STEPS // 4) == pytest.approx((1 + math.sqrt(0.5)) / 2)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"g_lrr": 1e-4}, "g_lrr"),
    ({"g_lr": 0}, "g_lr"),
    ({"g_lr": math.nan}, "g_lr"),
    ({"kimg": math.inf}, "kimg"),
    ({"kimg": -1}, "kimg"),
    ({"batch": 1}, "batch"),
    ({"batch": 2.5}, "batch"),
    ({"beta1": 1}, "beta1"),
    ({"n_critic": 0}, "n_critic"),
    ({"seed": -1}, "seed"),
    ({"dropout": 1.0}, "dropout"),
    ({"ema_decay": 1.0}, "ema_decay"),
    ({"smoothing_strength": 0.5}, "smoothing_strength"),
    ({"schedule": "step"}, "schedule"),
    ({"loss": "hing"}, "loss"),
    ({"width": "wide"}, "width"),
    ({"loss": "wasserstein", "smoothing": "fixed"}, "smoothing"),
]


@pytest.mark.parametrize(("values", "key"), BAD, ids=lambda part: str(part))
def test_a_bad_setting_is_refused_with_its_source_and_key(values: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError, match=rf"^from here: .*\b{key}\b"):
        configure(Config(), values, "from here")


@pytest.mark.parametrize(("values", "key"), BAD, ids=lambda part: str(part))
def test_an_overlay_is_validated_as_a_whole(values: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        overlay(Config(), values)


def test_an_unknown_key_is_answered_with_all_known_ones() -> None:
    with pytest.raises(InputError, match="unknown key") as caught:
        configure(Config(), {"g_lrr": 1e-4}, "from here")
    assert all(key in str(caught.value) for key in Config.model_fields)


def test_every_bad_key_is_named_at_once() -> None:
    with pytest.raises(InputError, match=r"g_lr: (.|\n)*d_lr: (.|\n)*hue: ") as caught:
        configure(Config(), {"hue": 1, "g_lr": 2, "d_lr": -1}, "from here")
    assert len(str(caught.value).splitlines()) == 3


def test_the_message_holds_the_bad_value() -> None:
    with pytest.raises(InputError, match=r"less than or equal to 1, got 2\.5"):
        configure(Config(), {"g_lr": 2.5}, "from here")


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Config().__setattr__("g_lr", 1.0)


def test_an_overlay_keeps_what_it_does_not_name() -> None:
    defaults = SYSTEMS["monir-dcgan"].defaults
    changed = configure(defaults, {"g_lr": 1e-3}, "from here")
    assert changed.model_dump() == defaults.model_dump() | {"g_lr": 1e-3}


@pytest.mark.parametrize("system_id", SYSTEMS)
def test_every_systems_defaults_are_valid(system_id: str) -> None:
    assert overlay(SYSTEMS[system_id].defaults, {}) == SYSTEMS[system_id].defaults
