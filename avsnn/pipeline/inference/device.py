"""Where and how a network is computed: device, kernels, precision."""

import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.utils import deterministic

from avsnn.errors import UserError
from avsnn.models import kernels
from avsnn.models.kernels.instruction_set import has_any
from avsnn.pipeline.runs.train_settings import TrainSettings

DEVICES = ("auto", "cpu", "cuda")


def choose_device(name: str) -> torch.device:
    """Return the device to compute on; ``auto`` takes a GPU if there is one.

    Raises:
        UserError: there is no such name; or the name is cuda and torch sees no CUDA device.
    """
    if name not in DEVICES:
        raise UserError(f"device cannot be {name!r}: there are {', '.join(DEVICES)}.")
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise UserError("--device cuda: torch sees no CUDA device here; use --device cpu.")
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")


def choose_kernels(name: str, device: torch.device) -> str:
    """Choose the kernels that compute neurons in this process.

    Args:
        name: ``compute.kernels`` of the settings; ``auto`` takes the fastest kernels there are.
        device: the device that computes.

    Returns:
        the name of the kernels that compute on this device.

    Raises:
        UserError: the kernels do not run on this device.
    """
    if device.type == "cpu":
        kernels.keep_memory()
    try:
        return kernels.choose(name, device)
    except ValueError as error:
        raise UserError(f"compute.kernels: {error}") from None


def wants_channels_last(settings: TrainSettings, device: torch.device) -> bool:
    """Return whether images, and the filters that convolve images, are in channels-last memory.

    The kernels for GPUs read and write activations in this format, as cuDNN does. If the filters of
    the network have this format too, nothing is transposed.
    """
    on_gpu = kernels.kernels_for(torch.empty(0, device=device)).NAME == "triton"
    return settings.compute.channels_last or on_gpu


def bfloat16_advice(settings: TrainSettings, device: torch.device) -> str:
    """Return a sentence about bfloat16 if a training could use what this CPU has; else nothing.

    CPUs without these instructions were not measured, so nothing is said about them.
    """
    has_instructions = has_any("avx512_bf16", "amx_bf16")
    if device.type != "cpu" or settings.compute.precision != "float32" or not has_instructions:
        return ""
    return (
        "this CPU has instructions for bfloat16: a new run with --set compute.precision=bf16 can "
        "be faster and needs less memory, but its products are less precise"
    )


def choose_precision(settings: TrainSettings, device: torch.device) -> None:
    """Make a GPU compute with TF32 as the settings say, and the same bytes each time.

    cuDNN and cuBLAS otherwise choose algorithms that add in another order in every run, so a
    resumed run would drift away from a run that was not cut.
    """
    if device.type != "cuda":
        return
    torch.backends.cuda.matmul.allow_tf32 = settings.compute.tf32
    torch.backends.cudnn.allow_tf32 = settings.compute.tf32
    # cuBLAS reads this variable when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.set_deterministic_debug_mode("warn")
    # Otherwise torch would write to all memory that it hands out.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def autocast(settings: TrainSettings, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of the precision that the settings ask for."""
    if settings.compute.precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
