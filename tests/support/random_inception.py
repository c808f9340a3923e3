"""A stand-in for the official Inception file: the same code and names of weights, with random but sound weights."""

from __future__ import annotations

import warnings
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn

from trainers.evaluation import inception


class OfficialUnit(nn.Module):
    """Convolution, batch norm without gain and ReLU, each for itself, as in the official file."""

    def __init__(self, unit: inception.Unit) -> None:
        super().__init__()
        outputs = unit.out_channels
        self.stride, self.padding = (unit.stride[0], unit.stride[1]), (int(unit.padding[0]), int(unit.padding[1]))
        self.weight = nn.Parameter(torch.empty_like(unit.weight))
        self.beta = nn.Parameter(torch.empty(outputs))
        self.mean = nn.Parameter(torch.zeros(outputs))
        self.var = nn.Parameter(torch.ones(outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.conv2d(x, self.weight.to(x.dtype), stride=self.stride, padding=self.padding)
        x = nn.functional.batch_norm(x, running_mean=self.mean, running_var=self.var, bias=self.beta, eps=1e-3)
        return x.relu()


class OfficialInception(nn.Module):
    """What clean-fid uses of the official module, and its classifier of 1008 classes."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers
        self.output = nn.Linear(inception.DIM, 1008)

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        """Features, or probabilities, of images [N, 3, H, W] in [0, 255] of any size."""
        x = nn.functional.interpolate(img, (299, 299), mode="bilinear")
        features: Tensor = self.layers((x - 128) / 128).reshape(-1, 2048)
        if return_features:
            return features
        logits: Tensor = self.output(features)
        return logits.softmax(1)


def random_layers(images: Tensor, seed: int = 0) -> nn.Module:
    """Kaiming weights; the statistics of each batch norm are those of uint8 [N, 3, 299, 299] at its place.

    Without these statistics features would be near 1e-8 or 1e10.
    """
    layers = inception.inception_layers()
    generator = torch.Generator().manual_seed(seed)
    for parent in list(layers.modules()):
        for name, unit in list(parent.named_children()):
            if isinstance(unit, inception.Unit):
                official = OfficialUnit(unit)
                nn.init.kaiming_normal_(official.weight, nonlinearity="relu", generator=generator)
                nn.init.normal_(official.beta, std=0.3, generator=generator)
                official.register_forward_pre_hook(_calibrate)
                setattr(parent, name, official)
    with torch.no_grad():
        layers((images - 128.0) / 128)
    for unit in layers.modules():
        unit._forward_pre_hooks.clear()
    return layers.eval().requires_grad_(False)


def write_random_inception(path: Path, images: Tensor, seed: int = 0) -> None:
    """Writes the file; `images` as for `random_layers`."""
    with warnings.catch_warnings(), patch.object(inception, "join", _contiguous_join):
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        torch.jit.save(torch.jit.script(OfficialInception(random_layers(images, seed))), str(path))


def _calibrate(unit: nn.Module, inputs: tuple[Tensor]) -> None:
    assert isinstance(unit, OfficialUnit)
    x = nn.functional.conv2d(inputs[0], unit.weight, stride=unit.stride, padding=unit.padding)
    unit.mean.copy_(x.mean(dim=(0, 2, 3)))
    unit.var.copy_(x.var(dim=(0, 2, 3)))


def _contiguous_join(parts: list[Tensor]) -> Tensor:
    """The official code puts each branch into the default order of memory before it joins them."""
    return torch.cat([part.contiguous() for part in parts], 1)
