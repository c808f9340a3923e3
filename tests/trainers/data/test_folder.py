"""Folders as people have them: what is a split, a class, a wrapper, or none of these, and what is said of the rest."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainers.data.catalogue import check, load, notices, shape_of
from trainers.data.folder import class_counts, pictures
from trainers.data.layout import class_order
from trainers.data.spec import DatasetSpec
from trainers.errors import InputError


def spec_of(root: Path, **options: Any) -> DatasetSpec:
    return DatasetSpec(name="folder", path=root, size=4, **options)


def fill(folder: Path, count: int, red: int = 0, suffix: str = "png") -> Path:
    """`count` pictures of one colour in a new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for place in range(count):
        Image.new("RGB", (4, 4), (red, place, 0)).save(folder / f"{place}.{suffix}")
    return folder


def labels_by_red(root: Path) -> dict[str, set[tuple[int, int]]]:
    """The pairs of red value and label in each split."""
    found = {}
    for split in ("train", "test"):
        data = load(spec_of(root), split)  # type: ignore[arg-type]
        found[split] = set(zip(data.images[:, 0, 0, 0].tolist(), data.labels.tolist(), strict=True))
    return found


def twice(*found: tuple[int, int]) -> dict[str, set[tuple[int, int]]]:
    """The same pairs in both splits."""
    return {"train": set(found), "test": set(found)}


# Splits


@pytest.mark.parametrize("held", ["test", "val", "valid", "Validation", "DEV", "Test"])
@pytest.mark.parametrize("train", ["train", "Train", "TRAINING"])
def test_splits_have_many_names(train: str, held: str, tmp_path: Path) -> None:
    for split, count in ((train, 3), (held, 2)):
        fill(tmp_path / split / "rose", count, red=10)
        fill(tmp_path / split / "oak", count, red=20)
    assert shape_of(spec_of(tmp_path)) == ((3, 4, 4), 2)
    assert labels_by_red(tmp_path) == twice((20, 0), (10, 1))
    assert [len(load(spec_of(tmp_path), split).labels) for split in ("train", "test")] == [6, 4]
    assert notices(spec_of(tmp_path)) == ()


def test_test_is_held_out_and_val_is_passed_over_if_both_are_there(tmp_path: Path) -> None:
    for split, red in (("train", 10), ("valid", 20), ("test", 30)):
        fill(tmp_path / split, 3, red)
    fill(tmp_path / "more", 2)
    assert labels_by_red(tmp_path) == {"train": {(10, 0)}, "test": {(30, 0)}}
    assert notices(spec_of(tmp_path)) == (f"{tmp_path}: passed over beside train and test: more, valid",)


def test_train_alone_is_divided_by_the_hashes_of_names(tmp_path: Path) -> None:
    for name, red in (("x", 10), ("y", 20)):
        fill(tmp_path / "Train" / name, 20, red)
    assert tuple(class_counts(spec_of(tmp_path))) == ("x", "y")
    assert [len(load(spec_of(tmp_path), split).labels) for split in ("train", "test")] == [36, 4]
    assert notices(spec_of(tmp_path)) == (f"{tmp_path}/Train: has no test or val beside it; a tenth of it is held out",)


def test_a_class_may_be_called_like_a_split_and_it_is_said(tmp_path: Path) -> None:
    for name in ("bus", "train", "tram"):
        fill(tmp_path / name, 4)
    assert tuple(class_counts(spec_of(tmp_path))) == ("bus", "train", "tram")
    assert "/train: taken for a class, since no other split lies beside it" in notices(spec_of(tmp_path))[0]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("val",), "has val, but no train; name the folder to train on train, or rename"),
        (("test", "dev"), "has dev, test, but no train"),
        (("train", "Train", "test"), "Train, train are names of one split"),
        (("train", "val", "valid"), "val, valid are names of one split"),
        (("train/a", "train/b", "test/a"), "train and test differ in their class folders"),
        (("training/a", "dev/b"), "training and dev differ in their class folders"),
    ],
)
def test_splits_that_do_not_fit_are_refused(folders: tuple[str, ...], message: str, tmp_path: Path) -> None:
    for folder in folders:
        fill(tmp_path / folder, 4)
    for attempt in (check, shape_of, lambda spec: load(spec, "train")):
        with pytest.raises(InputError, match=message):
            attempt(spec_of(tmp_path))


