"""Generated images have the classes that their folders name, and are compared with real ones of their own size."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.__main__ import main
from tests.support.class_folders import write_classes
from tests.trainers.tools.test_mixing import save_checkpoint
from tests.trainers.tools.test_scoring import write
from trainers.data.catalogue import DATASETS, class_names, counts_of, load, sized
from trainers.data.images import ImageData, blank
from trainers.data.spec import DatasetSpec
from trainers.errors import InputError
from trainers.evaluation import lenet
from trainers.evaluation.extractors import Extractor
from trainers.evaluation.spec import ExtractorSpec
from trainers.tools.class_folders import labels_of, shown
from trainers.tools.mix_study import plan
from trainers.tools.score import Scored, score

Digits = tuple[ImageData, ImageData]
LENET = ExtractorSpec(name="lenet")


@pytest.mark.parametrize(
    ("folders", "classes", "labels"),
    [
        (["1", "10", "2"], ["1", "2", "10"], [0, 2, 1]),
        (["01", "02", "10"], ["1", "2", "10"], [0, 1, 2]),
        (["1", "2"], ["01", "02", "03"], [0, 1]),
        (["run-7", "run-12"], ["run-007", "run-012"], [0, 1]),
        (["cat", "dog"], ["cat", "dog"], [0, 1]),
        (["dog"], ["cat", "dog"], [1]),
        (["01", "1"], ["01", "1"], [0, 1]),
        ([unicodedata.normalize("NFD", "é")], ["z", unicodedata.normalize("NFC", "é")], [1]),
        # Names that are no classes, or the same class twice.
        (["1", "2", "3"], ["0", "1", "2"], None),
        (["cat", "dgo"], ["cat", "dog"], None),
        (["n01440764"], ["tench"], None),
        (["1", "01"], ["1", "2"], None),
        (["1"], ["01", "001"], None),
        (["Cat"], ["cat", "dog"], None),
    ],
)
def test_a_folder_has_the_label_of_the_class_with_its_name(
    folders: list[str], classes: list[str], labels: list[int] | None
) -> None:
    expected = None if labels is None else dict(zip(folders, labels, strict=True))
    assert labels_of(folders, classes) == expected


@given(st.lists(st.integers(0, 5000), min_size=1, unique=True), st.integers(1, 6), st.integers(1, 6), st.randoms())
def test_padding_and_order_of_numbers_change_no_label(numbers: list[int], own: int, theirs: int, rng: object) -> None:
    classes = [str(number).zfill(theirs) for number in numbers]
    found = labels_of([str(number).zfill(own) for number in reversed(numbers)], classes)
    assert found is not None
    assert [classes[label] for label in found.values()] == classes[::-1]


def test_names_are_shown_in_natural_order_and_not_all_of_many() -> None:
    assert shown(["10", "9", "a"]) == "9, 10, a"
    assert shown([str(number) for number in range(40)]).endswith("10, 11, ... (40 in all)")


def test_the_table_has_the_numbers_and_names_of_the_built_in_data() -> None:
    for name in ("mnist-mini", "shapes32"):
        spec = DatasetSpec(name=name)
        assert load(spec, "train").labels.bincount().tolist() == list(counts_of(spec))
    for name, dataset in DATASETS.items():
        assert len(dataset.names) == len(dataset.counts) == (dataset.classes or 0), name


def test_the_names_and_numbers_of_a_folder_are_those_of_its_class_folders(tmp_path: Path) -> None:
    folder = DatasetSpec(name="folder", path=write_classes(tmp_path / "two", ["x", "y"], 20, 8))
    data = load(folder, "train")
    assert class_names(folder) == ("x", "y")
    assert counts_of(folder) == tuple(data.labels.bincount().tolist())
    loose = DatasetSpec(name="folder", path=write_classes(tmp_path / "loose", [""], 20, 8))
    assert (class_names(loose), counts_of(loose)) == ((), (18,))


# Scores


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours are learnt in a few steps. Not for tests that share a cache."""
    monkeypatch.setattr(lenet, "RECIPE", replace(lenet.RECIPE, steps=(120, 120)))


