"""FID and KID computed by clean-fid (Parmar, Zhang and Zhu, 2022), for comparison with ours."""

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

#: Prefix of the extractor's id, so that these scores never count as comparable with ours.
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

    If `spec` names a classifier or a custom extractor, for which clean-fid has no network, its distances are computed
    from the features of `extractor`, which `spec` describes. The reference is always ours; its features differ from
    clean-fid's by at most 1e-4 of their norm. clean-fid's KID is a mean over random subsets, which `seed` draws here.
    Neither score has a standard error. Raises InputError for missing weights, and ValueError if the matrix root of the
    covariances is far from real.
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
    """Features float32 [N, 2048] by clean-fid's network. At most one batch of resized images is in memory."""
    clean = clean_fid()
    resizer, network = clean.build_resizer("clean"), _inception(path).to(device)
    parts = []
    for batch in images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).split(BATCH):
        resized = np.stack([resizer(image) for image in batch.cpu().numpy()]).transpose(0, 3, 1, 2)
        parts.append(clean.get_batch_features(torch.from_numpy(resized), network, device))
    return np.concatenate(parts)


def _inception(path: Path) -> Any:
    """clean-fid's network with the weights in `path`. clean-fid finds its file only by the official name."""
    build: Callable[..., Any] = importlib.import_module("cleanfid.inception_torchscript").InceptionV3W
    with TemporaryDirectory() as folder:
        (Path(folder) / weights.NAME).symlink_to(path.resolve())
        return build(folder, download=False).eval()


@functools.cache
def clean_fid() -> Any:
    """The module `cleanfid.fid`, changed to work with every scipy from 1.15 on. Import it only through this function.

    clean-fid 0.1.35 calls `scipy.linalg.sqrtm(product, disp=False)`. scipy 1.16 deprecates the argument `disp` and 1.18
    removes it. We replace the name `linalg` in this one module, so scipy itself is unchanged.
    """
    import_torchvision()  # clean-fid's own import fails if torchvision's operators do not load
    module: Any = importlib.import_module("cleanfid.fid")
    module.linalg = SimpleNamespace(sqrtm=_sqrtm)
    return module


def _sqrtm(product: Floats, disp: bool = True) -> Any:
    """The matrix root of `product` [D, D] by scipy. It may be complex or not finite; clean-fid handles both.

    With `disp=False` an estimate of the error follows, as in old scipy. It is NaN: clean-fid ignores it, and computing
    it would cost a matrix product.
    """
    root = importlib.import_module("scipy.linalg").sqrtm(product)
    return root if disp else (root, float("nan"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides warnings about clean-fid's use of deprecated functions, and about singular covariances."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "Matrix is singular")
        yield


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Seeds NumPy's global random state, which clean-fid uses, and restores it after the block."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
