"""Laws of images fitted to another shape."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support import made_up
from trainers.catalogue import SYSTEMS
from trainers.config import overlay
from trainers.data.catalogue import load
from trainers.data.fit import LUMA, fitted
from trainers.data.images import ImageData
from trainers.data.spec import DatasetSpec
from trainers.errors import InputError
from trainers.evaluation.evaluator import Evaluator
from trainers.evaluation.extractors import Extractor
from trainers.evaluation.reference import reference_of
from trainers.run import Run


def test_images_that_fit_are_left_alone() -> None:
    images = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)
    assert fitted(images, (1, 28, 28)) is images


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 32, 32), (1, 7, 9), (3, 28, 28)])
@pytest.mark.parametrize("channels", [1, 3])
def test_one_gray_stays_that_gray_in_every_shape(channels: int, shape: tuple[int, int, int]) -> None:
    for level in (0, 1, 127, 255):
        images = torch.full((2, channels, 28, 28), level, dtype=torch.uint8)
        there = fitted(images, shape)
        assert there.dtype == torch.uint8
        assert there.shape == (2, *shape)
        assert (there == level).all()
        assert (fitted(there, (channels, 28, 28)) == level).all()


def test_colours_weigh_as_the_eye_sees_them() -> None:
    for channel, weight in enumerate(LUMA):
        images = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
        images[:, channel] = 200
        assert fitted(images, (1, 2, 2)).unique().tolist() == [round(200 * weight)]


def test_many_images_are_fitted_as_each_alone() -> None:
    images = torch.randint(0, 256, (1003, 1, 4, 4), dtype=torch.uint8)
    there = fitted(images, (3, 6, 6))
    for index in (0, 999, 1000, 1002):
        assert torch.equal(there[index], fitted(images[index : index + 1], (3, 6, 6))[0])


def test_a_digit_survives_the_way_to_64_pixels_and_back(
    mnist_mini: tuple[ImageData, ImageData], mnist_mini_lenet: Extractor
) -> None:
    _, test = mnist_mini
    back = fitted(fitted(test.images, (3, 64, 64)), (1, 28, 28))
    logits = mnist_mini_lenet(back).logits
    assert logits is not None
    accuracy = (logits.argmax(dim=1) == test.labels).double().mean()
    assert accuracy > 0.95


def test_a_system_of_another_size_is_scored_on_the_data_as_they_are(
    mnist_mini: tuple[ImageData, ImageData], mnist_mini_lenet: Extractor, cache_dir: Path
) -> None:
    train, _ = mnist_mini
    system = SYSTEMS["narman-dcgan-64"]
    config = overlay(system.defaults, {"width": 0.03125, "batch": 10, "kimg": 0.02})
    evaluator = Evaluator(mnist_mini_lenet, reference_of(mnist_mini_lenet, train, cache_dir), ("kid",), seed=0)
    run = Run("narman-dcgan-64", system, config, train, evaluator, [20], 40)
    rung = run.next_rung()
    assert run.trainer.sample(2, seed=0)[0].shape == (2, 1, 64, 64)
    assert rung.scores["kid"].extractor == mnist_mini_lenet.id
    assert rung.scores["kid"].reference == evaluator.reference.id


def test_only_a_data_set_that_is_fitted_suits_a_system_of_another_shape() -> None:
    with pytest.raises(InputError, match="allowed: `fit: true`"):
        made_up.sweep("system=narman-dcgan-64", "search={batch: 100}")
    assert made_up.sweep("system=narman-dcgan-64", "search={batch: 100}", "dataset.name=mnist-mini", "dataset.fit=true")


def test_fitting_is_an_option_of_every_data_set() -> None:
    assert len(load(DatasetSpec(name="shapes32", fit=True), "test").images) == 1000
