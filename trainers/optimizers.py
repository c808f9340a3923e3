"""Optimizers by the name the configuration gives."""

from __future__ import annotations

import torch
from torch import nn

from trainers.config import Config


def slots(config: Config) -> tuple[str, ...]:
    """Names of the tensors that the optimizer keeps for each parameter after its first step."""
    if config.optimizer == "adam":
        return ("step", "exp_avg", "exp_avg_sq")
    if config.optimizer == "rmsprop":
        return ("step", "square_avg")
    return ("momentum_buffer",) if config.beta1 else ()


def make_optimizer(config: Config, parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """The optimizer that the configuration names, over `parameters` at learning rate `lr`."""
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr, alpha=config.beta2)
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr, momentum=config.beta1)
    return torch.optim.Adam(parameters, lr, betas=(config.beta1, config.beta2))
