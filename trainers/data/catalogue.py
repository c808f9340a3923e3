"""The data sets by name, with the functions that check and load each."""

from __future__ import annotations

from pathlib import Path

from trainers.data import cifar10, folder, idx, shapes
from trainers.data.images import ImageData, Images
from trainers.data.spec import LARGEST, SMALLEST, Dataset, DatasetSpec, Split
from trainers.errors import InputError

#: Fields of DatasetSpec that apply to every data set.
COMMON_OPTIONS = frozenset({"fit"})

DATASETS: dict[str, Dataset] = {
    "mnist-mini": Dataset(
        summary="8,000 + 2,000 real MNIST digits, 28x28 gray, built in",
        shape=(1, 28, 28),
        classes=idx.CLASSES,
        check=idx.check_mini,
        load=idx.load_mini,
        names=tuple("0123456789"),
        counts=(790, 899, 794, 818, 779, 723, 789, 835, 780, 793),
    ),
    "mnist": Dataset(
        summary="60,000 + 10,000 handwritten digits, 28x28 gray",
        shape=(1, 28, 28),
        classes=idx.CLASSES,
        check=idx.check_mnist,
        load=idx.load_mnist,
        names=tuple("0123456789"),
        counts=(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        options=frozenset({"path", "download", "verify"}),
    ),
    "cifar10": Dataset(
        summary="50,000 + 10,000 photographs in ten classes, 32x32 colour",
        shape=cifar10.SHAPE,
        classes=cifar10.CLASSES,
        check=cifar10.check,
        load=cifar10.load,
        names=cifar10.NAMES,
        counts=(5000,) * cifar10.CLASSES,
        options=frozenset({"path", "download", "verify"}),
    ),
    "folder": Dataset(
        summary="a folder of pictures, class subfolders are labels, scaled to size x size colour",
        shape=None,
        classes=None,
        check=folder.check,
        load=folder.load,
        options=frozenset({"path", "size", "background", "skip_damaged"}),
    ),
    "shapes32": Dataset(
        summary="5,000 + 1,000 generated images of ten shapes, 32x32 colour, built in",
        shape=shapes.SHAPE,
        classes=len(shapes.NAMES),
        check=shapes.check,
        load=shapes.load,
        names=shapes.NAMES,
        counts=(shapes.COUNTS["train"] // len(shapes.NAMES),) * len(shapes.NAMES),
    ),
}


def check(spec: DatasetSpec) -> None:
    """Raises InputError if `load` cannot work: an unknown name, an option that does not apply, missing files.

    It computes no checksums and downloads nothing.
    """
    _dataset(spec).check(spec)


def notices(spec: DatasetSpec) -> tuple[str, ...]:
    """Sentences on what `load` will pass over, found without reading pixels. Raises InputError like `check`."""
    return folder.notices(spec) if _dataset(spec).load is folder.load else ()


def load(spec: DatasetSpec, split: Split) -> ImageData:
    """All images of a split, on the CPU. Raises InputError if files are missing or damaged."""
    return _dataset(spec).load(spec, split)


def load_both(spec: DatasetSpec, cache: Path | None = None) -> Images:
    """The training and the test images, on the CPU; pictures in folders are read once for both.

    Pictures that take long to decode are kept in the folder `cache`, if given. Raises InputError like `load`.
    """
    if _dataset(spec).load is folder.load:
        return folder.load_both(spec, cache)
    return load(spec, "train"), load(spec, "test")


def shape_of(spec: DatasetSpec) -> tuple[tuple[int, int, int], int]:
    """((C, H, W), number of classes), without reading pixels. Raises InputError like `check`."""
    dataset = _dataset(spec)
    if dataset.shape is not None and dataset.classes is not None:
        return dataset.shape, dataset.classes
    return folder.shape(spec), len(folder.class_counts(spec))


def counts_of(spec: DatasetSpec) -> tuple[int, ...]:
    """The number of training images of each class. Raises InputError like `load`.

    Only files that may differ from the published ones (`verify: false`) are read for it.
    """
    if published := published_counts(spec):
        return published
    dataset = _dataset(spec)
    if dataset.classes is None:
        return tuple(folder.class_counts(spec).values())
    labels = dataset.load(spec, "train").labels
    return tuple(labels.bincount(minlength=dataset.classes).tolist())


def published_counts(spec: DatasetSpec) -> tuple[int, ...]:
    """As `counts_of`, from the table alone; empty if the numbers depend on files."""
    return _dataset(spec).counts if spec.verify or spec.download else ()


def class_names(spec: DatasetSpec) -> tuple[str, ...]:
    """The names of the classes in the order of the labels; empty without classes. Raises InputError like `check`."""
    return _dataset(spec).names or tuple(filter(None, folder.class_counts(spec)))


def sized(spec: DatasetSpec, height: int, width: int) -> DatasetSpec:
    """`spec` with images of `height` x `width` if its pictures are scaled and it names no size.

    Raises InputError if they cannot be scaled to this.
    """
    if "size" not in _dataset(spec).options or spec.size is not None:
        return spec
    if height != width or not SMALLEST <= height <= LARGEST:
        raise InputError(
            f"data set {spec.name}: its pictures are not scaled to {width}x{height}; allowed are squares of {SMALLEST} "
            f"to {LARGEST} pixels"
        )
    return spec.model_copy(update={"size": height})


def _dataset(spec: DatasetSpec) -> Dataset:
    if spec.name not in DATASETS:
        raise InputError(f"unknown data set {spec.name!r}: allowed are {', '.join(DATASETS)}")
    dataset = DATASETS[spec.name]
    changed = {key for key, value in spec if key != "name" and value != DatasetSpec.model_fields[key].default}
    if useless := sorted(changed - dataset.options - COMMON_OPTIONS):
        allowed = ", ".join(sorted(dataset.options | COMMON_OPTIONS))
        raise InputError(
            f"data set {spec.name}: {', '.join(useless)} has no meaning here: allowed options are {allowed}"
        )
    return dataset
