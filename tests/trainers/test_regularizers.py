"""Weight clipping, gradient penalty and spectral normalisation equal their definitions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from trainers.config import Config
from trainers.gan import AdversarialGAN, Batch
from trainers.layers import SelfAttention, init_normal
from trainers.regularizers import clip, clipped_share, gradient_penalty, spectral

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "conv-512-256": (lambda: nn.Conv2d(512, 256, 5, padding=2), (512, 1, 1), 512 * 25),
    "conv-128-64": (lambda: nn.Conv2d(128, 64, 5, padding=2), (128, 1, 1), 128 * 25),
    "conv-64-3": (lambda: nn.Conv2d(64, 3, 5, padding=2), (64, 1, 1), 64 * 25),
    "transposed-128-64": (lambda: nn.ConvTranspose2d(128, 64, 4, 2, 1), (128, 1, 1), 128 * 16),
    "dense-2058-512": (lambda: nn.Linear(2058, 512), (2058,), 2058),
}
SPECTRAL = pytest.mark.parametrize("layer", LAYERS)


def _normalised(layer: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, shape, _ = LAYERS[layer]
    module = spectral(make())
    init_normal(module, 0.02)
    return module, torch.randn(1, *shape)


def _largest_singular_value(module: nn.Module) -> float:
    weight = module.weight
    assert isinstance(weight, Tensor)
    matrix = (weight.transpose(0, 1) if isinstance(module, nn.ConvTranspose2d) else weight).flatten(1).double()
    return float(torch.linalg.eigvalsh(matrix @ matrix.T)[-1].sqrt())


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    return {name.rsplit(".", 1)[-1]: buffer.clone() for name, buffer in module.named_buffers()}


@SPECTRAL
@torch.no_grad()
def test_twenty_training_passes_bring_the_largest_singular_value_to_one(layer: str) -> None:
    module, x = _normalised(layer)
    for _ in range(20):
        module(x)
    # The estimate comes from below, so that the value is never less than 1.
    assert 1 - 1e-5 <= _largest_singular_value(module.eval()) <= 1.02


@SPECTRAL
@torch.no_grad()
def test_power_iterations_run_in_training_alone(layer: str) -> None:
    module, x = _normalised(layer)
    before = _buffers(module)
    module.eval()(x)
    assert all(torch.equal(buffer, before[name]) for name, buffer in _buffers(module).items())
    module.train()(x)
    assert not any(torch.equal(buffer, before[name]) for name, buffer in _buffers(module).items())


@SPECTRAL
def test_the_buffers_are_one_vector_of_outputs_and_one_of_inputs_times_kernel_area(layer: str) -> None:
    module, _ = _normalised(layer)
    sizes = {name: buffer.shape for name, buffer in _buffers(module).items()}
    assert sizes == {"_u": (int(layer.rsplit("-", 1)[1]),), "_v": (LAYERS[layer][2],)}


@torch.no_grad()
def test_the_scale_of_a_normalised_weight_does_not_matter() -> None:
    module, x = _normalised("conv-64-3")
    before = module.eval()(x)
    next(p for name, p in module.named_parameters() if name.endswith("original")).mul_(7)
    assert torch.allclose(module(x), before, atol=1e-6)


def test_spectral_norm_is_off_where_asked() -> None:
    plain = nn.Linear(2, 2)
    assert spectral(plain, on=False) is plain
    assert not is_parametrized(plain)


def _net() -> nn.Sequential:
    """Every kind of parameter a critic may hold, all at 1."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.PReLU(), spectral(nn.Conv2d(8, 8, 3)), SelfAttention(8),
        nn.GroupNorm(1, 8), nn.InstanceNorm2d(8, affine=True), spectral(nn.ConvTranspose2d(8, 4, 3)), nn.Linear(2, 2),
    )  # fmt: skip
    for parameter in net.parameters():
        nn.init.ones_(parameter)
    return net


