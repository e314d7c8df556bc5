"""AdamW and its learning rate, as published."""

from inspect import unwrap
from math import cos, pi

import torch
from torch import Tensor, nn

from avsnn.pipeline.runs.train_settings import OptimizerSettings

BETAS = (0.9, 0.999)
EPS = 1e-8


class AdamW(torch.optim.AdamW):
    """AdamW of torch without the wrappers that import torch's compiler.

    The wrappers tell the compiler to skip these methods. Their import costs 1.7 s and 145 MB, also
    in a run that compiles nothing.
    """

    add_param_group = unwrap(torch.optim.AdamW.add_param_group)
    load_state_dict = unwrap(torch.optim.AdamW.load_state_dict)
    state_dict = unwrap(torch.optim.AdamW.state_dict)
    zero_grad = unwrap(torch.optim.AdamW.zero_grad)
    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))


def learning_rate(
    settings: OptimizerSettings, *, epoch: int, epochs: int, batch_size: int
) -> float:
    """Return the learning rate of an epoch: linear warm-up, then cosine decay to ``min_lr``.

    The recipe is the published one (arXiv 2502.12488, authors' code).
    """
    peak = peak_learning_rate(settings, batch_size=batch_size)
    if epoch < settings.warmup_epochs:
        return settings.warmup_lr + (peak - settings.warmup_lr) * epoch / settings.warmup_epochs
    return settings.min_lr + (peak - settings.min_lr) * (1 + cos(pi * epoch / epochs)) / 2


def peak_learning_rate(settings: OptimizerSettings, *, batch_size: int) -> float:
    """Return the learning rate after the warm-up and before the decay."""
    return settings.base_lr * batch_size / 1024


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> AdamW:
    """Make the AdamW of a model; only matrices and filters have weight decay.

    On a GPU, the learning rate is a tensor and a step can be a part of a CUDA graph.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trainable if parameter.ndim > 1]
    not_decayed = [parameter for parameter in trainable if parameter.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": not_decayed, "weight_decay": 0.0},
    ]
    on_gpu = trainable[0].device.type == "cuda"
    lr = torch.zeros((), device=trainable[0].device) if on_gpu else 0.0
    return AdamW(groups, lr=lr, betas=BETAS, eps=EPS, fused=True, capturable=on_gpu)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all parameters; a tensor stays the same tensor."""
    for parameters in optimizer.param_groups:
        if isinstance(parameters["lr"], Tensor):
            parameters["lr"].fill_(lr)
        else:
            parameters["lr"] = lr
