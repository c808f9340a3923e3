"""Decoded pictures are kept by their content; damaged ones are all named, or passed over and listed."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from trainers.data import decoded
from trainers.data.catalogue import check, load, load_both
from trainers.data.images import ImageData
from trainers.data.spec import DatasetSpec, colour_option, read_colour
from trainers.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of 20 pictures each; every colour is another."""
    for name, red in (("a", 10), ("b", 20)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for place in range(20):
            Image.new("RGB", (9, 9), (red, place * 10, 0)).save(tmp_path / "set" / name / f"{place}.png")
    return tmp_path / "set"


def spec_of(root: Path, **options: Any) -> DatasetSpec:
    return DatasetSpec(name="folder", path=root, **{"size": 8} | options)


def both(spec: DatasetSpec, cache: Path | None = None) -> list[ImageData]:
    return list(load_both(spec, cache))


def pairs(data: ImageData) -> set[tuple[int, ...]]:
    """Red, green and label of each image."""
    return {(*image[:2, 0, 0].tolist(), label) for image, label in zip(data.images, data.labels.tolist(), strict=True)}


def kept(cache: Path) -> list[Path]:
    return sorted(cache.glob("decoded-*.safetensors"))


def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "decode", lambda *_: pytest.fail("a picture was decoded"))


# The cache


