"""AdamW and its learning rate, as published."""

from inspect import unwrap
from math import cos, pi

import torch
from torch import nn

from avsnn.pipeline.run import OptimizerSettings

BETAS = (0.9, 0.999)
EPS = 1e-8


class AdamW(torch.optim.AdamW):
    """Torch's, without the wrappers that import its compiler.

    They do so to tell the compiler to look elsewhere: 1.7 s and 145 MB, compiled network or not.
    """

    add_param_group = unwrap(torch.optim.AdamW.add_param_group)
    load_state_dict = unwrap(torch.optim.AdamW.load_state_dict)
    state_dict = unwrap(torch.optim.AdamW.state_dict)
    zero_grad = unwrap(torch.optim.AdamW.zero_grad)
    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))


def learning_rate(
    settings: OptimizerSettings, *, epoch: int, epochs: int, batch_size: int
) -> float:
    """The rate of an epoch: linear warm-up, then cosine to ``min_lr`` (published recipe)."""
    peak = settings.base_lr * batch_size / 1024
    if epoch < settings.warmup_epochs:
        return settings.warmup_lr + (peak - settings.warmup_lr) * epoch / settings.warmup_epochs
    return settings.min_lr + (peak - settings.min_lr) * (1 + cos(pi * epoch / epochs)) / 2


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> AdamW:
    """AdamW; weight decay on matrices and filters only."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trainable if parameter.ndim > 1]
    plain = [parameter for parameter in trainable if parameter.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=0.0, betas=BETAS, eps=EPS, fused=True)
