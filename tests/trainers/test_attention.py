"""Self-attention obeys its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trainers.layers import SelfAttention

B, C, H, W = 2, 8, 3, 4
N = H * W


def _attention(gamma: float = 0.7, residual: bool = True, reduction: int = 2) -> SelfAttention:
    torch.manual_seed(0)
    module = SelfAttention(C, reduction, residual).double()
    if module.gamma is not None:
        nn.init.constant_(module.gamma, gamma)
    return module


def _x() -> Tensor:
    return torch.randn(B, C, H, W, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("channels", "count"), [(64, 5_121), (128, 20_481)])
def test_it_has_the_derived_number_of_parameters(channels: int, count: int) -> None:
    assert sum(p.numel() for p in SelfAttention(channels).parameters()) == count
    assert sum(p.numel() for p in SelfAttention(channels, residual=False).parameters()) == count - 1


def test_keys_have_at_least_one_channel() -> None:
    assert SelfAttention(4, reduction=8).f.out_channels == 1


def test_rows_of_the_map_are_probabilities_of_one_query_each() -> None:
    attention = _attention().attention(_x())
    assert attention.shape == (B, N, N)
    assert attention.min() > 0
    assert torch.allclose(attention.sum(2), torch.ones(B, N, dtype=torch.float64))
    assert not torch.allclose(attention.sum(1), torch.ones(B, N, dtype=torch.float64), atol=1e-3)


def test_it_starts_as_the_identity() -> None:
    x = _x().float()
    assert torch.equal(SelfAttention(C)(x), x)


@pytest.mark.parametrize("residual", [True, False])
def test_each_output_is_the_sum_over_positions_weighted_by_its_own_row(residual: bool) -> None:
    module, x = _attention(residual=residual), _x()
    flat = x.flatten(2)
    f, g, h = (part.weight[:, :, 0, 0] @ flat for part in (module.f, module.g, module.h))
    expected = torch.empty_like(flat)
    for b in range(B):
        for i in range(N):
            scores = torch.stack([(f[b, :, i] * g[b, :, j]).sum() for j in range(N)])
            row = scores.exp() / scores.exp().sum()
            o = sum((row[j] * h[b, :, j] for j in range(N)), torch.zeros(C, dtype=torch.float64))
            expected[b, :, i] = 0.7 * o + flat[b, :, i] if residual else o
    assert torch.allclose(module(x), expected.view_as(x), atol=1e-12)


def test_permuting_positions_permutes_the_output_alike() -> None:
    module, x = _attention(), _x()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))

    def permuted(images: Tensor) -> Tensor:
        return images.flatten(2)[:, :, order].view(B, C, H, W)

    assert torch.allclose(module(permuted(x)), permuted(module(x)), atol=1e-12)
    assert not torch.allclose(permuted(x), x)


def test_a_value_that_all_positions_share_is_kept() -> None:
    module, x = _attention(residual=False), _x()
    x[:, :4] = x[:, :4, :1, :1]  # h reads these channels alone, while the map follows the others
    nn.init.zeros_(module.h.weight[:, 4:])
    attention = module.attention(x)
    assert not torch.allclose(attention, torch.full_like(attention, 1 / N), atol=1e-3)
    assert torch.allclose(module(x), module.h(x), atol=1e-12)


def test_images_of_a_batch_do_not_see_each_other() -> None:
    module, x = _attention(), _x()
    assert torch.allclose(module(x)[:1], module(x[:1]), atol=1e-12)


@pytest.mark.parametrize("residual", [True, False])
def test_it_can_be_differentiated_twice(residual: bool) -> None:
    module = _attention(residual=residual)
    x = _x()[:1, :, :2, :2].requires_grad_(True)
    assert torch.autograd.gradcheck(module, (x,))
    assert torch.autograd.gradgradcheck(module, (x,))
