"""What would make each trial fail because of the data is told before the first one starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from search_spaces.load import SweepFile, check_sweep, parse_sweep
from search_spaces.sweep import Sweep, completed
from tests.support.class_folders import write_classes
from tests.support.sweep_texts import message, sweep, sweep_text
from trainers.errors import InputError

COLOUR = {"system": "hamed-dcgan", "rungs": "[6.4]"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 20 pictures each, of which 36 are for training."""
    return write_classes(tmp_path_factory.mktemp("pictures"), ["ant", "bee"], 20, 40)


def refused(folder: Path, **sections: str) -> str:
    """The message of the check at launch of a sweep on the pictures in `folder`; empty if there is none."""
    try:
        check_sweep(read(folder, **sections), folder / "cache")
    except InputError as error:
        return str(error)
    return ""


def read(folder: Path, dataset: str = "", **sections: str) -> Sweep:
    return sweep(**{**COLOUR, "dataset": f"{{name: folder, path: {folder}{dataset}}}", **sections})


@pytest.mark.parametrize(
    ("search", "told"),
    [
        (
            "{g_lr: 0.001}",
            "dataset: batch 64 (the default of hamed-dcgan) is more than the 36 training images",
        ),
        (
            "{batch: 40}",
            "search.batch: batch 40 is more than the 36 training images of folder; sampling shuffled needs",
        ),
        ("{batch: {choice: [8, 32]}}", ""),
        ("{batch: {choice: [8, 40, 32]}}", "batches of at most 36; random takes any"),
        ("{batch: 40, sampling: random}", ""),
        ("{batch: 40, sampling: {choice: [random, sequential]}}", "sampling sequential needs batches of at most 36"),
        ("{batch: 40, oversampling: 40}", ""),
        (
            "{batch: 64, oversampling: {int: [40, 900]}}",
            "batch 64 is more than the 40 images per epoch, oversampled fr",
        ),
        # Conditions: each batch is judged with the values that it can meet.
        ("{batch: {choice: [32, 64]}, sampling: {constant: random, when: {batch: 64}}}", ""),
        ("{batch: {choice: [32, 64]}, sampling: {constant: random, when: {batch: 32}}}", "batch 64 is more than"),
        ("{n_critic: {int: [1, 9]}, batch: {choice: [32], when: {n_critic: [1, 2]}}}", "the default of hamed-dcgan"),
        ("{n_critic: {int: [1, 2]}, batch: {choice: [32], when: {n_critic: [1, 2]}}}", ""),
    ],
)
def test_a_batch_that_the_training_images_cannot_fill_is_found(search: str, told: str, pictures: Path) -> None:
    found = refused(pictures, search=search)
    assert told in found
    assert bool(told) == bool(found)


def test_scaled_batches_count_for_all_workers(pictures: Path) -> None:
    two = {"search": "{batch: 32}", "resources": "{workers_per_trial: 2, batch: scaled}"}
    assert "batch 64, 32 for each of 2 workers, is more than the 36 training images" in refused(pictures, **two)
    assert refused(pictures, **{**two, "search": "{batch: 16}"}) == ""


def test_batches_of_built_in_data_are_judged_with_the_file_alone() -> None:
    whole = {"rungs": "[16]", "search": "{batch: {choice: [50, 16000]}}"}
    assert "small.yaml:3: search.batch.choice: input should be less than or equal to 4096" in message(
        sweep_text(**whole)
    )
    scaled = sweep_text(rungs="[8.192]", search="{batch: 2048}", resources="{workers_per_trial: 4, batch: scaled}")
    assert "small.yaml:3: search.batch: batch 8192, 2048 for each of 4 workers, is more than the 8000" in message(
        scaled
    )


def test_files_that_may_differ_from_the_published_ones_are_counted(tmp_path: Path) -> None:
    for part, count in (("train", 30), ("t10k", 9)):
        images, labels = bytes(count * 784), bytes(index % 10 for index in range(count))
        for name, dims, body in (("images-idx3", (count, 28, 28), images), ("labels-idx1", (count,), labels)):
            header = bytes((0, 0, 8, len(dims))) + b"".join(size.to_bytes(4, "big") for size in dims)
            (tmp_path / f"{part}-{name}-ubyte").write_bytes(header + body)
    loaded = sweep(dataset=f"{{name: mnist, path: {tmp_path}, verify: false}}")
    with pytest.raises(InputError, match=r"batch 100 .* is more than the 30 training images of mnist"):
        check_sweep(loaded, tmp_path / "cache")


def test_metrics_that_need_more_real_images_are_found(tmp_path: Path) -> None:
    for split, most in (("train", 3), ("test", 1)):
        write_classes(tmp_path / split, ["a"], most, 32)
        write_classes(tmp_path / split, ["b", "c"], 1, 32)
    common = {"system": "das-acgan", "rungs": "[1]", "search": "{batch: 5}"}
    for metric, told in (
        ("coverage", "score.also: coverage needs at least 6 training images, there are 5 in folder"),
        ("density", "density needs at least 6 training images"),
        ("intra-kid", "intra-kid needs at least 2 training images of each class"),
        ("precision", ""),
    ):
        found = refused(tmp_path, **common, score=f"{{also: [{metric}], samples: 40}}")
        assert told in found
        assert bool(told) == bool(found)


