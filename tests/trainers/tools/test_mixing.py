"""Laws of the study of mixes: what a training set holds, what the strategies do, and what an interruption leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from orchestrator.cli.__main__ import app
from orchestrator.report.mixing import PAGE, TABLE, page, table, write_results
from tests.support import sweeps
from trainers import checkpoint
from trainers.catalogue import SYSTEMS
from trainers.config import overlay
from trainers.data.images import ImageData
from trainers.data.spec import DatasetSpec
from trainers.errors import InputError
from trainers.evaluation import lenet
from trainers.rungs import Rung
from trainers.tools import mixing
from trainers.tools.mix_study import POINTS, Settings, Study, plan, read_points
from trainers.tools.mixing import Material, Point
from trainers.trainer import Trainer

Digits = tuple[ImageData, ImageData]
MINI = DatasetSpec(name="mnist-mini")
IMAGES = 200
WANTED: dict[str, Any] = {
    "strategies": ("none", "1", "2"),
    "real": (0, 20),
    "seeds": (0, 1),
    "epochs": 2,
    "images": 40,
    "device": "cpu",
}
SETTINGS = Settings("narman-cgan", 20, "c" * 64, "mnist", "a" * 64, "b" * 64, 10_000, 10, 55_000, 30, "cpu")


def save_checkpoint(folder: Path, system_id: str, data: ImageData) -> Path:
    """A run's folder with the checkpoint of a generator that has hardly learnt."""
    system = SYSTEMS[system_id]
    trainer = Trainer(system, overlay(system.defaults, {"width": 0.1, "batch": 10, "kimg": 0.02}), data)
    trainer.advance(20)
    manifest = {"system": system_id, "history": [Rung(20, {}, {}, 0.0, 0.0).to_json()]}
    checkpoint.write(folder / "checkpoints" / checkpoint.folder_name(20), *trainer.state(), manifest)
    return folder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, mnist_mini: Digits) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("run"), "narman-cgan", mnist_mini[0])


@pytest.fixture(scope="module")
def given(mnist_mini: Digits) -> Material:
    """240 real digits, of which 220 are for training, and 200 others in the place of generated ones."""
    train, test = mnist_mini
    first, second = (
        replace(train, images=train.images[part], labels=train.labels[part]) for part in (slice(240), slice(240, 440))
    )
    few = replace(test, images=test.images[:300], labels=test.labels[:300])
    return mixing.material(first, few, second.images, second.labels, "cpu")


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The classifier's weights at each of its tests, the last ones at its end."""
    seen: list[Tensor] = []
    measure: Callable[[nn.Module, ImageData], float] = lenet.accuracy

    def spy(net: nn.Module, data: ImageData) -> float:
        seen.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
        return measure(net, data)

    monkeypatch.setattr(lenet, "accuracy", spy)
    return seen


def numbered(count: int) -> ImageData:
    """Images that tell their own number, of ten unequal classes."""
    images = torch.arange(count)[:, None, None, None].expand(count, 1, 1, 1)
    return ImageData(images, torch.arange(count) ** 2 % 10, 10, "numbered", "train")


def without_seconds(points: list[Point]) -> list[Point]:
    return [replace(point, seconds=0.0) for point in points]


def study_of(source: Path, **changes: Any) -> Study:
    return plan(source, MINI, **{**WANTED, **changes})


def test_a_twelfth_of_the_real_images_validates_and_none_of_them_trains() -> None:
    train, validation = mixing.split(numbered(60_000))
    assert (len(train.labels), len(validation.labels)) == (55_000, 5_000)
    numbers = torch.cat([train.images.flatten(), validation.images.flatten()])
    assert torch.equal(numbers.sort().values, torch.arange(60_000))
    assert not torch.equal(validation.images.flatten(), torch.arange(55_000, 60_000))


@pytest.mark.parametrize("seed", range(3))
def test_every_beginning_of_the_order_is_stratified_until_classes_are_used_up(seed: int) -> None:
    labels = torch.randint(10, (300,), generator=torch.Generator().manual_seed(seed))
    order = mixing.by_turns(labels, seed)
    assert torch.equal(order.sort().values, torch.arange(300))
    everything = torch.bincount(labels, minlength=10)
    for count in range(301):
        taken = torch.bincount(labels[order[:count]], minlength=10)
        assert bool((taken[taken < everything] >= taken.max() - 1).all())