_WEIGHTS = {
    "0.weight", "3.parametrizations.weight.original", "4.f.weight", "4.g.weight", "4.h.weight",
    "7.parametrizations.weight.original", "8.weight",
}  # fmt: skip
_NORMS = {f"{index}.{name}" for index in (1, 5, 6) for name in ("weight", "bias")}
_OTHERS = {"0.bias", "2.weight", "3.bias", "4.gamma", "7.bias", "8.bias"}


@pytest.mark.parametrize(
    ("scope", "bounded"),
    [("trainable", _WEIGHTS | _NORMS | _OTHERS), ("weights", _WEIGHTS), ("all-but-norm", _WEIGHTS | _OTHERS)],
)
def test_clipping_bounds_the_parameters_in_its_scope_and_no_buffer(scope: str, bounded: set[str]) -> None:
    net = _net()
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    clip(net, 0.01, scope)
    values = {name: p.unique().tolist() for name, p in net.named_parameters()}
    assert values.keys() == _WEIGHTS | _NORMS | _OTHERS
    assert {name for name, value in values.items() if value == [pytest.approx(0.01)]} == bounded
    assert all(value == [1] for name, value in values.items() if name not in bounded)
    assert buffers
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in net.named_buffers())


def test_clipping_is_symmetric_and_leaves_what_lies_within() -> None:
    net = nn.Linear(3, 1, bias=False)
    net.weight.data = torch.tensor([[-5.0, 0.004, 5.0]])
    clip(net, 0.01, "trainable")
    assert torch.equal(net.weight, torch.tensor([[-0.01, 0.004, 0.01]]))


def test_the_clipped_share_counts_the_numbers_on_the_bound_in_its_scope_alone() -> None:
    critic = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        critic[0].weight.copy_(torch.tensor([[0.3, -0.002], [0.001, -0.3]]))
        critic[0].bias.zero_()
    assert isinstance(critic[1], nn.BatchNorm1d)  # 4 weights, 2 biases, 2 scales of 1, 2 shifts of 0
    clip(critic, 0.01, "trainable")
    shares = {scope: clipped_share(critic, 0.01, scope) for scope in ("weights", "all-but-norm", "trainable")}
    assert shares == {"weights": 0.5, "all-but-norm": pytest.approx(2 / 6), "trainable": pytest.approx(4 / 10)}


