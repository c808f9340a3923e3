"""The cache holds several extractors of the same data, and scores that must compare get the very same one."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainers.data.files import digest
from trainers.data.images import ImageData
from trainers.errors import InputError
from trainers.evaluation import classifier, lenet
from trainers.evaluation.classifier import Known, Recipe, Trained


@pytest.fixture
def recipe() -> Recipe:
    return replace(lenet.RECIPE, steps=(3, 3))


def images(split: str = "train") -> ImageData:
    generator = torch.Generator().manual_seed(len(split))
    pixels = torch.randint(0, 256, (30, 1, 16, 12), generator=generator, dtype=torch.uint8)
    return ImageData(pixels, torch.arange(30) % 3, 3, "noise", split)


def trained(recipe: Recipe, cache: Path, known: Known | None = None) -> Trained:
    return classifier.trained(recipe, images(), images("test"), cache, known)


def other(recipe: Recipe) -> Recipe:
    """As a machine or a torch that gives other weights."""
    return replace(recipe, learning_rate=2 * recipe.learning_rate)


def known(sha256: str, content: bytes | None = None, required: bool = True) -> Known:
    return Known("lenet", images().sha256, sha256, lambda digits: content, required)


def same(one: Trained, two: Trained) -> bool:
    pairs = zip(one.net.state_dict().values(), two.net.state_dict().values(), strict=True)
    return one.sha256 == two.sha256 and all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def elsewhere(recipe: Recipe, tmp_path: Path) -> Trained:
    """What another machine has trained on the same data."""
    return trained(other(recipe), tmp_path / "elsewhere")


def test_known_weights_come_from_elsewhere_and_stay_in_the_cache(
    recipe: Recipe, elsewhere: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "fit", lambda *_: pytest.fail("trained again"))
    cache, content = tmp_path / "cache", elsewhere.weights.read_bytes()
    found = trained(recipe, cache, known(elsewhere.sha256, content))
    assert same(found, elsewhere)
    assert digest(found.weights) == elsewhere.sha256
    again = trained(recipe, cache, known(elsewhere.sha256, None))
    assert same(again, elsewhere)
    # Without anything known they are as good as any other, so that scores of all sweeps here compare.
    assert same(trained(recipe, cache), elsewhere)
    before = json.loads(elsewhere.weights.with_suffix(".json").read_text())
    assert json.loads(found.weights.with_suffix(".json").read_text()) == before


def test_several_of_the_same_data_lie_side_by_side(recipe: Recipe, elsewhere: Trained, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    own = trained(recipe, cache)
    assert own.sha256 != elsewhere.sha256
    fetched = trained(recipe, cache, known(elsewhere.sha256, elsewhere.weights.read_bytes()))
    assert same(fetched, elsewhere)
    assert len(list(cache.glob("*.safetensors"))) == 2
    assert same(trained(recipe, cache), own), "what came first is the one without anything known"
    assert same(trained(recipe, cache, known(own.sha256)), own)
    assert same(trained(recipe, cache, known(elsewhere.sha256)), elsewhere)
    assert same(trained(recipe, cache, known(elsewhere.sha256[:12], required=False)), elsewhere)


@pytest.mark.parametrize("damage", ["bit", "summary", "another file under its name"])
def test_a_damaged_file_is_fetched_again(recipe: Recipe, elsewhere: Trained, tmp_path: Path, damage: str) -> None:
    cache, content = tmp_path / "cache", elsewhere.weights.read_bytes()
    trained(recipe, cache)
    path = trained(recipe, cache, known(elsewhere.sha256, content)).weights
    if damage == "bit":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "summary":
        path.with_suffix(".json").write_text("{")
    else:
        own = trained(recipe, cache).weights
        path.write_bytes(own.read_bytes())
        path.with_suffix(".json").write_bytes(own.with_suffix(".json").read_bytes())
    assert same(trained(recipe, cache, known(elsewhere.sha256, content)), elsewhere)


def test_lost_weights_are_refused_and_nothing_is_trained(
    recipe: Recipe, elsewhere: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    own = trained(recipe, cache)
    monkeypatch.setattr(classifier, "fit", lambda *_: pytest.fail("trained again"))
    with pytest.raises(InputError, match=rf"extractor lenet: .*{elsewhere.sha256} are lost: neither .*cache nor"):
        trained(recipe, cache, known(elsewhere.sha256))
    assert same(trained(recipe, cache), own)


def test_lost_weights_that_are_not_required_are_replaced_with_a_warning(
    recipe: Recipe, elsewhere: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = trained(recipe, tmp_path / "cache", known(elsewhere.sha256, required=False))
    assert found.sha256 != elsewhere.sha256
    assert f"{elsewhere.sha256} are lost" in caplog.text


@pytest.mark.parametrize(("extractor", "data"), [("cnn", images().sha256), ("lenet", "0" * 64)])
def test_weights_of_another_network_or_of_other_data_are_not_asked_for(
    recipe: Recipe, elsewhere: Trained, tmp_path: Path, extractor: str, data: str
) -> None:
    def never(digits: str) -> bytes | None:
        return pytest.fail("asked for")

    found = trained(recipe, tmp_path / "cache", Known(extractor, data, elsewhere.sha256, never, required=True))
    assert same(found, trained(recipe, tmp_path / "cache"))
