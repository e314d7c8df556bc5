"""Neurons, the batch norm before them and the pooling behind them as single operations.

One dispatch: ``choose`` names the kernels, ``of`` gives those that fit a tensor. ``oracle`` says
what they all compute; ``operations`` makes them operators that autograd, autocast and compilers
know.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avsnn.models.kernels import cpu, oracle

if TYPE_CHECKING:
    from collections.abc import Iterator
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
        elsewhere = "" if device.type == "cpu" else f", not {device}"
        raise ValueError(f"The kernels 'cpu' need a C compiler (cc, or CC) and a CPU{elsewhere}.")
    if name == "triton" and _triton(device.type) is None:
        raise ValueError(
            f"The kernels 'triton' need a CUDA device and the package triton, not {device}."
        )
    _chosen = name
    return str(of(torch.empty(0, device=device)).NAME)


def of(tensor: Tensor) -> ModuleType:
    """The kernels for a tensor; float64 is the oracle's alone."""
    if _chosen == "torch" or tensor.dtype == torch.float64:
        return oracle
    on_gpu = _triton(tensor.device.type) if _chosen != "cpu" else None
    if on_gpu is not None:
        return on_gpu
    return cpu if cpu.available(tensor.device) else oracle


@cache
def _triton(device: str) -> ModuleType | None:
    """The kernels in Triton where they run: on CUDA, or anywhere in its interpreter.

    Asked for by every operator, so it is looked for once. To import it takes half a second and 90
    MB, which nobody else should pay.
    """
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not (device == "cuda" or interpreted) or find_spec("triton") is None:
        return None
    return import_module("avsnn.models.kernels.gpu")


@contextmanager
def plainly() -> Iterator[None]:
    """Compute with plain torch meanwhile, so that who watches torch sees every operation."""
    global _chosen
    before, _chosen = _chosen, "torch"
    try:
        yield
    finally:
        _chosen = before


def keep_memory() -> None:
    """Lets this process keep the memory of tensors that it has freed, for the next ones.

    On Linux large blocks otherwise go back to the system and are zeroed page by page when they are
    next asked for, which takes a quarter of a training step on a CPU. Elsewhere this does nothing.
    """
    adjust = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if adjust is not None:
        adjust(_M_MMAP_MAX, 0)
        adjust(_M_TRIM_THRESHOLD, 2**31 - 1)
