"""Data sets are what they promise, the same each time, and damage is reported."""

from __future__ import annotations

import gzip
import importlib.util
import os
import pickle
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from trainers.data import cifar10, download, idx, shapes
from trainers.data.catalogue import DATASETS, check, load, shape_of
from trainers.data.images import ImageData
from trainers.data.make_mnist_mini import main as make_mnist_mini
from trainers.data.make_mnist_mini import select, write_idx
from trainers.data.spec import DatasetSpec
from trainers.errors import InputError

SHARED = Path(__file__).parents[4] / "shared" / "data"
BUILT_IN = {"mnist-mini": (8000, 2000), "shapes32": (5000, 1000)}


def _spec(name: str, path: Path, **options: Any) -> DatasetSpec:
    return DatasetSpec(name=name, path=path, **options)


# What holds for all of them


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_built_in_data_set_has_its_size_shape_range_and_classes(name: str, split: Literal["train", "test"]) -> None:
    spec = DatasetSpec(name=name)
    check(spec)
    data = load(spec, split)
    shape, classes = shape_of(spec)
    assert tuple(data.images.shape) == (BUILT_IN[name][split == "test"], *shape)
    assert (data.images.dtype, data.labels.dtype) == (torch.uint8, torch.int64)
    assert data.labels.unique().tolist() == list(range(classes))
    assert data.classes == classes
    assert int(data.images.min()) <= 10
    assert int(data.images.max()) >= 245
    assert (data.name, data.split) == (name, split)


@pytest.mark.parametrize("name", BUILT_IN)
def test_loading_twice_gives_the_same_data_and_splits_differ(name: str) -> None:
    spec = DatasetSpec(name=name)
    train = load(spec, "train")
    assert train.sha256 == load(spec, "train").sha256
    assert train.sha256 != load(spec, "test").sha256


def test_generated_images_have_the_recorded_bits() -> None:
    images, labels = shapes.draw(30, seed=1)
    data = ImageData(torch.from_numpy(images), torch.from_numpy(labels), 10, "shapes32", "train")
    assert data.sha256 == "fb3f0eb14abb89cad84d4d2c813ac5a32774b59e5a87d2499f7d6b254d96fc9e"


def test_train_and_test_share_no_generated_image() -> None:
    spec = DatasetSpec(name="shapes32")
    train, test = ({image.numpy().tobytes() for image in load(spec, split).images} for split in ("train", "test"))
    assert (len(train), len(test)) == (5000, 1000)
    assert not train & test


def test_the_checksum_depends_on_pixels_labels_and_shape_but_not_on_the_name() -> None:
    images, labels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    data = ImageData(images, labels, 2, "a", "train")
    assert data.sha256 == ImageData(images, labels, 2, "b", "test").sha256
    assert data.sha256 != ImageData(images + 1, labels, 2, "a", "train").sha256
    assert data.sha256 != ImageData(images, labels + 1, 2, "a", "train").sha256
    assert data.sha256 != ImageData(images.view(2, 1, 2, 8), labels, 2, "a", "train").sha256


def test_a_bare_string_names_a_data_set() -> None:
    assert DatasetSpec.model_validate("mnist") == DatasetSpec(name="mnist")


def test_an_unknown_name_lists_the_allowed_ones() -> None:
    for attempt in (check, shape_of, lambda spec: load(spec, "train")):
        with pytest.raises(InputError, match=f"'emnist'.*{', '.join(DATASETS)}"):
            attempt(DatasetSpec(name="emnist"))


def test_unknown_and_useless_options_are_refused() -> None:
    with pytest.raises(ValidationError, match="colour"):
        DatasetSpec.model_validate({"name": "mnist", "colour": 1})
    with pytest.raises(InputError, match=r"cifar10: size .*download, fit, path, verify"):
        check(DatasetSpec(name="cifar10", size=64))
    with pytest.raises(InputError, match="shapes32: path"):
        check(DatasetSpec(name="shapes32", path=Path("x")))


