"""The LeNet that classifies generated images (`narman-2019`, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from trainers.data.images import ImageData
from trainers.evaluation import classifier

DIM = 84
SIZE = 32


class LeNet(nn.Module):
    """Two convolutions and three linear layers (LeCun et al., 1998), 61,706 parameters for gray images of 10 classes.

    Input: float [N, channels, 32, 32] in [0, 1]. Output: features after ReLU [N, 84] and logits [N, classes].
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        # ReLU after pooling gives the same as ReLU before it, with a quarter of the work.
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(6, 16, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(),
            nn.Linear(120, DIM),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(DIM, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        return features, self.classifier(features)


def resize_name(height: int, width: int) -> str:
    """A word for how `prepare` brings images of this size to 32x32: zeropad, asis (unchanged) or bilinear."""
    return {(28, 28): "zeropad", (SIZE, SIZE): "asis"}.get((height, width), "bilinear")


def prepare(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 [N, C, H, W] to `dtype` [N, C, 32, 32] in [0, 1]."""
    x = images.to(dtype) / 255
    resize = resize_name(*images.shape[2:])
    if resize == "zeropad":
        return pad(x, (2, 2, 2, 2))
    if resize == "bilinear":
        return interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)
    return x


RECIPE = classifier.Recipe(
    name="lenet",
    version=1,
    build=LeNet,
    dim=DIM,
    prepare=prepare,
    resize=resize_name,
    smallest=1,
    learning_rate=5e-3,
    steps=(500, 2000),
    epochs=6,
    shift=1,
)


def fit(train: ImageData) -> nn.Module:
    """A LeNet trained by the recipe on the CPU, without the cache."""
    return classifier.fit(RECIPE, train)


def accuracy(net: nn.Module, data: ImageData) -> float:
    """Share in [0, 1] of the images that a LeNet gets right; computed on its device."""
    return classifier.accuracy(RECIPE, net, data)