def test_real_subsets_of_one_seed_are_nested_and_another_seed_takes_others(given: Material) -> None:
    sizes = (0, 10, 60, 120, IMAGES)
    chosen = [set(mixing.mix(given, IMAGES, real, 0)[0].tolist()) for real in sizes]
    assert all(small < large for small, large in pairwise(chosen))
    assert chosen[1] != set(mixing.mix(given, IMAGES, 10, 1)[0].tolist())


@pytest.mark.parametrize("real", [0, 10, 60, 125, IMAGES])
def test_a_training_set_has_always_as_many_images_of_each_kind_and_class(given: Material, real: int) -> None:
    own, generated = mixing.mix(given, IMAGES, real, 0)
    assert (len(own), len(generated), len({*own.tolist(), *generated.tolist()})) == (real, IMAGES - real, IMAGES)
    assert bool((own < given.real).all())
    assert bool((generated >= given.real).all())
    if 0 < real <= 60:
        assert torch.bincount(given.pool.labels[own], minlength=10).tolist() == [real // 10] * 10


def test_all_real_images_have_their_natural_frequencies(given: Material) -> None:
    own, _ = mixing.mix(given, given.real, given.real, 0)
    assert torch.equal(own.sort().values, torch.arange(given.real))


def test_more_images_than_there_are_is_an_error(given: Material) -> None:
    for images, real in ((230, 221), (201, 0), (10, 11), (10, -1)):
        with pytest.raises(ValueError, match="real and"):
            mixing.mix(given, images, real, 0)


def test_the_strategies_give_their_epochs_the_images_of_the_report() -> None:
    real, made = torch.tensor([0, 1]), torch.tensor([2, 3, 4])
    expected = {
        "none": [[0, 1, 2, 3, 4]] * 4,
        "1": [[2, 3, 4], [2, 3, 4], [0, 1], [0, 1]],
        "2": [[2, 3, 4], [0, 1], [2, 3, 4], [0, 1]],
    }
    for name, strategy in mixing.STRATEGIES.items():
        assert [each.tolist() for each in strategy(real, made, 4)] == expected[name]


@pytest.mark.parametrize("real", [0, IMAGES])
def test_with_one_kind_of_images_strategies_1_and_2_are_half_the_epochs_bit_for_bit(
    given: Material, weights: list[Tensor], real: int
) -> None:
    points, ends = [], []
    for strategy, epochs in (("1", 6), ("2", 6), ("none", 3)):
        points.append(mixing.train_point(given, IMAGES, strategy, real, 3, epochs))
        ends.append(weights[-1])
    assert all(torch.equal(end, ends[0]) for end in ends)
    assert not torch.equal(ends[0], weights[0])
    first, second, half = points
    assert first.accuracy == second.accuracy == half.accuracy
    # An epoch without images leaves the validation accuracy where it was.
    if real:
        assert (first.curve[3:], second.curve[1::2]) == (half.curve, half.curve)
        assert second.curve[2::2] == half.curve[:2]
    else:
        assert (first.curve[:3], second.curve[::2]) == (half.curve, half.curve)
        assert (first.curve[3:], second.curve[1::2]) == (half.curve[2:] * 3, half.curve)


def test_one_optimizer_lives_through_the_whole_training(given: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.optim.Adam] = []

    class Spy(torch.optim.Adam):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(torch.optim, "Adam", Spy)
    mixing.train_point(given, IMAGES, "1", 60, 0, 4)
    (optimizer,) = made
    # 140 generated images are two batches, 60 real ones are one.
    assert {float(slots["step"]) for slots in optimizer.state.values()} == {2 * 2 + 2 * 1}


def test_a_seed_fixes_a_training_and_the_training_leaves_no_trace(given: Material, weights: list[Tensor]) -> None:
    torch.manual_seed(1)
    torch.set_num_threads(2)
    before = torch.get_rng_state()
    try:
        first = mixing.train_point(given, IMAGES, "none", 60, 0, 2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert torch.equal(before, torch.get_rng_state())
    end = weights[-1]
    torch.manual_seed(2)
    assert without_seconds([mixing.train_point(given, IMAGES, "none", 60, 0, 2)]) == without_seconds([first])
    assert torch.equal(end, weights[-1])
    mixing.train_point(given, IMAGES, "none", 60, 1, 2)
    assert not torch.equal(end, weights[-1])


def test_a_classifier_of_real_digits_learns_them(mnist_mini: Digits) -> None:
    train, test = mnist_mini
    given = mixing.material(train, test, train.images[:0], train.labels[:0], "cpu")
    point = mixing.train_point(given, 3000, "none", 3000, 0, 4)
    assert point.accuracy > 0.8
    assert point.curve[-1] > point.curve[0]
    assert abs(point.curve[-1] - point.accuracy) < 0.1


def test_the_reported_proportions_scale_with_the_training_set() -> None:
    assert mixing.reported_at(55_000, 10) == mixing.REPORTED
    small = mixing.reported_at(7333, 10)
    assert list(small)[:4] == [0, 10, 73, 733]
    assert list(small)[-1] == 7333
    # 10 and 60 of 55,000 would both be less than one image per class; ten of 7,333 are nearer to the latter.
    assert small[10] == mixing.REPORTED[60]


def test_the_default_study_is_the_reported_one_in_proportion(run_folder: Path) -> None:
    study = study_of(run_folder, real=(), images=None, strategies=("1",), seeds=(4,))
    assert study.settings.images == 7333
    assert study.wanted == tuple((4, real, "1") for real in mixing.reported_at(7333, 10))


def test_an_interrupted_study_goes_on_to_the_same_table(run_folder: Path, tmp_path: Path) -> None:
    study = study_of(run_folder, strategies=("none", "2"))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trained = list(study.run(whole))
    assert [(p.seed, p.real, p.strategy) for p in trained] == list(study.wanted)
    assert list(islice(study.run(parts), 5)) == read_points(parts, study.settings)
    rest = list(study.run(parts))
    assert len(rest) == len(trained) - 5
    tables = [table(study.settings, without_seconds(read_points(each, study.settings))) for each in (whole, parts)]
    assert tables[0] == tables[1]
    assert list(study.run(parts)) == []


def test_points_of_other_settings_do_not_mix(run_folder: Path, tmp_path: Path, mnist_mini: Digits) -> None:
    small = {"strategies": ("1",), "real": (0,), "seeds": (0,)}
    kept = list(study_of(run_folder, **small).run(tmp_path))
    more = study_of(run_folder, **small | {"seeds": (0, 1)})
    assert read_points(tmp_path, more.settings) == kept
    other = save_checkpoint(tmp_path / "other", "narman-cgan-osls", mnist_mini[0])
    for study, message in (
        (study_of(run_folder, **small, epochs=4), "epochs 2, not 4"),
        (study_of(run_folder, **small, images=50), "images 40, not 50"),
        (study_of(other, **small), "system narman-cgan, not narman-cgan-osls; checkpoint .*, not "),
    ):
        with pytest.raises(InputError, match=message):
            next(study.run(tmp_path))
    (tmp_path / POINTS).write_text("{}\n")
    with pytest.raises(InputError, match="not the points of a study"):
        read_points(tmp_path, more.settings)
    with pytest.raises(InputError, match="is not a folder"):
        read_points(tmp_path / POINTS, more.settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategies": ("none", "3")}, "--strategies 3: unknown; allowed are none, 1, 2"),
        ({"strategies": ()}, "--strategies: none given"),
        ({"seeds": ()}, "--seeds : at least one"),
        ({"seeds": (0, -1)}, "--seeds 0,-1: .* 0 or more"),
        ({"epochs": 0}, "--epochs 0"),
        ({"epochs": 1}, "--epochs 1"),
        ({"epochs": 3}, "--epochs 3: allowed are even"),
        ({"images": 9}, "--images 9: allowed are 10 or more"),
        ({"real": (0, 41)}, r"--real 41: .* to 40: a training set has 40 images"),
        ({"real": (8000,), "images": 9000}, "--real 8000: .* 7333 of mnist-mini are real"),
        ({"real": (5,)}, r"--real 5: allowed are 0, and 10 \(one per class\)"),
        ({"real": (-10,)}, "--real -10"),
    ],
)
def test_what_cannot_be_studied_is_told_in_one_sentence(
    run_folder: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        study_of(run_folder, **changes)


def test_only_checkpoints_with_classes_and_images_of_the_data_are_taken(
    run_folder: Path, tmp_path: Path, mnist_mini: Digits
) -> None:
    with pytest.raises(InputError, match="no checkpoint; name one"):
        study_of(tmp_path)
    with pytest.raises(InputError, match="narman-dcgan is unconditional"):
        study_of(save_checkpoint(tmp_path / "unconditional", "narman-dcgan", mnist_mini[0]))
    with pytest.raises(InputError, match=r"--dataset shapes32: images are \(3, 32, 32\), but narman-cgan makes"):
        plan(run_folder, DatasetSpec(name="shapes32"), **WANTED)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="no checkpoint of this version"):
        study_of(tmp_path)


def test_the_table_has_means_deviations_and_the_reported_numbers() -> None:
    points = [
        Point("none", 550, 0, 0.96, 60.0, (0.9, 0.95)),
        Point("none", 550, 1, 0.98, 70.0, (0.9, 0.95)),
        Point("1", 550, 1, 0.5, 35.0, (0.4, 0.5)),
        Point("1", 600, 0, 0.25, 35.0, (0.4, 0.5)),
    ]
    rows = [line.strip("| ").split(" | ") for line in table(SETTINGS, points).splitlines() if line.startswith("|")]
    assert rows[0][2:6] == ["no strategy", "reported", "strategy 1", "reported"]
    assert rows[2] == ["1", "550", "97.00 ± 1.41", "96.7", "50.00 (n=1)", "96.2", "65.0", "35.0"]
    assert rows[3] == ["1.1", "600", "", "", "25.00 (n=1)", "", "", "35.0"]
    assert "Unlike it: nothing known." in table(SETTINGS, points)
    other = replace(SETTINGS, dataset="mnist-mini", epochs=4)
    assert "data set mnist-mini, reported mnist; epochs 4, reported 30." in table(other, points)


def test_the_page_loads_nothing_and_draws_what_there_is(tmp_path: Path) -> None:
    points = [Point("1", real, 0, 1.0, 35.0, (0.4, 1.0)) for real in (0, 5_500)]
    text = page(SETTINGS, points)
    assert "strategy 1, reported" in text
    assert "strategy 2, reported" not in text
    assert "images, 10 % real" in text
    assert "<script src" not in text
    assert write_results(SETTINGS, points, tmp_path) == (tmp_path / TABLE).read_text()
    assert (tmp_path / PAGE).read_text() == text


def test_a_study_stopped_by_hand_shows_what_there_is(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_point(*arguments: Any) -> Point:
        point = mixing.train_point(*arguments)
        if point.strategy == "2":
            raise KeyboardInterrupt
        return point

    monkeypatch.setattr("trainers.tools.mix_study.train_point", train_point)
    options = ["--dataset", "mnist-mini", "--images", "40", "--epochs", "2", "--seeds", "0", "--real", "0,20"]
    done = CliRunner().invoke(app, ["mix-study", str(run_folder), *options, "--output", str(tmp_path)])
    assert done.exit_code == 130
    assert "[2/6] strategy 1, 0 real, seed 0" in done.output
    assert (tmp_path / TABLE).read_text() in done.output
    assert len((tmp_path / POINTS).read_text().splitlines()) == 3


def test_the_command_prints_its_table_and_refuses_in_one_line(run_folder: Path, tmp_path: Path) -> None:
    options = ["--dataset", "mnist-mini", "--images", "40", "--epochs", "2", "--seeds", "0", "--real", "0,20"]
    done = sweeps.gansweep("mix-study", str(run_folder), *options, "--output", "found", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "found" / TABLE).read_text() in done.stdout
    assert "strategy 2, 20 real, seed 0" in done.stdout
    refused = sweeps.gansweep("mix-study", str(run_folder), *options, "--real", "some", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--real some: must be whole numbers" in refused.stderr
