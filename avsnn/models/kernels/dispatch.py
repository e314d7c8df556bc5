"""Choose which kernels compute an operator."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avsnn.models.kernels import cpu, reference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from avsnn.models.kernels.layer_spec import AttentionSpec

KERNELS = ("auto", "torch", "cpu", "triton")

_chosen = "auto"


def choose(name: str, device: torch.device) -> str:
    """Use the kernels of this name from now on, in this process.

    Args:
        name: ``auto`` for the fastest kernels that run, ``torch`` for the reference, ``cpu`` for
            the kernels in C, ``triton`` for the kernels on a GPU.
        device: device of the network.

    Returns:
        name of the kernels that will run on ``device``.

    Raises:
        ValueError: there are no kernels of that name, or the kernels do not run on ``device``.
    """
    global _chosen
    if name not in KERNELS:
        raise ValueError(f"There are no kernels '{name}'; there are {', '.join(KERNELS)}.")
    if name == "cpu" and not cpu.available(device):
        if device.type == "cpu":
            raise ValueError(f"The kernels 'cpu' cannot run here: {cpu.why_unavailable()}.")
        raise ValueError(
            f"The kernels 'cpu' need a C compiler (cc, or CC) and a CPU, not {device}."
        )
    if name == "triton" and _triton(device.type) is None:
        raise ValueError(
            f"The kernels 'triton' need a CUDA device and the package triton, not {device}."
        )
    _chosen = name
    return str(kernels_for(torch.empty(0, device=device)).NAME)


def kernels_for(tensor: Tensor) -> ModuleType:
    """Return the module whose kernels compute on ``tensor``.

    float64 always runs on the reference, because no other kernels take float64.
    """
    if _chosen == "torch" or tensor.dtype == torch.float64:
        return reference
    on_gpu = _triton(tensor.device.type) if _chosen != "cpu" else None
    if on_gpu is not None:
        return on_gpu
    return cpu if cpu.available(tensor.device) else reference


def kernels_for_attention(query: Tensor, spec: AttentionSpec) -> ModuleType | None:
    """Return the module whose kernel computes attention and its neurons at once.

    Returns:
        None where attention and neurons run one after the other: on CPUs, where matrix products of
        a library are faster, and for sizes that the kernel does not take. ``attention_products``
        holds the same mathematics in plain torch.
    """
    if kernels_for(query).NAME != "triton":
        return None
    module = _triton_attention()
    return module if module.fits(query, spec) else None


@cache
def _triton_attention() -> ModuleType:
    return import_module("avsnn.models.kernels.gpu_attention")


def why_reference(device: torch.device) -> str:
    """Return why ``auto`` chose the reference on ``device``."""
    return cpu.why_unavailable() if device.type == "cpu" else "there is no package triton"


@cache
def _triton(device: str) -> ModuleType | None:
    """Return the module of the Triton kernels, or None where Triton does not run.

    Triton runs on CUDA, and on any device in its interpreter. The answer is cached, because every
    operator asks. The module is imported here and not at the top, because importing Triton takes
    half a second and 90 MB, and a process without a GPU does not need Triton.
    """
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not (device == "cuda" or interpreted) or find_spec("triton") is None:
        return None
    return import_module("avsnn.models.kernels.gpu")


@contextmanager
def use_reference() -> Iterator[None]:
    """Run the reference inside the context, so that a watcher of torch sees every operation."""
    global _chosen
    before, _chosen = _chosen, "torch"
    try:
        yield
    finally:
        _chosen = before