@pytest.fixture
def real(tmp_path: Path, quick: None) -> DatasetSpec:
    """Twelve classes with the names 3 to 14, larger than the images that are scored."""
    return DatasetSpec(name="folder", path=write_classes(tmp_path / "real", [str(n) for n in range(3, 15)], 20, 64))


def scored(source: Path, dataset: DatasetSpec, *metrics: str, per_class: bool = False) -> Scored:
    return score(source, dataset, LENET, metrics, 0, source.parent / "cache", per_class)


def test_padded_class_folders_are_recognised(real: DatasetSpec, tmp_path: Path) -> None:
    made = write_classes(tmp_path / "made", [f"{n:03d}" for n in range(3, 15)], 4, 24)
    assert scored(made, real, "accuracy").scores["accuracy"].value > 0.9


def test_some_of_the_classes_are_enough(real: DatasetSpec, tmp_path: Path) -> None:
    made = write_classes(tmp_path / "all", [str(n) for n in range(3, 15)], 4, 24)
    for path in [*(made / "5").iterdir(), *(made / "14").iterdir()]:
        path.unlink()
    found = scored(made, real, "accuracy", per_class=True)
    assert found.scores["accuracy"].value > 0.9
    assert found.classes is not None
    assert {class_names(real)[row.label] for row in found.classes if not row.n} == {"5", "14"}


def test_other_names_are_refused_with_both_lists_if_classes_matter(real: DatasetSpec, tmp_path: Path) -> None:
    made = write_classes(tmp_path / "made", [str(n) for n in range(12)], 3, 24)
    told = r"class folders are 0, 1, .*11, but the classes of folder are 3, 4, .*14; name them alike, or give --metrics"
    for metrics, per_class in (((), False), (("accuracy",), False), (("kid",), True)):
        with pytest.raises(InputError, match=told):
            scored(made, real, *metrics, per_class=per_class)
    assert set(scored(made, real, "kid", "fid").scores) == {"kid", "fid"}


def test_one_folder_around_all_pictures_names_no_class(real: DatasetSpec, tmp_path: Path) -> None:
    made = write_classes(tmp_path / "made", ["images"], 24, 24)
    assert set(scored(made, real).scores) == {"kid", "fid", "is"}
    with pytest.raises(InputError, match="class folders are images, but the classes of folder are 3, 4, "):
        scored(made, real, "accuracy")


@pytest.mark.parametrize("names", [[str(n) for n in range(10)], [f"{n:02d}" for n in range(10)], list("0123")])
def test_digits_are_named_by_their_numbers(
    names: list[str], tmp_path: Path, cache_dir: Path, mnist_mini: Digits, mnist_mini_lenet: Extractor
) -> None:
    made = write(tmp_path / "made", mnist_mini[1], 100, classes=True)
    for number in range(10):
        kept = made / names[number] if number < len(names) else tmp_path / str(number)
        (made / str(number)).rename(kept)
    found = score(made, DatasetSpec(name="mnist-mini"), LENET, ("accuracy",), 0, cache_dir)
    assert found.scores["accuracy"].value > 0.9


def test_digits_from_one_to_ten_are_no_classes(tmp_path: Path, cache_dir: Path, mnist_mini: Digits) -> None:
    made = write_classes(tmp_path / "made", [str(n) for n in range(1, 11)], 3, 28, gray=True)
    with pytest.raises(InputError, match=r"folders are 1, 2, .*10, but the classes of mnist-mini are 0, 1, .*9; n"):
        score(made, DatasetSpec(name="mnist-mini"), LENET, (), 0, cache_dir)


# Sizes


def test_real_pictures_are_scaled_to_the_size_of_the_scored_ones(real: DatasetSpec, tmp_path: Path) -> None:
    made = write_classes(tmp_path / "made", [str(n) for n in range(3, 15)], 4, 24)
    own = scored(made, real, "kid").scores["kid"]
    assert own == scored(made, real.model_copy(update={"size": 24}), "kid").scores["kid"]
    assert own.reference != scored(write_classes(tmp_path / "32", ["3"], 9, 32), real, "kid").scores["kid"].reference


