"""A folder that is scored is read as the data set `folder` is: the same files are the same images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainers.data.catalogue import load
from trainers.data.images import ImageData
from trainers.data.spec import DatasetSpec
from trainers.errors import InputError
from trainers.tools.score import from_folder


def spec_of(root: Path, **options: object) -> DatasetSpec:
    return DatasetSpec.model_validate({"name": "folder", "path": root, "size": 8, **options})


def data_of(root: Path, **options: object) -> ImageData:
    spec = spec_of(root, **options)
    train, test = load(spec, "train"), load(spec, "test")
    return ImageData(torch.cat([train.images, test.images]), torch.zeros(0), train.classes, "folder", "all")


def as_set(images: torch.Tensor) -> set[bytes]:
    return {image.contiguous().numpy().tobytes() for image in images}


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "ppm"])
def test_turned_and_palette_pictures_are_the_same_images(suffix: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for place in range(10):
        found = Image.Exif()
        found[0x0112] = place % 9
        picture = Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8))
        if place % 3 == 0:
            picture = picture.convert("P")
        picture = picture.convert("RGB") if suffix == "ppm" else picture
        (tmp_path / "ab"[place % 2]).mkdir(exist_ok=True)
        picture.save(tmp_path / "ab"[place % 2] / f"{place}.{suffix}", exif=found)
    data = data_of(tmp_path)
    made = from_folder(tmp_path, spec_of(tmp_path))
    assert as_set(made.images) == as_set(data.images)
    assert made.labels.tolist() == [0] * 5 + [1] * 5


def test_transparent_pictures_are_laid_on_the_same_colour_or_refused(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for place in range(6):
        Image.fromarray(draw.integers(0, 256, (8, 8, 4), np.uint8)).save(tmp_path / f"{place}.png")
    data = data_of(tmp_path, background="teal")
    assert as_set(from_folder(tmp_path, spec_of(tmp_path), (0, 128, 128)).images) == as_set(data.images)
    assert as_set(from_folder(tmp_path, spec_of(tmp_path), (0, 0, 0)).images).isdisjoint(as_set(data.images))
    for attempt in (lambda: from_folder(tmp_path, spec_of(tmp_path)), lambda: data_of(tmp_path)):
        with pytest.raises(InputError, match=r"6 of 6 pictures cannot be used\nis transparent in parts"):
            attempt()