def test_pictures_are_decoded_once_and_the_same_with_and_without_a_cache(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, cache = spec_of(root), tmp_path / "cache"
    fresh, first = both(spec), both(spec, cache)
    assert len(kept(cache)) == 1
    no_decoding(monkeypatch)
    for again in (both(spec, cache), first):
        assert [data.sha256 for data in again] == [data.sha256 for data in fresh]
        assert [data.labels.tolist() for data in again] == [data.labels.tolist() for data in fresh]
    assert [name for name in os.listdir(cache) if name.startswith(".decoded-")] == []


def test_the_file_is_mapped_and_the_images_are_no_copies(root: Path, tmp_path: Path) -> None:
    for _ in range(2):
        train, test = both(spec_of(root), tmp_path)
        assert kept(tmp_path)[0].name in Path("/proc/self/maps").read_text()
    train.images.zero_()  # what a process writes to its images stays in the process
    assert both(spec_of(root), tmp_path)[0].images.any()
    assert test.images.any()


def test_other_bytes_names_and_options_are_other_files(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    before = both(spec_of(root), cache)[0].sha256
    for count, options in enumerate(({"size": 9}, {"background": "white"}, {"skip_damaged": True}), 2):
        both(spec_of(root, **options), cache)
        assert len(kept(cache)) == count
    stamp = (root / "a" / "3.png").stat()
    Image.new("RGB", (9, 9), (99, 99, 99)).save(root / "a" / "3.png")
    os.utime(root / "a" / "3.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    changed = {data.sha256 for data in both(spec_of(root), cache)}
    assert changed == {data.sha256 for data in both(spec_of(root))}
    assert before not in changed or len(kept(cache)) == 5
    (root / "a" / "4.png").rename(root / "a" / "44.png")
    assert [d.sha256 for d in both(spec_of(root), cache)] == [d.sha256 for d in both(spec_of(root))]
    assert len(kept(cache)) == 6


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped pixel", "flipped header", "garbage"])
def test_a_damaged_file_is_decoded_again(
    damage: str, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    expected = [data.sha256 for data in both(spec_of(root), cache)]
    path = kept(cache)[0]
    content = bytearray(path.read_bytes())
    flips = {"flipped pixel": len(content) - 1000, "flipped header": 9}
    if damage in flips:
        content[flips[damage]] ^= 1
    damaged = {"empty": b"", "cut": content[:-5], "garbage": b"\xff" * 5000}.get(damage, content)
    path.write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        assert [data.sha256 for data in both(spec_of(root), cache)] == expected
    assert f"{path}: damaged (" in caplog.text
    assert path.stat().st_size == len(content)


def test_processes_that_start_together_decode_once(root: Path, tmp_path: Path) -> None:
    """Each process writes a line for each picture that it decodes."""
    cache, log = tmp_path / "cache", tmp_path / "log"
    program = f"""
import os
from pathlib import Path
from trainers.data import decoded
from trainers.data.catalogue import load_both
from trainers.data.spec import DatasetSpec
real, log = decoded.decode, os.open({str(log)!r}, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
def decode(*given):
    os.write(log, b"x")
    return real(*given)
decoded.decode = decode
load_both(DatasetSpec(name="folder", path={str(root)!r}, size=8), Path({str(cache)!r}))
"""
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(log.read_bytes()) == 40


# Damaged pictures


def test_all_damaged_pictures_of_both_splits_are_named_at_once(root: Path, tmp_path: Path) -> None:
    names = [f"a/{place}.png" for place in range(0, 20, 2)] + ["b/7.png", "b/8.png"]
    for name in names:
        (root / name).write_bytes((root / name).read_bytes()[:50])
    check(spec_of(root))
    for attempt in (both, lambda spec: both(spec, tmp_path / "cache"), load_both):
        with pytest.raises(InputError) as found:
            attempt(spec_of(root))
        text = str(found.value)
        assert text.startswith("12 of 40 pictures cannot be used\nnot a readable image (")
        assert sum(f" {root}/{name}," in text for name in names) == 10
        assert text.endswith("and 2 more\n`skip_damaged: true` passes over what cannot be decoded")
    assert kept(tmp_path / "cache") == []


def test_damaged_pictures_are_passed_over_if_asked_and_listed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = both(spec_of(root))
    (root / "a" / "5.png").write_bytes(b"")
    (root / "b" / "6.png").write_bytes(b"GIF89a")
    spec = spec_of(root, skip_damaged=True)
    for attempt in range(2):
        data = both(spec, tmp_path / "cache")
        assert sum(len(each.labels) for each in data) == 38
        for each, before in zip(data, whole, strict=True):
            assert each.skipped == ("a/5.png", "b/6.png")
            assert each.notices[-1] == f"{root}: 2 damaged pictures are passed over: a/5.png, b/6.png"
            assert pairs(each) <= pairs(before)
        if not attempt:
            no_decoding(monkeypatch)


def test_a_class_of_which_nothing_is_left_is_an_error(root: Path) -> None:
    spec = spec_of(root, skip_damaged=True)
    for path in (root / "b").iterdir():
        path.write_bytes(b"nothing")
    for split in ("train", "test"):
        with pytest.raises(InputError, match="none of the training pictures of class b can be read"):
            load(spec, split)  # type: ignore[arg-type]
    for name, split in (("a", "train"), ("b", "val")):
        (root / split).mkdir()
        (root / name).rename(root / split / "a")
    with pytest.raises(InputError, match="none of the 20 pictures held out can be read"):
        load(spec, "train")


def test_nothing_left_at_all_is_an_error_with_a_cache_too(root: Path, tmp_path: Path) -> None:
    for path in root.glob("*/*"):
        path.write_bytes(b"nothing")
    for _ in range(2):
        with pytest.raises(InputError, match="none of the training pictures of class a can be read"):
            load_both(spec_of(root, skip_damaged=True), tmp_path / "cache")


def test_a_folder_elsewhere_uses_the_same_file_and_is_named_itself(root: Path, tmp_path: Path) -> None:
    (root / "a" / "5.png").write_bytes(b"")
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    for place in (root, moved):
        data, _ = load_both(spec_of(place, skip_damaged=True), tmp_path / "cache")
        assert data.notices == (f"{place}: 1 damaged pictures are passed over: a/5.png",)
    assert len(kept(tmp_path / "cache")) == 1


def test_only_damage_is_passed_over(root: Path) -> None:
    Image.new("RGBA", (9, 9), (1, 2, 3, 40)).save(root / "a" / "1.png")
    (root / "b" / "2.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"a/1\.png: is transparent in parts"):
        load(spec_of(root, skip_damaged=True), "train")
    assert load(spec_of(root, skip_damaged=True, background="black"), "test").skipped == ("b/2.png",)


# What is said of whole pictures


def test_shapes_of_which_a_centre_square_makes_nonsense_are_said(root: Path, tmp_path: Path) -> None:
    for name, size in (("wide", (4000, 4)), ("tall", (9, 37)), ("dot", (1, 1)), ("well", (36, 9))):
        Image.new("RGB", size, (10, 0, 0)).save(root / "a" / f"{name}.png")
    first = Image.new("RGB", (9, 9))
    first.save(root / "b" / "moving.gif", save_all=True, append_images=[Image.new("RGB", (9, 9), (9, 9, 9))])
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        train, test = load_both(spec_of(root), cache)
        found = test.notices
        assert found == train.notices
        assert sorted(text.partition(": ")[2] for text in found) == [
            "1 pictures are enlarged over 4 times: a/dot.png (1x1)",
            "1 pictures have several frames or pages, of which the first is read: b/moving.gif (9x9)",
            "2 pictures are over 4 times as long as wide, and only their centre square is read: "
            "a/tall.png (9x37), a/wide.png (4000x4)",
        ]


def test_the_background_is_a_colour(root: Path) -> None:
    for value, colour in (
        ("white", (255, 255, 255)),
        ("#102030", (16, 32, 48)),
        ([1, 2, 3], (1, 2, 3)),
        ("rgb(1, 2, 3)", (1, 2, 3)),
    ):
        spec = DatasetSpec.model_validate({"name": "folder", "background": value})
        assert spec.background == read_colour(value) == colour
        assert DatasetSpec.model_validate(spec.model_dump(mode="json")) == spec
    assert colour_option(None) is None
    for wrong in ("whitish", "#12", "#11223344", [1, 2], [1, 2, 256], [1, 2, True], [0.5, 1, 1], 3, {}):
        with pytest.raises(ValueError, match="allowed are names such as white and black"):
            read_colour(wrong)
    with pytest.raises(InputError, match=r"--background: allowed are .*, got 'whitish'"):
        colour_option("whitish")
    with pytest.raises(InputError, match="mnist-mini: background, skip_damaged has no meaning here"):
        check(DatasetSpec(name="mnist-mini", background=(0, 0, 0), skip_damaged=True))


def test_transparent_pictures_are_laid_on_the_background_of_the_data_set(root: Path) -> None:
    for path in root.glob("*/*.png"):
        Image.new("RGBA", (9, 9), (200, 0, 0, 0)).save(path)
    with pytest.raises(InputError, match=r"40 of 40 pictures cannot be used\nis transparent in parts .*and 30 more"):
        load(spec_of(root), "train")
    images = load(spec_of(root, background=[0, 99, 0]), "train").images
    assert torch.equal(images, torch.tensor([0, 99, 0], dtype=torch.uint8)[None, :, None, None].expand_as(images))