@pytest.mark.parametrize("name", ["mnist", "cifar10", "folder"])
def test_missing_data_is_one_sentence_that_names_the_folder(name: str, tmp_path: Path) -> None:
    for attempt in (check, lambda spec: load(spec, "train")):
        with pytest.raises(InputError, match="set `path`") as caught:
            attempt(_spec(name, tmp_path / "nowhere"))
        assert str(tmp_path / "nowhere") in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_default_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANSWEEP_DATA", "/somewhere")
    assert DatasetSpec(name="mnist").folder == Path("/somewhere/mnist")
    monkeypatch.delenv("GANSWEEP_DATA")
    assert DatasetSpec(name="mnist").folder == Path("data/mnist")


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_failed_download_says_what_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(download, "import_torchvision", fail)
    spec = _spec(name, tmp_path / name, download=True)
    check(spec)
    with pytest.raises(InputError, match=r"no route to host.*download: false"):
        load(spec, "test")


# MNIST


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four files as MNIST has them, of 20 and 10 images, whose checksums count as the published ones."""
    rng = np.random.default_rng(0)
    for (images, labels), count in zip(idx.PARTS.values(), (20, 10), strict=True):
        pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        classes = (np.arange(count) % 10).astype(np.uint8)
        for name, array in ((images, pixels), (labels, classes)):
            monkeypatch.setitem(idx.MNIST_SHA256, name, write_idx(array, tmp_path / f"{name}.gz"))
    return tmp_path


def test_mnist_is_read_gzipped_raw_and_from_the_folder_of_torchvision(small_mnist: Path, tmp_path: Path) -> None:
    gzipped = load(_spec("mnist", small_mnist), "train")
    raw = tmp_path / "other" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in small_mnist.glob("*.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    assert load(_spec("mnist", tmp_path / "other"), "train").sha256 == gzipped.sha256
    assert gzipped.labels.tolist() == [i % 10 for i in range(20)]


def test_a_download_is_not_tried_where_the_files_are(small_mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "import_torchvision", lambda: pytest.fail("tried to download"))
    assert len(load(_spec("mnist", small_mnist, download=True), "test").images) == 10


def test_mnist_with_another_checksum_is_refused_unless_told_otherwise(small_mnist: Path) -> None:
    path = small_mnist / "t10k-images-idx3-ubyte.gz"
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[-1] ^= 1
    path.write_bytes(gzip.compress(bytes(raw)))
    check(_spec("mnist", small_mnist))
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte\.gz: sha256.*verify: false"):
        load(_spec("mnist", small_mnist), "test")
    assert len(load(_spec("mnist", small_mnist, verify=False), "test").images) == 10


@pytest.mark.parametrize("damage", ["truncated gzip", "no gzip", "wrong magic", "too short", "empty"])
def test_a_damaged_idx_file_is_named(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "some-images.gz"
    write_idx(np.zeros((3, 28, 28), np.uint8), path)
    content = path.read_bytes()
    raw = gzip.decompress(content)
    damaged = {
        "truncated gzip": content[:-12],
        "no gzip": raw,
        "wrong magic": gzip.compress(b"\1" + raw[1:]),
        "too short": gzip.compress(raw[:-1]),
        "empty": gzip.compress(b""),
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(InputError, match=r"some-images\.gz"):
        idx.read_idx(path)


def test_selected_classes_keep_their_proportions() -> None:
    labels = np.repeat(np.arange(10, dtype=np.uint8), np.arange(10, 110, 10))
    chosen = select(labels, 100, "seed")
    assert len(set(chosen.tolist())) == 100
    np.testing.assert_allclose(np.bincount(labels[chosen]), np.arange(10, 110, 10) * 100 / 550, atol=1)


def test_the_script_writes_the_shipped_files(tmp_path: Path) -> None:
    if not (SHARED / "mnist").is_dir():
        pytest.skip("needs MNIST")
    make_mnist_mini(SHARED / "mnist", tmp_path)
    for name in idx.MINI_SHA256:
        shipped = gzip.decompress((idx.MINI / f"{name}.gz").read_bytes())
        assert gzip.decompress((tmp_path / f"{name}.gz").read_bytes()) == shipped


def test_whole_mnist_loads_where_it_lies() -> None:
    if not (SHARED / "mnist").is_dir():
        pytest.skip("needs MNIST")
    data = load(_spec("mnist", SHARED / "mnist"), "test")
    assert torch.bincount(data.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


# CIFAR-10


def _write_cifar(folder: Path, protocol: int = 4) -> None:
    folder.mkdir(parents=True)
    for seed, name in enumerate(cifar10.MD5):
        pixels = np.random.default_rng(seed).integers(0, 256, (4, 3072), dtype=np.uint8)
        with open(folder / name, "wb") as file:
            pickle.dump({b"data": pixels, b"labels": [0, 3, 9, seed]}, file, protocol)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_cifar_batches_are_joined_in_order(protocol: int, tmp_path: Path) -> None:
    _write_cifar(tmp_path / "cifar-10-batches-py", protocol)
    data = load(_spec("cifar10", tmp_path, verify=False), "train")
    assert tuple(data.images.shape) == (20, 3, 32, 32)
    assert data.labels[3::4].tolist() == [0, 1, 2, 3, 4]
    expected = np.random.default_rng(1).integers(0, 256, (4, 3072), dtype=np.uint8)
    assert torch.equal(data.images[4].flatten(), torch.from_numpy(expected[0]))


def test_the_binary_version_holds_the_same(tmp_path: Path) -> None:
    _write_cifar(tmp_path / "cifar-10-batches-py")
    python = load(_spec("cifar10", tmp_path, verify=False), "test")
    folder = tmp_path / "binary" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    records = np.concatenate([python.labels.numpy().astype(np.uint8)[:, None], python.images.numpy().reshape(4, -1)], 1)
    for name in cifar10.MD5:
        records.tofile(folder / f"{name}.bin")
    spec = _spec("cifar10", tmp_path / "binary")
    assert load(spec, "test").sha256 == python.sha256
    (folder / "test_batch.bin").write_bytes(records.tobytes()[:-1])
    with pytest.raises(InputError, match=r"test_batch\.bin"):
        load(spec, "test")


def test_cifar_with_another_checksum_is_refused(tmp_path: Path) -> None:
    _write_cifar(tmp_path / "cifar-10-batches-py")
    check(_spec("cifar10", tmp_path))
    with pytest.raises(InputError, match=r"test_batch: md5.*verify: false"):
        load(_spec("cifar10", tmp_path), "test")


class _Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_a_malicious_pickle_is_refused_before_it_acts(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    _write_cifar(folder)
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": _Malicious(tmp_path / "harm"), b"labels": []}))
    with pytest.raises(InputError, match=r"test_batch.*mkdir is not allowed"):
        load(_spec("cifar10", tmp_path, verify=False), "test")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps([1]), pickle.dumps({b"data": b"", b"labels": [1]})])
def test_a_damaged_batch_is_named(content: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    _write_cifar(folder)
    (folder / "test_batch").write_bytes(content)
    with pytest.raises(InputError, match="test_batch"):
        load(_spec("cifar10", tmp_path, verify=False), "test")


def test_recompressed_cifar_loads_whole(tmp_path: Path) -> None:
    script = SHARED / "unpack_cifar10.py"
    if not script.is_file():
        pytest.skip("needs the re-compressed CIFAR-10")
    module_spec = importlib.util.spec_from_file_location("unpack_cifar10", script)
    assert module_spec is not None
    assert module_spec.loader is not None
    unpack = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(unpack)
    unpack.main(tmp_path)
    spec = _spec("cifar10", tmp_path, verify=False)
    train, test = load(spec, "train"), load(spec, "test")
    shutil.rmtree(tmp_path / "cifar-10-batches-py")
    assert torch.bincount(train.labels).tolist() == [5000] * 10
    assert torch.bincount(test.labels).tolist() == [1000] * 10


# Folders of pictures


def _picture(path: Path, colour: tuple[int, int, int] = (200, 100, 50), size: tuple[int, int] = (12, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def test_class_folders_become_labels_in_sorted_order(tmp_path: Path) -> None:
    for i in range(10):
        _picture(tmp_path / "cats" / f"{i}.png", (250, 0, 0))
        _picture(tmp_path / "birds" / "far" / f"{i}.PNG", (0, 250, 0))
    spec = _spec("folder", tmp_path, size=8)
    assert shape_of(spec) == ((3, 8, 8), 2)
    train, test = load(spec, "train"), load(spec, "test")
    assert (len(train.labels), len(test.labels)) == (18, 2)
    for data in (train, test):
        # Birds come first and are green.
        assert torch.equal(data.labels, (data.images[:, 0, 0, 0] == 250).long())
    assert train.sha256 == load(spec, "train").sha256


def test_loose_pictures_are_one_class_and_no_picture_is_in_both_splits(tmp_path: Path) -> None:
    for i in range(21):
        _picture(tmp_path / f"{i}.png", (i, 0, 0))
    spec = _spec("folder", tmp_path)
    assert shape_of(spec) == ((3, 32, 32), 1)
    reds = [load(spec, split).images[:, 0, 0, 0].tolist() for split in ("train", "test")]
    assert (len(reds[0]), len(reds[1])) == (18, 3)
    assert sorted(reds[0] + reds[1]) == list(range(21))


def test_folders_called_train_and_test_are_the_splits(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        for i in range(count):
            _picture(tmp_path / split / "a" / f"{i}.bmp")
            _picture(tmp_path / split / "b" / f"{i}.webp")
    spec = _spec("folder", tmp_path)
    assert (len(load(spec, "train").labels), len(load(spec, "test").labels)) == (6, 4)
    shutil.rmtree(tmp_path / "test" / "b")
    with pytest.raises(InputError, match="train and test differ"):
        check(spec)


def test_pictures_are_cropped_to_their_centre(tmp_path: Path) -> None:
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 255
    for i in range(2):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    assert int(load(_spec("folder", tmp_path, size=8), "train").images.min()) == 255


def test_gray_and_transparent_pictures_become_colour(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 77).save(tmp_path / "a.png")
    Image.new("RGBA", (8, 8), (1, 2, 3, 255)).save(tmp_path / "b.png")
    pixels = {tuple(load(_spec("folder", tmp_path), s).images[0, :, 0, 0].tolist()) for s in ("train", "test")}
    assert pixels == {(77, 77, 77), (1, 2, 3)}


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    whole = _picture(tmp_path / "a.png", size=(64, 64))
    shutil.copy(whole, tmp_path / "b.png")
    (tmp_path / "c.jpg").write_bytes(b"no picture")
    spec = _spec("folder", tmp_path)
    check(spec)
    with pytest.raises(InputError, match=r"c\.jpg: not a readable image"):
        [load(spec, split) for split in ("train", "test")]
    (tmp_path / "c.jpg").unlink()
    whole.write_bytes(whole.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"a\.png: not a readable image"):
        [load(spec, split) for split in ("train", "test")]


def test_pictures_of_16_bits_are_refused(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / name)
    with pytest.raises(InputError, match="more than 8 bits"):
        load(_spec("folder", tmp_path), "train")


def test_an_empty_folder_and_stray_pictures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(InputError, match=r"no images.*\.png"):
        check(_spec("folder", tmp_path))
    _picture(tmp_path / "cats" / "a.png")
    stray = _picture(tmp_path / "stray.png")
    with pytest.raises(InputError, match=f"{stray}: lies beside the class folders cats"):
        check(_spec("folder", tmp_path))


def test_one_picture_cannot_be_split(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png")
    with pytest.raises(InputError, match="too few images"):
        check(_spec("folder", tmp_path))
