"""Changes to real images before the discriminator sees them, on their device and without synchronising with the host.

Images are float [B, C, H, W] in [-1, 1]. Labels are int64 [B], or float [B, classes] after `cutmix`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from trainers.config import Config
from trainers.data.fit import LUMA
from trainers.layers import as_one_hot


def augment(images: Tensor, labels: Tensor, classes: int, config: Config) -> tuple[Tensor, Tensor]:
    """Images and labels after all changes that `config` asks for."""
    if config.sharpening:
        images = sharpen(images, config.sharpening)
    if config.saturation and images.shape[1] == 3:
        images = saturate(images, config.saturation)
    if config.cutmix:
        return cutmix(images, labels, classes, config.cutmix, config.cutmix_alpha)
    return images, labels


def sharpen(images: Tensor, amount: float) -> Tensor:
    """Images moved by `amount` in [0, 1] towards 5 x - (sum of the four neighbours), kept in [-1, 1].

    This shifts the training distribution: distances to unsharpened references can rise.
    """
    neighbours = images.new_tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]]).expand(images.shape[1], 1, 3, 3)
    around = conv2d(pad(images, (1, 1, 1, 1), mode="replicate"), neighbours, groups=images.shape[1])
    return (images + amount * (4 * images - around)).clamp(-1, 1)


def saturate(images: Tensor, strength: float) -> Tensor:
    """Colour images with changed saturation, kept in [-1, 1].

    The distance of each image from its gray version is multiplied by a factor from U(1 - strength, 1 + strength).
    """
    gray = (images * images.new_tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    factor = 1 + strength * (2 * torch.rand(len(images), 1, 1, 1, device=images.device) - 1)
    return (gray + factor * (images - gray)).clamp(-1, 1)


def cutmix(images: Tensor, labels: Tensor, classes: int, share: float, alpha: float) -> tuple[Tensor, Tensor]:
    """A `share` of the images gets a box from another image of the batch (Yun et al., 2019).

    The box has the sides H sqrt(1 - l) and W sqrt(1 - l) with l from Beta(alpha, alpha). Its centre is uniform, and the
    border of the image cuts it. Labels are mixed in proportion to the areas and come back as float [B, classes].
    """
    count, _, height, width = images.shape
    device = images.device
    left = torch.distributions.Beta(torch.full((count,), alpha, device=device), alpha).sample()
    half = (1 - left).sqrt() / 2
    chosen = torch.rand(count, device=device) < share
    inside = _between(height, half * height) & _between(width, half * width).transpose(1, 2)
    box = inside & chosen[:, None, None]
    other = torch.randperm(count, device=device)
    kept = 1 - box.float().mean(dim=(1, 2))[:, None]
    mixed = torch.where(box[:, None], images[other], images)
    one_hot = as_one_hot(labels, classes)
    return mixed, kept * one_hot + (1 - kept) * one_hot[other]


def _between(size: int, half: Tensor) -> Tensor:
    """Which positions along one side lie within `half` [B] of a centre drawn for each image: bool [B, size, 1]."""
    centre = torch.rand(len(half), device=half.device) * size
    position = torch.arange(size, device=half.device) + 0.5
    return ((position - centre[:, None]).abs() < half[:, None])[:, :, None]


def oversampled(labels: Tensor, target: int, generator: torch.Generator) -> Tensor:
    """Indices of all images, followed by further ones until there are `target`: int64 [max(N, target)].

    The further ones are drawn with replacement, from each class equally many up to a difference of one.
    """
    indices = torch.arange(len(labels))
    missing = target - len(labels)
    if missing <= 0:
        return indices
    members = [torch.nonzero(labels == label).flatten() for label in labels.unique()]
    sizes = [missing // len(members) + (rank < missing % len(members)) for rank in range(len(members))]
    extra = [
        group[torch.randint(len(group), (size,), generator=generator)]
        for group, size in zip(members, sizes, strict=True)
    ]
    return torch.cat([indices, *extra])
