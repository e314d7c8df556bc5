"""Neurons, the batch norm before them and the pooling behind them as single operations.

One dispatch: ``choose`` names the kernels, ``of`` gives those that fit a tensor. ``oracle`` says
what they all compute; ``operations`` makes them operators that autograd, autocast and compilers
know.
"""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avsnn.models.kernels import cpu, gpu, oracle

if TYPE_CHECKING:
    from types import ModuleType

KERNELS = ("auto", "torch", "cpu", "triton")

_chosen = "auto"

# of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def choose(name: str, device: torch.device) -> str:
    """Use these kernels from now on; returns which ones that makes on ``device``.

    Args:
        name: ``auto`` for the fastest there are, ``torch`` for the oracle, ``cpu`` for those in C,
            ``triton`` for those on a GPU.
        device: where the network is.

    Raises:
        ValueError: there are no kernels of that name, or they do not run here.
    """
    global _chosen
    if name not in KERNELS:
        raise ValueError(f"There are no kernels '{name}'; there are {', '.join(KERNELS)}.")
    if name == "cpu" and not cpu.available(device):
        raise ValueError(
            f"The kernels 'cpu' need a CPU and a C compiler (cc, or CC), not {device}."
        )
    if name == "triton" and not gpu.available(device):
        raise ValueError(
            f"The kernels 'triton' need a CUDA device and the package triton, not {device}."
        )
    _chosen = name
    return str(of(torch.empty(0, device=device)).NAME)


def of(tensor: Tensor) -> ModuleType:
    """The kernels for a tensor; float64 is the oracle's alone."""
    if _chosen == "torch" or tensor.dtype == torch.float64:
        return oracle
    if _chosen != "cpu" and gpu.available(tensor.device):
        return gpu
    return cpu if cpu.available(tensor.device) else oracle


def keep_memory() -> None:
    """Lets this process keep the memory of tensors that it has freed, for the next ones.

    On Linux large blocks otherwise go back to the system and are zeroed page by page when they are
    next asked for, which takes a quarter of a training step on a CPU. Elsewhere this does nothing.
    """
    adjust = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if adjust is not None:
        adjust(_M_MMAP_MAX, 0)
        adjust(_M_TRIM_THRESHOLD, 2**31 - 1)
