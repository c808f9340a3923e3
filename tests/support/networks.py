"""Fresh networks of any system, for tests of what the GAN files build."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from trainers.catalogue import SYSTEMS
from trainers.config import overlay


def networks_of(system_id: str, **settings: Any) -> dict[str, nn.Module]:
    """The system's networks for 10 classes with `settings` over its defaults; the same weights at every call."""
    torch.manual_seed(0)
    system = SYSTEMS[system_id]
    return system.gan(overlay(system.defaults, settings), 10).networks()


def parts_of(net: nn.Module, *kinds: type[nn.Module]) -> list[nn.Module]:
    """The modules in `net` that are of one of the `kinds`, in order."""
    return [part for part in net.modules() if isinstance(part, kinds)]