def test_another_size_is_refused_with_the_one_that_fits(real: DatasetSpec, tmp_path: Path) -> None:
    made = write_classes(tmp_path / "made", ["3"], 9, 24)
    with pytest.raises(InputError, match=r"\(3, 24, 24\), but those of folder \(3, 32, 32\); --size 24 scales"):
        scored(made, real.model_copy(update={"size": 32}), "kid")
    for height, width in ((24, 36), (2, 2)):
        odd = write_classes(tmp_path / f"odd{height}", ["3"], 9, height, width)
        with pytest.raises(InputError, match=rf"not scaled to {width}x{height}; allowed are squares .*; --size names"):
            scored(odd, real, "kid")


def test_only_pictures_are_scaled() -> None:
    for name, dataset in DATASETS.items():
        assert sized(DatasetSpec(name=name), 48, 48).size == (48 if dataset.shape is None else None)
    assert sized(DatasetSpec(name="folder", size=40), 48, 48).size == 40


def test_too_few_real_pictures_for_a_metric_are_told(tmp_path: Path, quick: None) -> None:
    few = write_classes(tmp_path / "few", ["a", "b"], 2, 24)
    made = write_classes(tmp_path / "made", ["a", "b"], 9, 24)
    with pytest.raises(InputError, match=r"--metrics: coverage needs at least 6 training images, there are \d in"):
        scored(made, DatasetSpec(name="folder", path=few), "kid", "coverage")


def test_a_checkpoint_and_a_mixing_study_have_real_pictures_of_its_system_s_size(tmp_path: Path, quick: None) -> None:
    run = save_checkpoint(tmp_path / "run", "das-acgan", blank((3, 32, 32), 3, 30))
    folder = DatasetSpec(name="folder", path=write_classes(tmp_path / "real", ["a", "b", "c"], 20, 50))
    found = score(run, folder, LENET, ("kid",), 12, tmp_path / "cache").scores["kid"]
    at_32 = folder.model_copy(update={"size": 32})
    assert found == score(run, at_32, LENET, ("kid",), 12, tmp_path / "cache").scores["kid"]
    wanted = {"strategies": ["none"], "real": [6], "seeds": [0], "epochs": 2, "images": 12, "device": "cpu"}
    assert plan(run, folder, **wanted).train.shape == (3, 32, 32)
    with pytest.raises(InputError, match=r"images are \(3, 48, 48\), but das-acgan makes \(3, 32, 32\); --size 32"):
        plan(run, folder.model_copy(update={"size": 48}), **wanted)


@pytest.mark.parametrize("command", ["score", "mix-study"])
@pytest.mark.parametrize(("size", "told"), [("2", "--size: input should be g"), ("9999", "--size: input should b")])
def test_a_size_that_is_not_allowed_is_one_line(
    command: str,
    size: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["gansweep", command, str(tmp_path), "--dataset", "folder", "--size", size])
    with pytest.raises(SystemExit) as caught:
        main()
    shown_text = capsys.readouterr().err
    assert caught.value.code == 2
    assert shown_text.startswith(f"error: {told}")
    assert shown_text.count("\n") == 1


@pytest.mark.slow
def test_the_command_scores_a_folder_at_the_size_that_is_named(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_classes(tmp_path / "d", ["a", "b"], 15, 36)
    arguments = ["score", str(data), "--dataset", "folder", "--data", str(data), "--metrics", "fid", "--root", "r"]
    monkeypatch.chdir(tmp_path)
    for options, code in (([], 0), (["--size", "36"], 0), (["--size", "32"], 2)):
        monkeypatch.setattr("sys.argv", ["gansweep", *arguments, *options])
        with pytest.raises(SystemExit) as caught:
            main()
        assert (caught.value.code or 0) == code
    assert "--size 36 scales the real ones" in capsys.readouterr().err