def test_an_extractor_that_takes_no_such_images_is_found(pictures: Path) -> None:
    small = refused(pictures, dataset=", size: 12, fit: true", search="{batch: 8}", score="{extractor: cnn}")
    assert "score.extractor: cnn takes images of 16x16 pixels or more, but those of folder have 12x12" in small
    assert refused(pictures, dataset=", size: 16, fit: true", search="{batch: 8}", score="{extractor: cnn}") == ""


class _Means(nn.Module):
    """Features of images of 32x32 alone, and as many logits as asked for, or none."""

    def __init__(self, logits: int) -> None:
        super().__init__()
        self.features = nn.Linear(3 * 32 * 32, 4)
        self.logits = nn.Linear(4, logits)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x.flatten(1))
        return features, self.logits(features)


def test_a_network_of_the_user_is_tried_on_images_of_the_data(tmp_path: Path) -> None:
    weights = tmp_path / "means.pt"
    torch.jit.script(_Means(3)).save(str(weights))
    four = write_classes(tmp_path / "data", ["a", "b", "c", "d"], 10, 32)
    score = f"{{extractor: {{name: custom, weights: {weights}}}}}"
    common = {"search": "{batch: 8}", "rungs": "[8]", "score": score}
    assert refused(four, **common) == ""
    conditional = refused(four, **common, system="das-acgan")
    assert f"score.extractor: {weights} gives 3 logits, but folder has 4 classes" in conditional
    assert "takes no float32 images (2, 3, 48, 48)" in refused(four, dataset=", size: 48, fit: true", **common)
    other = f"{{extractor: {{name: inception-pt, weights: {weights}}}}}"
    assert "score.extractor: " in refused(four, **{**common, "score": other})


def test_metrics_that_need_logits_are_found_if_the_network_of_the_user_gives_none(tmp_path: Path) -> None:
    weights = tmp_path / "flat.pt"
    torch.jit.script(nn.Flatten()).save(str(weights))
    data = write_classes(tmp_path / "data", ["a", "b"], 10, 32)
    extractor = f"extractor: {{name: custom, weights: {weights}}}"
    common = {"search": "{batch: 8}", "rungs": "[8]"}
    found = refused(data, **common, score=f"{{{extractor}, metric: is, also: []}}")
    assert f"score.metric: is needs a classifier's logits, which {weights} does not give" in found
    assert refused(data, **common, score=f"{{{extractor}, also: [fid]}}") == ""


# The size of pictures in a folder


@pytest.mark.parametrize(
    ("system", "options", "size"),
    [
        ("hamed-dcgan", "", 32),
        ("narman-dcgan", ", fit: true", 28),
        ("narman-dcgan-64", ", fit: true", 64),
        ("narman-dcgan-64", ", fit: true, size: 48", 48),
        ("{choice: [narman-dcgan, narman-dcgan-64]}", ", fit: true", 64),
    ],
)
def test_pictures_have_the_size_of_the_largest_system(system: str, options: str, size: int) -> None:
    read_now = sweep(system=system, dataset=f"{{name: folder, path: x{options}}}", rungs="[6.4]")
    assert read_now.dataset.size == size
    assert parse_sweep(read_now.normalised()) == read_now


def test_a_sweep_that_was_kept_without_a_size_goes_on_without_one() -> None:
    text = sweep_text(system="narman-dcgan-64", dataset="{name: folder, path: x, fit: true}", rungs="[6.4]")
    written = parse_sweep(text)
    known = written.model_copy(update={"dataset": written.dataset.model_copy(update={"size": None})})
    assert completed(written, known).dataset.size is None
    asked = parse_sweep(text, overrides=["dataset.size=64"])
    assert completed(asked, known).dataset.size == 64


def test_the_message_about_a_size_that_does_not_fit_names_the_one_that_does(pictures: Path) -> None:
    found = refused(pictures, dataset=", size: 64", search="{batch: 8}")
    assert (
        "images of shape (3, 64, 64), but hamed-dcgan makes (3, 32, 32); allowed: cifar10, shapes32, `size: 32`"
        in found
    )


# Where it is told


def test_problems_with_data_have_the_line_of_their_key(pictures: Path, tmp_path: Path) -> None:
    file = tmp_path / "late.yaml"
    file.write_text(
        f"system: hamed-dcgan\ndataset:\n  name: folder\n  path: {pictures}\nrungs: [6.4]\nbudget: {{trials: 2}}\n"
        "search:\n  g_lr: 0.001\n  batch:\n    choice: [16, 64]\n"
    )
    written, changed = SweepFile.read(file), SweepFile.read(file, ["search.batch=50"])
    file.unlink()  # what was read counts
    with pytest.raises(InputError, match=rf"^{file}:9: search.batch: batch 64 is more"), written.places():
        check_sweep(written.sweep(), tmp_path / "cache")
    with pytest.raises(InputError, match=r"^--set search.batch=50: search.batch: "), changed.places():
        check_sweep(changed.sweep(), tmp_path / "cache")
    with pytest.raises(InputError, match=r"^other"), written.places():
        raise InputError("other")
