"""Inception-v3 pool features exactly as clean-fid computes them (Parmar, Zhang and Zhu, 2022)."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from cleanfid.resize import build_resizer
from torch import Tensor

from trainers.errors import InputError

DIM = 2048
_resize = build_resizer("clean")


def prepare(images: Tensor) -> Tensor:
    """uint8 [N, 1 or 3, H, W] to float32 [N, 3, 299, 299] in [0, 255] by Pillow's bicubic filter; gray three times."""
    pictures = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
    return torch.from_numpy(np.stack([_resize(picture) for picture in pictures])).permute(0, 3, 1, 2)


class Inception:
    """A TorchScript Inception whose `layers` give 2048 pool features for float [N, 3, 299, 299] in [-1, 1]."""

    def __init__(self, path: Path, device: torch.device | str) -> None:
        """Raises InputError where the file is no such module."""
        try:
            with warnings.catch_warnings():
                # The weights exist in this format alone.
                warnings.filterwarnings("ignore", message=".*torch.jit.load.*", category=DeprecationWarning)
                module = torch.jit.load(str(path), map_location=device)
            self._layers = module.eval().layers
        except (RuntimeError, ValueError, AttributeError) as error:
            raise InputError(f"extractor inception: {path} is no TorchScript Inception ({error})") from error
        self._device = device

    def __call__(self, images: Tensor) -> Tensor:
        """Features float32 [N, 2048] of uint8 [N, 1 or 3, H, W]."""
        x = prepare(images).to(self._device)
        features: Tensor = self._layers((x - 128) / 128)
        return features.view(len(images), DIM)