def test_a_split_that_was_possible_before_stays_as_it_was(tmp_path: Path) -> None:
    """The tenth with the smallest hashes over all, though a tenth of each class would be others."""
    for name, red in (("a", 0), ("b", 1)):
        fill(tmp_path / name, 25, red)
    names = [f"{name}/{place}.png" for name in "ab" for place in range(25)]
    ranked = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    expected = {("ab".index(name[0]), int(name[2:-4])) for name in ranked[:5]}
    images = load(spec_of(tmp_path), "test").images
    assert set(zip(images[:, 0, 0, 0].tolist(), images[:, 1, 0, 0].tolist(), strict=True)) == expected


def test_each_class_has_pictures_in_both_splits(tmp_path: Path) -> None:
    fill(tmp_path / "common", 40, red=1)
    for number in range(9):
        fill(tmp_path / f"rare{number}", 2 + number % 2, red=10 + number)
    for found in labels_by_red(tmp_path).values():
        assert found == {(1, 0), *((10 + number, 1 + number) for number in range(9))}
    shutil.rmtree(tmp_path / "rare3")
    fill(tmp_path / "rare3", 1)
    with pytest.raises(InputError, match=r"too few images .*class rare3 has one, rare3/0\.png"):
        check(spec_of(tmp_path))


# Wrappers, links, other files


def test_wrappers_are_looked_through_and_named(tmp_path: Path) -> None:
    for name, red in (("a", 10), ("b", 20)):
        fill(tmp_path / "set" / "v2" / name, 5, red)
    (tmp_path / "__MACOSX" / "set").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "set" / "._a.png").touch()
    assert labels_by_red(tmp_path) == twice((10, 0), (20, 1))
    assert notices(spec_of(tmp_path))[0] == f"{tmp_path}: looked through the folder set/v2, which holds everything"
    for split in ("train", "val"):
        shutil.copytree(tmp_path / "set" / "v2", tmp_path / "other" / split / "images")
    assert tuple(class_counts(spec_of(tmp_path / "other"))) == ("a", "b")


def test_one_folder_of_pictures_is_one_class(tmp_path: Path) -> None:
    fill(tmp_path / "cats", 5)
    assert shape_of(spec_of(tmp_path))[1] == 1
    assert class_counts(spec_of(tmp_path)) == {"cats": 4}


def test_links_to_class_folders_are_followed_once(tmp_path: Path) -> None:
    fill(tmp_path / "store" / "x1", 5, red=10)
    fill(tmp_path / "store" / "x2", 5, red=20)
    root = tmp_path / "set"
    fill(root / "own", 5, red=30)
    (root / "a").symlink_to(tmp_path / "store" / "x1")
    (root / "b").symlink_to("../store/x2", target_is_directory=True)
    assert labels_by_red(root)["train"] == {(10, 0), (20, 1), (30, 2)}
    (root / "a" / "back").symlink_to(root)
    (root / "again").symlink_to(root / "own")
    (root / "self.png").symlink_to(root / "self.png")
    (root / "gone").symlink_to(tmp_path / "nowhere")
    assert labels_by_red(root)["train"] == {(10, 0), (20, 1), (30, 2)}
    said = notices(spec_of(root))
    assert f"{root}: passed over links to folders that are listed already: a/back, again" in said
    assert f"{root}: passed over 2 files that are no pictures: .png (1), no ending (1)" in said


