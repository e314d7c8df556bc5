"""Small networks, and inputs for them, that several test files use."""

import pytest
import torch
from torch import nn

from avsnn.models.zoo import METHODS, ModelSettings, build

CLASSES = 5


each_method = pytest.mark.parametrize("method", METHODS)


NEURONS = [
    {"reset": "soft"},
    {"surrogate": "atan", "detach_membrane": False},
    {"surrogate": "rectangular", "surrogate_slope": 2.0},
    {"learn_tau": True, "tau": 3.0},
]


def small(method: str = "s-cmrl", *, classes: int = CLASSES, tokens: int | None = 4, **fields):
    torch.manual_seed(0)
    settings = ModelSettings(**{"method": method, "channels": 32, "heads": 4, **fields})
    return build(settings, classes=classes, tokens=tokens)


def awake(model: nn.Module) -> nn.Module:
    """Change the weights so that every layer fires.

    With the default initialisation the fusion is silent.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.constant_(module.bias, 1.5)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)
    return model


def clips(batch: int = 3, side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return (
        torch.randn(batch, 1, side, side, generator=generator),
        torch.randn(batch, 3, side, side, generator=generator),
    )
