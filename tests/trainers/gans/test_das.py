"""The GANs of das-2019: sizes by hand, and the laws of their losses and parts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, one_hot

from trainers.catalogue import SYSTEMS
from trainers.config import overlay
from trainers.data.batches import seeded
from trainers.data.images import ImageData
from trainers.data.shapes import draw as draw_shapes
from trainers.gan import GAN, Batch
from trainers.gans import das, sagan, vaegan
from trainers.layers import uniform
from trainers.trainer import Trainer

IDS = [*das.SYSTEMS, *sagan.SYSTEMS, *vaegan.SYSTEMS]
EVERY = pytest.mark.parametrize("system_id", IDS)
BATCH = 6
SA_64 = 64 * 8 + 64 * 8 + 64 * 64 + 1  # self-attention
#: Parameters by hand: products of the layers' sizes; "+ n" is a bias, "2 * n" a batch norm's scale and shift.
COUNTS = {
    "das-gan": {
        "g": 100 * 256 + 256 + 256 * 512 + 2 * 512 + 512 * 1024 + 2 * 1024 + 1024 * 784 + 784,
        "d": 784 * 512 + 512 + 512 * 256 + 256 + 256 * 1 + 1,
    },
    "das-dcgan": {
        "g": 100 * 128 * 49 + 2 * 128 + 128 * 64 * 25 + 2 * 64 + 64 * 32 * 25 + 2 * 32 + 32 * 1 * 25 + 1,
        "d": 1 * 32 * 25 + 32 + 32 * 64 * 25 + 2 * 64 + 64 * 128 * 25 + 2 * 128 + 128 * 1 * 49 + 1,
    },
    "das-cgan": {
        "g": 100 * 200 + 200 + 10 * 1000 + 1000 + 1200 * 1200 + 1200 + 1200 * 784 + 784,
        "d": 5 * (784 * 240 + 240) + 5 * (10 * 50 + 50) + 4 * ((240 + 50) * 240 + 240) + 240 * 1 + 1,
    },
    "das-acgan": {
        "g": 110 * 6144 + 6144 + 384 * 192 * 25 + 2 * 192 + 192 * 96 * 25 + 2 * 96 + 96 * 3 * 25 + 3,
        "d": 9 * (3 * 16 + 16 * 32 + 32 * 64 + 64 * 128 + 128 * 256 + 256 * 512)
        + (16 + 2 * (32 + 64 + 128 + 256 + 512) + 8192 * (1 + 10) + (1 + 10)),
    },
    "das-infogan": {
        "g": 74 * 1024 + 2 * 1024 + 1024 * 6272 + 2 * 6272 + 128 * 64 * 16 + 2 * 64 + 64 * 1 * 16 + 1,
        "d": 1 * 64 * 16 + 64 + 64 * 128 * 16 + 2 * 128 + 6272 * 1024 + 2 * 1024 + 1024 * 1 + 1,
        "q": 1024 * 128 + 2 * 128 + 128 * (10 + 2 + 2) + (10 + 2 + 2),
    },
    "das-sagan": {
        # Conditional batch norm has a scale and a shift per class.
        "g": 100 * 2048
        + 25 * (512 * 256 + 256 * 128 + 128 * 64 + 64 * 3)
        + 3
        + 10 * 2 * (512 + 256 + 128 + 64)
        + SA_64,
        "d": 25 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + (64 + 128 + 256 + 512) + SA_64 + 10 * 512 + 512 * 1 + 1,
    },
    "das-vaegan": {
        "enc": 25 * (3 * 64 + 64 * 128) + 2 * (64 + 128) + 8192 * 2048 + 2 * 2048 + 2048 * 2 * 128 + 2 * 128,
        "g": 128 * 16384 + 25 * (256 * 128 + 128 * 32 + 32 * 3) + 2 * (256 + 128 + 32) + 3,
        "d": 25 * (3 * 32 + 32 * 128 + 128 * 256) + 32 + 2 * (128 + 256) + 16384 * 512 + 2 * 512 + 512 * 1 + 1,
    },
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def _gan(system_id: str, **settings: Any) -> tuple[GAN, dict[str, nn.Module]]:
    system = SYSTEMS[system_id]
    gan = system.gan(overlay(system.defaults, {"width": 0.125, "batch": BATCH, **settings}), 10)
    return gan, gan.networks()


def _batch(gan: GAN, shape: tuple[int, int, int], seed: int = 0) -> Batch:
    source = seeded(seed)
    return Batch(
        real=torch.rand(BATCH, *shape, generator=source) * 2 - 1,
        labels=torch.randint(10, (BATCH,), generator=source),
        z=torch.randn(BATCH, gan.config.latent, generator=source),
        fake_labels=torch.randint(10, (BATCH,), generator=source),
    )


def _gradients(loss: Tensor, net: nn.Module) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, list(net.parameters()), retain_graph=True, allow_unused=True))


def _first(losses: dict[str, Tensor]) -> Tensor:
    return next(iter(losses.values()))


def _trainer(system_id: str, **settings: Any) -> Trainer:
    system = SYSTEMS[system_id]
    channels, height, width = system.shape
    images, labels = draw_shapes(22, seed=0)
    cut = torch.from_numpy(images)[:, :channels, :height, :width].contiguous()
    data = ImageData(cut, torch.from_numpy(labels), classes=10, name="shapes", split="train")
    return Trainer(system, overlay(system.defaults, {"width": 0.125, "batch": BATCH, **settings}), data)


@EVERY
def test_networks_have_the_parameters_that_their_layers_give_by_hand(system_id: str) -> None:
    with torch.device("meta"):  # sizes only, no memory
        nets = SYSTEMS[system_id].gan(overlay(SYSTEMS[system_id].defaults, {"lipschitz": "none"}), 10).networks()
    assert {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()} == COUNTS[system_id]


@EVERY
def test_spectral_normalisation_bounds_every_layer_of_the_discriminator(system_id: str) -> None:
    _, nets = _gan(system_id, lipschitz="spectral")
    for part in [part for part in nets["d"].modules() if isinstance(part, nn.Conv2d | nn.Linear)]:
        weight = [part.weight for _ in range(40)][-1]
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


@EVERY
def test_every_phase_has_a_finite_loss_and_every_parameter_learns(system_id: str) -> None:
    trainer = _trainer(system_id)
    before = {name: {k: p.clone() for k, p in net.named_parameters()} for name, net in trainer.nets.items()}
    recorded = trainer.advance(4 * BATCH)
    assert {"d_real", "d_fake", "d_accuracy"} | {f"loss_{phase.name}" for phase in trainer.gan.phases} <= set(recorded)
    assert all(math.isfinite(value) for value in recorded.values())
    for name, net in trainer.nets.items():
        assert not [k for k, p in net.named_parameters() if torch.equal(p, before[name][k])], name


@EVERY
def test_clipping_bounds_the_discriminator(system_id: str) -> None:
    trainer = _trainer(system_id, lipschitz="clip", clip_value=0.003)
    trainer.advance(BATCH)
    assert max(p.abs().max().item() for p in trainer.nets["d"].parameters()) == pytest.approx(0.003)


@EVERY
def test_the_gradient_penalty_adds_to_the_loss_of_the_discriminator_in_proportion_to_its_weight(system_id: str) -> None:
    _, nets = _gan(system_id, lipschitz="none", dropout=0.0)
    values = []
    for weight in (10.0, 20.0, 40.0):
        gan, _ = _gan(system_id, lipschitz="penalty", penalty_weight=weight, dropout=0.0)
        torch.manual_seed(1)
        values.append(_first(gan.loss("d", nets, _batch(gan, SYSTEMS[system_id].shape))).item())
    assert values[0] < values[1]
    assert values[2] - values[1] == pytest.approx(2 * (values[1] - values[0]), rel=1e-3, abs=1e-5)


@EVERY
def test_every_field_of_the_family_is_described(system_id: str) -> None:
    fields = type(SYSTEMS[system_id].defaults).model_fields
    assert all(field.description for field in fields.values())


def test_maxout_is_the_largest_of_its_pieces() -> None:
    layer = das.Maxout(inputs=2, units=2, pieces=3)
    layer.linear.weight.data = torch.tensor([[1.0, 0], [0, 1], [-1, -1], [2, 0], [0, 0], [0, -3]])
    # Unit 1: max(x, y, -x - y); unit 2: max(2x, 0.5, -3y).
    layer.linear.bias.data = torch.tensor([0.0, 0, 0, 0, 0.5, 0])
    x = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    assert layer(x).tolist() == [[2.0, 2.0], [3.0, 6.0]]


def test_normal_numbers_become_uniform_ones() -> None:
    assert uniform(torch.tensor([-1.959964, 0.0, 1.959964])).tolist() == pytest.approx([-0.95, 0, 0.95], abs=1e-6)


def test_the_conditional_gan_bounds_the_weights_of_each_unit_and_lowers_its_rate_by_1_00004_a_step() -> None:
    trainer = _trainer("das-cgan", max_norm=0.05)
    trainer.advance(3 * BATCH)
    norms = [p.norm(dim=1).max().item() for p in trainer.nets["d"].parameters() if p.ndim == 2]
    assert norms == pytest.approx([0.05] * 4, rel=1e-4)
    assert trainer._optimizers["g"].param_groups[0]["lr"] == pytest.approx(0.1 / 1.00004**2, rel=1e-12)


def test_the_auxiliary_head_has_one_logit_per_class_and_the_trunk_sees_no_label() -> None:
    gan, nets = _gan("das-acgan")
    batch, d = _batch(gan, (3, 32, 32)), nets["d"].eval()
    assert isinstance(d, das.ACGANDiscriminator)
    source, classes = d.heads(batch.real)
    assert source.shape == (BATCH,)
    assert classes.shape == (BATCH, 10)
    assert torch.equal(d(batch.real, batch.labels), d(batch.real, batch.fake_labels))


def test_d_maximises_source_and_class_and_g_class_minus_source() -> None:
    gan, nets = _gan("das-acgan", dropout=0.0, class_weight=1.0, saturating=True)
    batch, d = _batch(gan, (3, 32, 32)), nets["d"]
    assert isinstance(d, das.ACGANDiscriminator)
    with torch.no_grad():
        fake = nets["g"](batch.z, batch.fake_labels)
        (real_s, real_c), (fake_s, fake_c) = d.heads(batch.real), d.heads(fake)
    source_real, source_fake = logsigmoid(real_s).mean(), logsigmoid(-fake_s).mean()
    class_real = real_c.log_softmax(1)[range(BATCH), batch.labels].mean()
    class_fake = fake_c.log_softmax(1)[range(BATCH), batch.fake_labels].mean()
    d_loss, g_loss = _first(gan.loss("d", nets, batch)), _first(gan.loss("g", nets, batch))
    assert d_loss.item() == pytest.approx(-(source_real + source_fake + class_real + class_fake).item(), abs=1e-5)
    assert g_loss.item() == pytest.approx((source_fake - class_fake).item(), abs=1e-5)


def test_mixed_labels_reach_the_class_head() -> None:
    gan, nets = _gan("das-acgan", dropout=0.0)
    batch = _batch(gan, (3, 32, 32))

    def class_loss(labels: Tensor) -> Tensor:
        return gan.loss("d", nets, Batch(batch.real, labels, batch.z, batch.fake_labels))["class_real"]

    a, b = torch.zeros(BATCH).long(), torch.ones(BATCH).long()
    mixed = class_loss((one_hot(a, 10) + one_hot(b, 10)) / 2)
    assert mixed.item() == pytest.approx(((class_loss(a) + class_loss(b)) / 2).item(), abs=1e-5)


def test_the_code_is_the_last_part_of_z() -> None:
    z = torch.randn(5000, 74, generator=seeded(0))
    noise, category, continuous = das.split_code(z, categories=10, continuous=2)
    assert torch.equal(noise, z[:, :62])
    assert category.sum(0).tolist() == pytest.approx([500] * 10, abs=5 * math.sqrt(500))
    assert torch.equal(category.argmax(1), z[:, 62:72].argmax(1))
    assert continuous.shape == (5000, 2)
    assert 0.99 < continuous.abs().max() <= 1


def test_information_is_that_of_the_code_when_it_is_read_and_at_most_zero_when_q_ignores_the_image() -> None:
    category, continuous = one_hot(torch.tensor([0, 1, 1]), 4).float(), torch.tensor([[0.5], [-1.0], [0.0]])
    # Q knows the category for sure, and the number with unit variance and errors 0.5, 0, 2.
    sure = torch.cat([1000 * category, torch.tensor([[0.0], [-1.0], [2.0]]), torch.zeros(3, 1)], dim=1)
    of_category, of_continuous = das.information(sure, category, continuous)
    assert of_category.item() == pytest.approx(math.log(4))
    by_hand = -(0.25 + 0 + 4) / 3 / 2 - math.log(2 * math.pi) / 2 + math.log(2)
    assert of_continuous.item() == pytest.approx(by_hand)
    blind = torch.cat([torch.zeros(3, 4 + 1), torch.ones(3, 1)], dim=1)  # uniform guesses, and log-variance 1
    of_category, of_continuous = das.information(blind, category, continuous)
    assert of_category.item() == pytest.approx(0, abs=1e-6)
    by_hand = -(0.25 + 1 + 0) / 3 / math.e / 2 - (math.log(2 * math.pi) + 1) / 2 + math.log(2)
    assert of_continuous.item() == pytest.approx(by_hand)


@pytest.mark.parametrize("phase", ["d", "g"])
def test_both_phases_of_infogan_gain_by_information(phase: str) -> None:
    def record(phase: str, categorical: float, continuous: float) -> dict[str, Tensor]:
        torch.manual_seed(0)  # the same networks
        gan, nets = _gan("das-infogan", categorical_weight=categorical, continuous_weight=continuous)
        return gan.loss(phase, nets, _batch(gan, (1, 28, 28)))

    information, without = record("g", 1, 1), _first(record(phase, 0, 0))
    of_category, of_number = information["info_categorical"], information["info_continuous"]
    assert _first(record(phase, 3, 0)).item() == pytest.approx((without - 3 * of_category).item(), abs=1e-4)
    assert _first(record(phase, 0, 2)).item() == pytest.approx((without - 2 * of_number).item(), abs=1e-4)


def test_q_learns_in_the_phase_of_g_alone() -> None:
    trainer = _trainer("das-infogan")
    phases = {phase.name: phase for phase in trainer.gan.phases}

    def weights() -> Tensor:
        return torch.cat([p.detach().flatten() for p in trainer.nets["q"].parameters()]).clone()

    before = weights()
    trainer._update(phases["d"])
    assert torch.equal(weights(), before)
    trainer._update(phases["g"])
    assert not torch.equal(weights(), before)


def test_the_trunk_learns_from_the_information_in_the_phase_of_d() -> None:
    _, nets = _gan("das-infogan")
    z, d = torch.randn(BATCH, 74), nets["d"]
    assert isinstance(d, das.InfoGANDiscriminator)
    _, category, continuous = das.split_code(z, 10, 2)
    gain = sum(das.information(nets["q"](d.features(nets["g"](z, z))), category, continuous))
    assert isinstance(gain, Tensor)
    assert all(gradient is not None for gradient in _gradients(gain, d.features))
    assert all(gradient is None for gradient in _gradients(gain, d.source))


def test_conditional_batch_norm_scales_and_shifts_by_class() -> None:
    layer = sagan.ConditionalBatchNorm(channels=3, classes=2, std=0.02)
    layer.scale.data = torch.tensor([[1.0, 1, 1], [2, 3, 4]])
    layer.shift.data = torch.tensor([[0.0, 0, 0], [5, 6, 7]])
    x = torch.randn(4, 3, 2, 2)
    plain = nn.BatchNorm2d(3, affine=False)(x)
    first, second = layer(x, torch.zeros(4).long()), layer(x, torch.ones(4).long())
    assert torch.allclose(first, plain)
    scale, shift = torch.tensor([2.0, 3, 4])[:, None, None], torch.tensor([5.0, 6, 7])[:, None, None]
    assert torch.allclose(second, plain * scale + shift, atol=1e-5)
    assert torch.allclose(layer(x, torch.full((4, 2), 0.5)), (first + second) / 2, atol=1e-5)


def test_the_projection_is_the_inner_product_of_features_and_class_embedding() -> None:
    d = _gan("das-sagan", lipschitz="none", init_std=0.2)[1]["d"].eval()
    assert isinstance(d, sagan.Discriminator)
    images, labels = torch.rand(4, 3, 32, 32), torch.tensor([7, 0, 3, 7])
    h, table = d.features(images), d.embedding.weight.T
    by_hand = torch.stack([h[i] @ d.output.weight[0] + d.output.bias[0] + h[i] @ table[labels[i]] for i in range(4)])
    assert h.shape == (4, 64)
    assert torch.allclose(d(images, labels), by_hand, rtol=1e-4, atol=1e-5)
    images = images[:1].expand(10, -1, -1, -1)
    assert len(d(images, torch.arange(10)).unique()) == 10
    mixed = d(images, torch.full((10, 10), 0.1))
    assert torch.allclose(mixed, d(images, torch.arange(10)).mean(), rtol=1e-4, atol=1e-5)


def test_sagan_normalises_and_attends_in_both_networks() -> None:
    _, nets = _gan("das-sagan")
    for net in nets.values():
        assert all(hasattr(p, "parametrizations") for p in net.modules() if isinstance(p, nn.Conv2d | nn.Linear))
        (attention,) = [part for part in net.modules() if type(part).__name__ == "SelfAttention"]
        sizes: list[torch.Size] = []
        attention.register_forward_hook(lambda _module, inputs, _output, sizes=sizes: sizes.append(inputs[0].shape))
        nets["d"](nets["g"](torch.randn(2, 100), torch.arange(2)), torch.arange(2))
        assert [size[2:] for size in sizes] == [(16, 16)]
    assert not [part for part in nets["d"].modules() if isinstance(part, nn.BatchNorm2d)]


def test_the_divergence_is_zero_at_the_prior_and_positive_elsewhere() -> None:
    assert vaegan.divergence(torch.zeros(3, 5), torch.zeros(3, 5)).tolist() == [0, 0, 0]
    mean, variance = torch.tensor([[1.0, 0.0], [0.0, -2.0]]), torch.tensor([[1.0, 4.0], [0.25, 1.0]])
    by_hand = [(1 + (4 - 1 - math.log(4))) / 2, ((0.25 - 1 + math.log(4)) + 4) / 2]
    assert vaegan.divergence(mean, variance.log()).tolist() == pytest.approx(by_hand)
    assert (vaegan.divergence(torch.randn(100, 2), torch.randn(100, 2)) > 0).all()


def test_z_is_drawn_around_the_mean_with_the_encoders_deviation() -> None:
    z = vaegan.draw(torch.full((20_000, 1), 3.0), torch.tensor(0.25).log())
    assert z.mean().item() == pytest.approx(3, abs=5 * 0.5 / math.sqrt(20_000))
    assert z.std().item() == pytest.approx(0.5, rel=5 / math.sqrt(40_000))


def _equal(first: list[Tensor | None], second: list[Tensor | None]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(a is not None and b is not None and torch.allclose(a, b, atol=1e-6) for a, b in pairs)


def test_the_discriminator_of_the_vae_gan_learns_from_the_three_adversarial_terms_alone() -> None:
    gan, nets = _gan("das-vaegan", gamma=1.0)
    batch, d = _batch(gan, (3, 32, 32)), nets["d"]
    torch.manual_seed(3)
    loss = _first(gan.loss("d", nets, batch))
    torch.manual_seed(3)
    with torch.no_grad():
        rebuilt = nets["g"](vaegan.draw(*nets["enc"](batch.real)), batch.labels)
        sampled = nets["g"](batch.z, batch.fake_labels)
    real, fake, again = (d(images, batch.labels) for images in (batch.real, sampled, rebuilt))
    by_hand = -(logsigmoid(real) + logsigmoid(-fake) + logsigmoid(-again)).mean()
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-5)
    assert _equal(_gradients(loss, d), _gradients(by_hand, d))
    for name in ("enc", "g"):
        assert all(gradient is None for gradient in _gradients(loss, nets[name]))


def test_the_encoder_learns_from_prior_and_feature_error_alone() -> None:
    gan, nets = _gan("das-vaegan")
    batch, d, enc = _batch(gan, (3, 32, 32)), nets["d"], nets["enc"]
    assert isinstance(d, vaegan.Discriminator)
    torch.manual_seed(3)
    loss = _first(gan.loss("enc", nets, batch))
    torch.manual_seed(3)
    mean, log_variance = enc(batch.real)
    rebuilt = nets["g"](vaegan.draw(mean, log_variance), batch.labels)
    error = (d.features(batch.real) - d.features(rebuilt)).square()
    by_hand = vaegan.divergence(mean, log_variance).mean() + error.sum() / BATCH
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert _equal(_gradients(loss, enc), _gradients(by_hand, enc))
    # The layers behind l, and with them all that is adversarial, have no part in it.
    assert all(gradient is None for gradient in _gradients(loss, d.head))


def test_the_decoder_weighs_the_mean_feature_error_by_gamma() -> None:
    gan, nets = _gan("das-vaegan", gamma=0.5)
    batch, d = _batch(gan, (3, 32, 32)), nets["d"]
    torch.manual_seed(3)
    record = gan.loss("g", nets, batch)
    torch.manual_seed(3)
    with torch.no_grad():
        rebuilt = nets["g"](vaegan.draw(*nets["enc"](batch.real)), batch.labels)
        sampled = nets["g"](batch.z, batch.fake_labels)
        adversarial = -(logsigmoid(d(sampled, batch.labels)) + logsigmoid(d(rebuilt, batch.labels))).mean()
        assert isinstance(d, vaegan.Discriminator)
        error = (d.features(batch.real) - d.features(rebuilt)).square().mean()
    assert error > 0
    assert _first(record).item() == pytest.approx((0.5 * error + adversarial).item(), abs=1e-5)
    assert all(gradient is None for gradient in _gradients(_first(record), nets["enc"]))


@pytest.mark.parametrize(
    ("system_id", "values", "message"),
    [
        ("das-infogan", {"latent": 12}, "allowed is 13 or more"),
        ("das-infogan", {"categories": 72}, "allowed is 75 or more"),
        ("das-vaegan", {"loss": "hinge"}, "should be 'bce'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(system_id: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        overlay(SYSTEMS[system_id].defaults, values)
    assert overlay(SYSTEMS["das-infogan"].defaults, {"latent": 13}).latent == 13
