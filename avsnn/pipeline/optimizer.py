"""AdamW and its learning rate, as published."""

from math import cos, pi

import torch
from torch import nn

from avsnn.pipeline.run import OptimizerSettings

BETAS = (0.9, 0.999)
EPS = 1e-8


def learning_rate(
    settings: OptimizerSettings, *, epoch: int, epochs: int, batch_size: int
) -> float:
    """The rate of an epoch: linear warm-up, then cosine to ``min_lr`` (published recipe)."""
    peak = settings.base_lr * batch_size / 1024
    if epoch < settings.warmup_epochs:
        return settings.warmup_lr + (peak - settings.warmup_lr) * epoch / settings.warmup_epochs
    return settings.min_lr + (peak - settings.min_lr) * (1 + cos(pi * epoch / epochs)) / 2


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices and filters only."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trainable if parameter.ndim > 1]
    plain = [parameter for parameter in trainable if parameter.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, eps=EPS)