def test_other_files_are_counted_by_ending(tmp_path: Path) -> None:
    fill(tmp_path / "a", 4)
    fill(tmp_path / "b", 4, suffix="jfif")
    for name in ("a/1.heic", "a/2.HEIC", "b/notes.txt", "README", ".hidden", ".cache/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "a" / "pipe.png")  # would never end if it were opened
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    assert sum(len(load(spec_of(tmp_path), split).labels) for split in ("train", "test")) == 8
    assert notices(spec_of(tmp_path)) == (
        f"{tmp_path}: passed over 5 files that are no pictures: .heic (2), .png (1), .txt (1), no ending (1)",
        f"{tmp_path}: these folders are empty and no classes: empty",
    )


def test_a_class_without_a_picture_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        fill(tmp_path / name, 4)
    for path in (tmp_path / "b").iterdir():
        path.rename(path.with_suffix(".heic"))
    with pytest.raises(InputError, match=r"/b: has files but no image, beside the class folders a, c"):
        check(spec_of(tmp_path))


@pytest.mark.parametrize(
    ("name", "kind"), [("set.zip", "zip"), ("set.tar", "tar"), ("set.tar.gz", "gztar"), ("set", "zip")]
)
def test_an_archive_is_named_as_one(name: str, kind: str, tmp_path: Path) -> None:
    fill(tmp_path / "set.d" / "a", 2)
    made = Path(shutil.make_archive(str(tmp_path / "made"), kind, tmp_path / "set.d"))
    made.rename(tmp_path / name)
    with pytest.raises(InputError, match=f"{name}: is an archive: unpack it"):
        check(spec_of(tmp_path / name))
    (tmp_path / "around").mkdir()
    (tmp_path / name).rename(tmp_path / "around" / f"{name}.zip")
    with pytest.raises(InputError, match=rf"around: no images.*; unpack {name}\.zip"):
        check(spec_of(tmp_path / "around"))


def test_a_file_or_an_unreadable_folder_is_named(tmp_path: Path) -> None:
    picture = fill(tmp_path, 1) / "0.png"
    with pytest.raises(InputError, match=r"0\.png: is a file; set `path` to a folder"):
        check(spec_of(picture))
    for name in ("x" * 300, "a\0b", "0.png/more"):
        with pytest.raises(InputError, match="cannot be read"):
            check(spec_of(tmp_path / name))


def test_folders_may_lie_deep_in_each_other(tmp_path: Path) -> None:
    """Deeper than Python calls functions in each other."""
    here = os.open(fill(tmp_path / "a", 2), os.O_RDONLY)
    try:
        for _ in range(1200):
            os.mkdir("d", dir_fd=here)
            above, here = here, os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(above)
        assert len(pictures(tmp_path)[0]) == 2
    finally:
        os.close(here)
        subprocess.run(["rm", "-r", tmp_path / "a"], check=True)  # shutil and pytest cannot remove them


def test_names_that_are_no_utf_8_are_hashed_and_listed(tmp_path: Path) -> None:
    names = [os.fsdecode(name) for name in (b"caf\xe9", b"\xff\xfe", b"plain")]
    for place, name in enumerate(names):
        fill(tmp_path / name, 4, red=place)
    (tmp_path / names[0] / os.fsdecode(b"\xe9.txt\xe9")).touch()
    first = labels_by_red(tmp_path)
    assert first["train"] == first["test"] == {(place, sorted(names).index(name)) for place, name in enumerate(names)}
    assert all(text.isprintable() for text in notices(spec_of(tmp_path)))
    assert len(pictures(tmp_path)[0]) == 12


# The order of classes


def test_numbers_in_class_names_count_by_their_values() -> None:
    assert class_order(map(str, range(12))) == [str(number) for number in range(12)]
    assert class_order(["x10y2", "x9", "x10y1", "x"]) == ["x", "x9", "x10y1", "x10y2"]
    assert class_order(["01", "1", "001"]) == ["001", "01", "1"]
    assert class_order(["class ²", "class ٣", "B", "a", ""]) == sorted(["class ²", "class ٣", "B", "a", ""])


def test_names_without_numbers_of_several_lengths_keep_the_order_of_before() -> None:
    names = ["a-1", "a1", "a:1", "a", "ab", "A1", "é1", "n01440764", "n01443537", "_1", "a 1", "1_a", "2_b"]
    assert class_order(names) == sorted(names)


def test_class_folders_are_labelled_in_that_order(tmp_path: Path) -> None:
    for number in (2, 10, 9, 1):
        fill(tmp_path / f"{number}", 3, red=number)
    assert labels_by_red(tmp_path)["train"] == {(1, 0), (2, 1), (9, 2), (10, 3)}
