"""Losses and label smoothing equal their formulas and the levels known from theory."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from trainers.config import Config
from trainers.gan import AdversarialGAN, Batch
from trainers.losses import d_loss, g_loss, real_target

LOSSES = get_args(Config.model_fields["loss"].annotation)
S = 0.1


class _Loss:
    """One adversarial loss, its real target given as a number instead of by smoothing."""

    def __init__(self, name: str) -> None:
        self.name = name

    def d(self, real: Tensor, fake: Tensor, target: float = 1.0) -> Tensor:
        smoothing = {"smoothing": "fixed", "smoothing_strength": 1 - target} if target < 1 else {}
        return d_loss(real, fake, Config.model_validate({"loss": self.name, **smoothing}))

    def g(self, fake: Tensor) -> Tensor:
        return g_loss(fake, Config.model_validate({"loss": self.name}))


BCE, WASSERSTEIN, HINGE, LEAST_SQUARES = (_Loss(name) for name in ("bce", "wasserstein", "hinge", "least-squares"))


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _log_sigmoid(x: float) -> float:
    return -math.log(1 + math.exp(-x))


def _config(smoothing: str = "none", strength: float = S, loss: str = "bce") -> Config:
    return Config.model_validate({"smoothing": smoothing, "smoothing_strength": strength, "loss": loss})


def _levels(d_of_real: float, d_of_fake: float, target: float) -> tuple[float, float]:
    real, fake = (torch.full((4,), _logit(p), dtype=torch.float64) for p in (d_of_real, d_of_fake))
    return BCE.d(real, fake, target).item(), BCE.g(fake).item()


@pytest.mark.parametrize("target", [1.0, 0.9, 0.6])
def test_bce_equals_its_formula(target: float) -> None:
    real, fake = [0.3, -2.0, 5.0], [1.5, -0.2, 0.0]
    on_real = [-target * _log_sigmoid(x) - (1 - target) * _log_sigmoid(-x) for x in real]
    on_fake = [-_log_sigmoid(-x) for x in fake]
    loss = BCE.d(torch.tensor(real), torch.tensor(fake), target)
    assert loss.item() == pytest.approx((sum(on_real) + sum(on_fake)) / 3, rel=1e-6)


def test_the_generators_bce_is_non_saturating() -> None:
    fake = [1.5, -0.2, -30.0]
    loss = BCE.g(torch.tensor(fake))
    assert loss.item() == pytest.approx(-sum(_log_sigmoid(x) for x in fake) / 3, rel=1e-6)
    hopeless = torch.tensor([-30.0], requires_grad=True)
    (slope,) = torch.autograd.grad(BCE.g(hopeless), hopeless)
    assert slope.item() == pytest.approx(-1)


def test_bce_stays_finite_for_logits_beyond_any_log_guard() -> None:
    far = torch.tensor([1e4])
    assert BCE.d(-far, far).item() == pytest.approx(2e4)
    assert BCE.g(-far).item() == pytest.approx(1e4)


def test_wasserstein_equals_its_formula() -> None:
    real, fake = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([-1.0, 0.0, 4.0])
    assert WASSERSTEIN.d(real, fake).item() == pytest.approx(1 - 3)
    assert WASSERSTEIN.g(fake).item() == pytest.approx(-1)


def test_hinge_equals_its_formula() -> None:
    real, fake = torch.tensor([0.5, 2.0]), torch.tensor([-3.0, 0.25])
    assert HINGE.d(real, fake).item() == pytest.approx((0.5 + 0) / 2 + (0 + 1.25) / 2)
    assert HINGE.g(fake).item() == pytest.approx(2.75 / 2)


def test_least_squares_equals_its_formula() -> None:
    real, fake = torch.tensor([0.5, 2.0]), torch.tensor([-3.0, 1.0])
    assert LEAST_SQUARES.d(real, fake).item() == pytest.approx(((0.25 + 1) / 2 + (9 + 1) / 2) / 2)
    assert LEAST_SQUARES.g(fake).item() == pytest.approx((16 + 0) / 2 / 2)


def test_the_saturating_form_is_log_of_one_minus_d() -> None:
    fake, saturating = [1.5, -0.2], Config.model_validate({"saturating": True})
    assert g_loss(torch.tensor(fake), saturating).item() == pytest.approx(sum(_log_sigmoid(-x) for x in fake) / 2)
    hopeless = torch.tensor([-30.0], requires_grad=True)
    (slope,) = torch.autograd.grad(g_loss(hopeless, saturating), hopeless)
    assert slope.item() == pytest.approx(0, abs=1e-6)


def test_two_sided_smoothing_moves_the_fake_target_too() -> None:
    real, fake = torch.tensor([0.7]), torch.tensor([-0.4])
    two_sided = d_loss(real, fake, _config("two-sided", 0.2))
    by_hand = 0.8 * _log_sigmoid(0.7) + 0.2 * _log_sigmoid(-0.7) + 0.2 * _log_sigmoid(-0.4) + 0.8 * _log_sigmoid(0.4)
    assert two_sided.item() == pytest.approx(-by_hand, rel=1e-6)


def test_flipped_labels_are_zero_in_their_share() -> None:
    torch.manual_seed(0)
    target = real_target(torch.zeros(20_000), Config.model_validate({"label_flip": 0.2}))
    assert set(target.tolist()) == {0.0, 1.0}
    assert 1 - target.mean().item() == pytest.approx(0.2, abs=0.01)


def test_equilibrium_without_smoothing_is_2_log_2_and_log_2() -> None:
    assert _levels(0.5, 0.5, 1.0) == pytest.approx((2 * math.log(2), math.log(2)), rel=1e-6)


@pytest.mark.parametrize(("target", "d", "g"), [(0.9, 1.3763, 0.7985), (0.95, 1.3838, 0.7444)])
def test_smoothed_equilibrium_has_the_known_levels(target: float, d: float, g: float) -> None:
    assert _levels(target / 2, target / 2, target) == pytest.approx((d, g), abs=5e-5)


@pytest.mark.parametrize("target", [1.0, 0.9, 0.95])
def test_the_best_discriminator_of_equal_distributions_says_half_the_target(target: float) -> None:
    logit = torch.tensor([_logit(target / 2)], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(BCE.d(logit, logit, target), logit)
    assert slope.item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(("target", "floor"), [(0.9, 0.3251), (0.95, 0.1985), (0.975, 0.1169)])
def test_smoothing_lifts_the_lowest_real_half_of_the_loss(target: float, floor: float) -> None:
    assert _levels(target, 1e-12, target)[0] == pytest.approx(floor, abs=5e-5)


def test_targets_without_smoothing_are_1() -> None:
    assert torch.equal(real_target(torch.zeros(7), _config("none", 0.3)), torch.ones(7))


@pytest.mark.parametrize("strength", [0.1, 0.05])
def test_fixed_smoothing_gives_exactly_1_minus_s(strength: float) -> None:
    assert torch.equal(real_target(torch.zeros(7), _config("fixed", strength)), torch.full((7,), 1 - strength))


def test_random_smoothing_is_uniform_between_1_minus_s_and_1() -> None:
    torch.manual_seed(0)
    targets = real_target(torch.zeros(20_000), _config("random", 0.05))
    assert targets.min() >= 0.95
    assert targets.max() <= 1
    quarters = torch.histc(targets, bins=4, min=0.95, max=1.0)
    assert torch.allclose(quarters / 20_000, torch.full((4,), 0.25), atol=0.015)


class _Scale(nn.Module):
    """Stands for either network: a multiple of its input's mean, or of its input."""

    def __init__(self, factor: float, reduce: bool) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))
        self.reduce = reduce

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.factor * (x.flatten(1).mean(1) if self.reduce else x[:, :, None, None])


