"""Kernels for CPUs: ``cpu.c``, compiled once on each kind of machine with the C compiler it has.

The result is kept in the user's cache folder (``XDG_CACHE_HOME``), under a name that is a digest of
source, compiler flags and instruction set. Where there is no compiler, ``available`` is false and
everything runs on the oracle. Threads are those of torch: the library is linked against no OpenMP
of its own and finds torch's.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from avsnn.models.kernels.layer import Layer

NAME = "cpu"

_SOURCE = Path(__file__).with_name("cpu.c")
# Output channels that a convolution of spikes works on together.
_BLOCK = 64
# What one place of the input of a 1x1 convolution may hold.
_MOST = 3

# Spikes per place up to which it was quicker than oneDNN's on all layers of the published network,
# forward and for the gradient of the weights (benchmarks/spikes.py).
_FEW = {"conv": 0.2, "linear": 0.25}
_FEW_BACKWARD = {"conv": 0.3, "linear": 0.25}

_FLAGS = ["-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "batch", "channels")),
        *((name, ctypes.c_int64) for name in ("height", "width", "constant")),
        *((name, ctypes.c_float) for name in ("rate", "threshold", "slope")),
    )


def available(device: torch.device) -> bool:
    """Whether they run on a device: on a CPU for which this machine could compile them."""
    return device.type == "cpu" and _library() is not None


def exact(tensor: Tensor) -> Tensor:
    """In memory as these kernels read it; what is less precise than float32 is taken for that."""
    return tensor.float().contiguous()


def moments(current: Tensor) -> Tensor:
    """As ``oracle.moments``, on float32; sums are taken in double precision."""
    frames, channels, *sides = current.shape
    both = torch.empty((2, channels), dtype=torch.float64)
    area = prod(sides)
    _call("avsnn_moments", current, frames, channels, area, both[0], both[1])
    return both.float()


def fire(current: Tensor, scale: Tensor | None, shift: Tensor | None, layer: Layer) -> Tensor:
    """As ``oracle.fire``, on float32."""
    shape = _shape(current, layer)
    spikes = current.new_empty(layer.spikes(current))
    name = "avsnn_fire_pool" if layer.pooled else "avsnn_fire"
    _call(name, current, scale, shift, spikes, shape)
    return spikes


def fire_backward(
    grad: Tensor,
    current: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    centre: Tensor | None,
    layer: Layer,
) -> tuple[Tensor, Tensor]:
    """As ``oracle.fire_backward``, on float32."""
    shape = _shape(current, layer)
    out = torch.empty_like(current)
    sums = torch.empty((shape.channels, 2), dtype=torch.float64)
    name = "avsnn_fire_pool_backward" if layer.pooled else "avsnn_fire_backward"
    _call(name, grad, current, scale, shift, centre, out, sums, shape)
    return out, sums.float()


def norm_backward(grad: Tensor, current: Tensor, a: Tensor, b: Tensor, c: Tensor) -> None:
    """As ``oracle.norm_backward``, on float32."""
    frames, channels, *sides = current.shape
    _call("avsnn_norm_backward", grad, current, a, b, c, frames, channels, prod(sides))


def pack(spikes: Tensor, weight: Tensor) -> tuple[Tensor, int] | None:
    """Spikes as one byte each, and how many of them are not zero.

    Args:
        spikes: float32; for a 1x1 convolution they may be sums of up to three.
        weight: of that convolution, as :func:`spike_conv` takes it.

    Returns:
        None where there is another value among them.
    """
    spikes = spikes.contiguous()
    packed = torch.empty_like(spikes, dtype=torch.uint8)
    library = _library()
    count = ctypes.c_int64(spikes.numel())
    most = ctypes.c_float(1 if weight.dim() == 4 else _MOST)
    fired = -1 if library is None else library.avsnn_pack(_as_c(spikes), _as_c(packed), count, most)
    return None if fired < 0 else (packed, int(fired))


def spike_conv(packed: Tensor, weight: Tensor, bias: Tensor | None, fired: int) -> Tensor | None:
    """Convolution that adds weights where there are spikes.

    Args:
        packed: ``[F, C, H, W]`` or ``[F, C, N]``, uint8.
        weight: ``[C', C, 3, 3]``, for padding 1, or ``[C', C, 1]``; float32.
        bias: ``[C']``; for a 3x3 convolution None.
        fired: how many of the values are not zero.

    Returns:
        ``[F, C', H, W]`` or ``[F, C', N]``; None where products of all values are quicker, because
        spikes are many.
    """
    kind = "conv" if weight.dim() == 4 else "linear"
    if not _few(packed, weight, fired, _FEW[kind]):
        return None
    rows = _rows_of_weights(weight)
    out = weight.new_empty((len(packed), len(weight), *packed.shape[2:]))
    biases = (bias,) if kind == "linear" else ()
    _call(f"avsnn_spike_{kind}", packed, rows, *biases, out, *_sizes(packed, rows))
    return out


def spike_conv_backward(grad: Tensor, packed: Tensor, weight: Tensor, fired: int) -> Tensor | None:
    """The gradient of the weights of :func:`spike_conv`, or None as there."""
    kind = "conv" if weight.dim() == 4 else "linear"
    if not _few(packed, weight, fired, _FEW_BACKWARD[kind]):
        return None
    rows = torch.empty_like(_rows_of_weights(weight))
    _call(f"avsnn_spike_{kind}_backward", grad, packed, rows, *_sizes(packed, rows))
    back = rows.movedim(-1, 1).reshape(weight.shape)
    return back.flip(-1) if kind == "conv" else back


def _few(packed: Tensor, weight: Tensor, fired: int, most: float) -> bool:
    """Whether there are so few spikes that to add for each is quicker than all products."""
    outputs = len(weight)
    fits = not outputs % _BLOCK or (weight.dim() == 4 and outputs < _BLOCK)
    return fits and fired < most * packed.numel()


def _rows_of_weights(weight: Tensor) -> Tensor:
    """``[C', C, ...]`` as ``[C' / block, C, ..., block]``, the columns of 3x3 in reverse."""
    block = min(_BLOCK, len(weight))
    blocks = weight.flip(-1) if weight.dim() == 4 else weight
    return blocks.reshape(-1, block, *weight.shape[1:]).movedim(1, -1).contiguous()


def _sizes(packed: Tensor, rows: Tensor) -> tuple[int, ...]:
    """As the kernels take them: only those of 3x3 have blocks of several sizes."""
    blocks = (rows.shape[0], rows.shape[-1]) if packed.dim() == 4 else (rows.shape[0],)
    return *packed.shape[:2], *blocks, *packed.shape[2:]


def _shape(current: Tensor, layer: Layer) -> _Layer:
    batch, channels, *sides = layer.frame(current)
    height, width = sides if layer.pooled else (1, prod(sides))
    return _Layer(
        steps=layer.steps,
        batch=batch,
        channels=channels,
        height=height,
        width=width,
        constant=layer.constant,
        rate=1.0 / layer.tau,
        threshold=layer.threshold,
        slope=layer.slope,
    )


def _call(name: str, *arguments: Tensor | int | _Layer | None) -> None:
    library = _library()
    if library is None:
        raise RuntimeError("There are no kernels for this CPU.")
    getattr(library, name)(*(_as_c(argument) for argument in arguments))


def _as_c(argument: Tensor | int | _Layer | None) -> Any:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_int64(argument) if isinstance(argument, int) else argument


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where they cannot be had."""
    compiler = os.environ.get("CC", "cc")
    key = [_SOURCE.read_text(), compiler, *_FLAGS, platform.machine(), _instruction_set()]
    digest = hashlib.sha256("\n".join(key).encode()).hexdigest()[:16]
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    for folder in (Path(home, "avsnn"), Path(tempfile.gettempdir(), f"avsnn-{os.getuid()}")):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # what somebody else could have put there is not loaded
            if folder.stat().st_uid != os.getuid():
                continue
            library = folder / f"{digest}.so"
            if not library.exists():
                _compile(compiler, library)
            loaded = ctypes.CDLL(str(library))
            loaded.avsnn_pack.restype = ctypes.c_int64
            return loaded
        except (OSError, subprocess.SubprocessError):
            continue
    return None


def _compile(compiler: str, library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as work:
        compiled, linked = Path(work, "cpu.o"), Path(work, "cpu.so")
        for command in (
            [compiler, *_FLAGS, "-fopenmp", "-fPIC", "-c", str(_SOURCE), "-o", str(compiled)],
            [compiler, "-shared", str(compiled), "-o", str(linked)],
        ):
            subprocess.run(command, check=True, capture_output=True, timeout=120)
        linked.replace(library)


def _instruction_set() -> str:
    """What ``-march=native`` makes of this machine, so that a shared home serves several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