class _Linear(nn.Module):
    """The score <w, x>, whose gradient is w everywhere."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        self.seen.append((images.detach(), labels))
        return images.flatten(1) @ self.w


def _pair(count: int = 5, channels: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    real, fake = torch.randn(2, count, channels, 4, 4, dtype=torch.float64)
    return real, fake, torch.arange(count)


@pytest.mark.parametrize("length", [0.25, 1.0, 3.0])
def test_the_penalty_of_a_linear_critic_is_its_slope_less_one_squared(length: float) -> None:
    w = nn.functional.normalize(torch.randn(48, dtype=torch.float64, generator=torch.Generator().manual_seed(3)), dim=0)
    critic = _Linear(length * w)
    penalty, slope = gradient_penalty(critic, *_pair())
    penalty.backward()
    assert penalty.item() == pytest.approx((length - 1) ** 2, abs=1e-12)
    assert slope.item() == pytest.approx(length, abs=1e-12)
    assert not slope.requires_grad
    assert critic.w.grad is not None
    assert torch.allclose(critic.w.grad, 2 * (length - 1) * w, atol=1e-12)


def test_a_flat_critic_has_a_penalty_of_one_and_a_finite_gradient() -> None:
    critic = _Linear(torch.zeros(48, dtype=torch.float64))
    penalty, slope = gradient_penalty(critic, *_pair())
    penalty.backward()
    assert (penalty.item(), slope.item()) == (1, 0)
    assert critic.w.grad is not None
    assert critic.w.grad.isfinite().all()


def test_the_penalty_is_taken_per_image_on_the_segment_between_real_and_fake() -> None:
    class Square(_Linear):
        def forward(self, images: Tensor, labels: Tensor) -> Tensor:
            self.seen.append((images.detach(), labels))
            return images.flatten(1).square().sum(1) / 2

    critic, (real, fake, labels) = Square(torch.zeros(1)), _pair()
    penalty, slope = gradient_penalty(critic, real, fake, labels)
    ((between, given),) = critic.seen
    share = ((between - fake) / (real - fake)).flatten(1)
    assert torch.allclose(share, share[:, :1].expand_as(share), atol=1e-9)
    assert ((share >= 0) & (share <= 1)).all()
    assert share[:, 0].unique().numel() == len(real)
    assert torch.equal(given, labels)
    norms = between.flatten(1).norm(dim=1)
    assert penalty.item() == pytest.approx(float((norms - 1).square().mean()), rel=1e-12)
    assert slope.item() == pytest.approx(float(norms.mean()), rel=1e-12)


def test_the_penalty_is_differentiable_through_attention_and_spectral_norm() -> None:
    class Critic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = SelfAttention(4, reduction=2)
            self.layers = nn.Sequential(
                spectral(nn.Conv2d(2, 4, 3, padding=1)), nn.Softplus(), self.attention,
                spectral(nn.ConvTranspose2d(4, 2, 3)), nn.Softplus(), nn.Flatten(), spectral(nn.Linear(72, 1)),
            )  # fmt: skip

        def forward(self, images: Tensor, labels: Tensor) -> Tensor:
            scores: Tensor = self.layers(images)
            return scores.flatten()

    pair = _pair(3, channels=2)
    critic = Critic().double().eval()
    assert critic.attention.gamma is not None
    nn.init.constant_(critic.attention.gamma, 0.7)

    def penalty() -> Tensor:
        torch.manual_seed(1)
        return gradient_penalty(critic, *pair).value

    penalty().backward()
    step = 1e-5
    for name, parameter in critic.named_parameters():
        if name == "layers.6.bias":
            assert parameter.grad is None or not parameter.grad.any()
            continue
        direction, origin = torch.randn_like(parameter), parameter.data
        assert parameter.grad is not None, name
        slope = float((parameter.grad * direction).sum())
        parameter.data = origin + step * direction
        above = penalty().item()
        parameter.data = origin - step * direction
        below = penalty().item()
        parameter.data = origin
        assert slope == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-9), name
        assert abs(slope) > 1e-7, name


@pytest.mark.parametrize(("lipschitz", "same"), [("penalty", True), ("none", False)])
def test_a_penalised_critic_sees_generated_images_of_the_real_labels(lipschitz: str, same: bool) -> None:
    class Plain(AdversarialGAN):
        def networks(self) -> dict[str, nn.Module]:
            return {}

    class Noise(nn.Module):
        def forward(self, z: Tensor, labels: Tensor) -> Tensor:
            return z.view(-1, 3, 4, 4) + labels[:, None, None, None]

    gan = Plain(Config.model_validate({"loss": "wasserstein", "lipschitz": lipschitz, "penalty_weight": 2.5}), 10)
    critic, (real, fake, labels) = _Linear(torch.full((48,), 3 / 48**0.5, dtype=torch.float64)), _pair()
    wanted = labels.flip(0) + 1
    losses = gan.loss("d", {"g": Noise(), "d": critic}, Batch(real, labels, fake.flatten(1), wanted))
    shown = labels if same else wanted
    assert torch.equal(critic.seen[1][0], fake + shown[:, None, None, None])
    given = [seen.tolist() for _, seen in critic.seen]
    assert given == [labels.tolist(), shown.tolist(), shown.tolist()][: 3 if same else 2]
    # The slope is 3 everywhere: a penalty of (3 - 1)^2.
    penalty = 2.5 * 4 if same else 0
    assert losses["loss_d"].item() == pytest.approx((losses["d_fake"] - losses["d_real"]).item() + penalty)