class _Gan(AdversarialGAN):
    def networks(self) -> dict[str, nn.Module]:
        return {"g": _Scale(0.5, reduce=False), "d": _Scale(2.0, reduce=True)}


LABELS = torch.zeros(2, dtype=torch.int64)
BATCH = Batch(
    real=torch.tensor([0.2, -0.4])[:, None, None, None],
    labels=LABELS,
    z=torch.tensor([[0.6], [1.0]]),
    fake_labels=LABELS,
)


@pytest.mark.parametrize("target", [1.0, 0.9])
def test_smoothing_is_one_sided(target: float) -> None:
    gan = _Gan(_config("none" if target == 1 else "fixed"), classes=10)
    nets = gan.networks()
    d = gan.loss("d", nets, BATCH)["loss_d"]
    real, fake = (0.4, -0.8), (0.6, 1.0)
    by_hand = [-target * _log_sigmoid(x) - (1 - target) * _log_sigmoid(-x) for x in real]
    by_hand += [-_log_sigmoid(-x) for x in fake]
    assert d.item() == pytest.approx(sum(by_hand) / 2, rel=1e-6)
    g = gan.loss("g", nets, BATCH)["loss_g"]
    assert g.item() == pytest.approx(-sum(_log_sigmoid(x) for x in fake) / 2, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_discriminators_loss_sends_no_gradient_to_the_generator(loss: str) -> None:
    gan = _Gan(_config(loss=loss), classes=10)
    nets = gan.networks()
    next(iter(gan.loss("d", nets, BATCH).values())).backward()
    assert all(p.grad is None for p in nets["g"].parameters())
    assert all(p.grad is not None for p in nets["d"].parameters())


class _Labelled(nn.Module):
    """Stands for either network and notes the labels it was given."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.labels: list[list[int]] = []

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        self.labels.append(labels.tolist())
        out: Tensor = self.inner(x, labels)
        return out


@pytest.mark.parametrize(("phase", "judged"), [("d", [[1, 2], [3, 4]]), ("g", [[3, 4]])])
def test_every_image_is_judged_with_its_own_label(phase: str, judged: list[list[int]]) -> None:
    gan = _Gan(_config(), classes=10)
    nets = {name: _Labelled(net) for name, net in gan.networks().items()}
    batch = replace(BATCH, labels=torch.tensor([1, 2]), fake_labels=torch.tensor([3, 4]))
    gan.loss(phase, dict(nets), batch)
    assert nets["g"].labels == [[3, 4]]
    assert nets["d"].labels == judged


def test_what_the_discriminator_says_is_recorded_apart_from_its_loss() -> None:
    gan = _Gan(_config(), classes=10)
    recorded = gan.loss("d", gan.networks(), BATCH)
    assert recorded["d_real"].item() == pytest.approx(-0.2)
    assert recorded["d_fake"].item() == pytest.approx(0.8)
    assert not recorded["d_real"].requires_grad


def _factor(net: nn.Module) -> float:
    return next(net.parameters()).item()


@pytest.mark.parametrize(("lipschitz", "bound"), [("none", 2.0), ("clip", 0.01), ("clip+spectral", 0.01)])
def test_a_critic_is_clipped_where_told_and_only_after_its_own_step(lipschitz: str, bound: float) -> None:
    gan = _Gan(Config.model_validate({"lipschitz": lipschitz}), classes=10)
    nets = gan.networks()
    gan.after_step("g", nets)
    assert _factor(nets["d"]) == 2
    gan.after_step("d", nets)
    assert _factor(nets["d"]) == pytest.approx(bound)
    assert _factor(nets["g"]) == 0.5
