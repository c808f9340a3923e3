"""FID and KID by clean-fid's own functions (Parmar, Zhang and Zhu, 2022), to stand beside ours."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.data.vision import import_torchvision
from trainers.evaluation import weights
from trainers.evaluation.extractors import Extractor
from trainers.evaluation.reference import Reference
from trainers.evaluation.resize import full_precision
from trainers.evaluation.scores import Score
from trainers.evaluation.spec import INCEPTIONS, ExtractorSpec

#: Before the extractor's id, so that these scores never count as comparable with ours.
PREFIX = "clean-fid:"
#: Images per forward pass, clean-fid's default.
BATCH = 32

Floats = NDArray[np.floating[Any]]


def official_scores(
    images: Tensor,
    extractor: Extractor,
    spec: ExtractorSpec,
    reference: Reference,
    cache: Path,
    seed: int,
    device: torch.device | str,
) -> dict[str, Score]:
    """`fid` and `kid` of uint8 images [N, C, H, W], N at least 2, by clean-fid's resize, network and distances.

    It has no network for classifiers and custom extractors: there its distances are taken between the features of
    `extractor`, which `spec` describes. The reference is always ours, whose features are within 1e-4 of the norm of
    clean-fid's. Its KID is the mean over random subsets, here drawn by `seed`; neither score has a standard error.
    Raises InputError for weights that are missing, ValueError where clean-fid finds no root of the covariances.
    """
    clean = clean_fid()
    with full_precision(), _quiet():
        if spec.name in INCEPTIONS:
            path, _ = weights.resolve(spec.name, spec.weights, spec.sha256, cache)
            features = _inception_features(images, path, device)
        else:
            features = extractor(images).features.cpu().numpy()
        mean, cov = np.mean(features, axis=0), np.cov(features, rowvar=False)
        fid = clean.frechet_distance(mean, cov, reference.mean.cpu().numpy(), reference.cov.cpu().numpy())
        with _numpy_seeded(seed):
            kid = clean.kernel_distance(reference.features.cpu().numpy(), features)
    return {
        name: Score(name, float(value), None, len(images), PREFIX + extractor.id, reference.id, seed)
        for name, value in (("fid", fid), ("kid", kid))
    }


def _inception_features(images: Tensor, path: Path, device: torch.device | str) -> Floats:
    """Features float32 [N, 2048]; of resized images there is never more than one batch."""
    clean = clean_fid()
    resizer, network = clean.build_resizer("clean"), _inception(path).to(device)
    parts = []
    for batch in images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).split(BATCH):
        resized = np.stack([resizer(image) for image in batch.cpu().numpy()]).transpose(0, 3, 1, 2)
        parts.append(clean.get_batch_features(torch.from_numpy(resized), network, device))
    return np.concatenate(parts)


def _inception(path: Path) -> Any:
    """clean-fid's network, which finds its file by the official name alone."""
    build: Callable[..., Any] = importlib.import_module("cleanfid.inception_torchscript").InceptionV3W
    with TemporaryDirectory() as folder:
        (Path(folder) / weights.NAME).symlink_to(path.resolve())
        return build(folder, download=False).eval()


@functools.cache
def clean_fid() -> Any:
    """The module `cleanfid.fid`, which works with every scipy from 1.15 on. Whoever needs it gets it from here.

    clean-fid 0.1.35 calls `scipy.linalg.sqrtm(product, disp=False)`; scipy 1.16 deprecates the argument and 1.18
    removes it. `linalg` is what this one module calls scipy by, so replacing it there changes nothing for others.
    """
    import_torchvision()  # clean-fid's own import fails if torchvision's operators do not load
    module: Any = importlib.import_module("cleanfid.fid")
    module.linalg = SimpleNamespace(sqrtm=_sqrtm)
    return module


def _sqrtm(product: Floats, disp: bool = True) -> Any:
    """A root of `product` [D, D] by scipy, complex or not finite if scipy's is; clean-fid handles both.

    With `disp=False` it comes with an estimate of its error, as in old scipy. The estimate is NaN, since clean-fid
    drops it and the true one costs a product of matrices.
    """
    root = importlib.import_module("scipy.linalg").sqrtm(product)
    return root if disp else (root, float("nan"))


@contextmanager
def _quiet() -> Iterator[None]:
    """No word of what newer libraries miss in clean-fid, nor of features that never change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "Matrix is singular")
        yield


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """NumPy's global random state, from which clean-fid draws, as of `seed`; afterwards as it was."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
