"""Kernels for CPUs, in C: compiled on first use with the C compiler of this machine.

The sources are in ``csrc``; ``compiled_library`` compiles, keeps and loads them. If there is no
compiler, ``available`` is false and everything runs on the reference. The threads are torch's
threads: the library is not linked against an OpenMP of its own, so the library finds the OpenMP
that torch has loaded.
"""

from __future__ import annotations

import ctypes
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from avsnn.models.kernels.compiled_library import load_library

if TYPE_CHECKING:
    from avsnn.models.kernels.layer_spec import LayerSpec

NAME = "cpu"

# The functions of csrc/ that this module calls.
_FUNCTIONS = (
    *("avsnn_moments", "avsnn_pack", "avsnn_norm_backward"),
    *("avsnn_fire", "avsnn_fire_backward", "avsnn_fire_pool", "avsnn_fire_pool_backward"),
    *("avsnn_spike_conv", "avsnn_spike_conv_backward"),
    *("avsnn_spike_linear", "avsnn_spike_linear_backward"),
)

# The functions that return a number of spikes.
_COUNTING = ("avsnn_pack", "avsnn_fire", "avsnn_fire_pool")

# A current without channels is cut into at least so many planes, where its shape allows.
_MIN_PLANES = 64

# Number of output channels that a convolution of spikes computes together (BLOCK in csrc/common.h).
_BLOCK = 64
# Largest value in the input of a 1x1 convolution (MOST in csrc/spike_conv.c).
_MOST = 3

# Spikes per value of the input up to which adding weights was quicker than a convolution of oneDNN
# on all layers of the published network, forward and for the gradient of the weights. The numbers
# were measured with benchmarks/spikes.py.
MAX_DENSITY = {"conv": 0.2, "linear": 0.25}
MAX_DENSITY_BACKWARD = {"conv": 0.3, "linear": 0.25}


class _CLayer(ctypes.Structure):
    """The struct ``Layer`` of csrc/common.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "batch", "channels")),
        *((name, ctypes.c_int64) for name in ("height", "width", "constant")),
        *((name, ctypes.c_float) for name in ("rate", "threshold", "slope")),
    )


def available(device: torch.device) -> bool:
    """Return whether these kernels run on ``device``: a CPU, for which they could be compiled."""
    return device.type == "cpu" and _library() is not None


def as_input(tensor: Tensor) -> Tensor:
    """Return ``tensor`` contiguous and in float32, as these kernels read memory."""
    return tensor.float().contiguous()


def moments(current: Tensor) -> Tensor:
    """Compute ``reference.moments`` of float32; the sums are in double precision."""
    frames, channels, *sides = current.shape
    both = torch.empty((2, channels), dtype=torch.float64)
    area = prod(sides)
    _call("avsnn_moments", current, frames, channels, area, both[0], both[1])
    return both.float()


def fire(
    current: Tensor, scale: Tensor | None, shift: Tensor | None, layer: LayerSpec
) -> tuple[Tensor, Tensor]:
    """Compute ``reference.fire`` of float32."""
    c_layer = _c_layer(current, layer, by_channel=scale is not None)
    spikes = current.new_empty(layer.spike_shape(current))
    name = "avsnn_fire_pool" if layer.pooled else "avsnn_fire"
    fired = _call(name, current, scale, shift, spikes, c_layer)
    neurons = current.numel() // (1 if layer.constant else layer.steps)
    return spikes, torch.tensor([fired, neurons * layer.steps])


def fire_backward(
    grad: Tensor,
    current: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    centre: Tensor | None,
    layer: LayerSpec,
) -> tuple[Tensor, Tensor]:
    """Compute ``reference.fire_backward`` of float32."""
    by_channel = scale is not None or centre is not None
    c_layer = _c_layer(current, layer, by_channel=by_channel)
    out = torch.empty_like(current)
    sums = torch.empty((c_layer.channels, 2), dtype=torch.float64)
    name = "avsnn_fire_pool_backward" if layer.pooled else "avsnn_fire_backward"
    _call(name, grad, current, scale, shift, centre, out, sums, c_layer)
    return out, sums.float()


def norm_backward(grad: Tensor, current: Tensor, a: Tensor, b: Tensor, c: Tensor) -> None:
    """Compute ``reference.norm_backward`` of float32, in place."""
    frames, channels, *sides = current.shape
    _call("avsnn_norm_backward", grad, current, a, b, c, frames, channels, prod(sides))


def pack(spikes: Tensor, weight: Tensor) -> tuple[Tensor, int] | None:
    """Return the spikes with one byte per value, and the number of values that are not zero.

    Args:
        spikes: float32; for a 1x1 convolution the values may be sums of up to three spikes.
        weight: weight of the convolution, as ``spike_conv`` takes the weight.

    Returns:
        None if ``spikes`` holds any other value.
    """
    spikes = spikes.contiguous()
    packed = torch.empty_like(spikes, dtype=torch.uint8)
    library = _library()
    count = ctypes.c_int64(spikes.numel())
    most = ctypes.c_float(1 if weight.dim() == 4 else _MOST)
    fired = -1 if library is None else library.avsnn_pack(_as_c(spikes), _as_c(packed), count, most)
    return None if fired < 0 else (packed, int(fired))


def spike_conv(packed: Tensor, weight: Tensor, bias: Tensor | None, fired: int) -> Tensor | None:
    """Convolve spikes by adding the weights of each spike.

    Args:
        packed: ``[F, C, H, W]`` or ``[F, C, N]``, uint8.
        weight: ``[C', C, 3, 3]``, with padding 1, or ``[C', C, 1]``; float32.
        bias: ``[C']``; None for a 3x3 convolution.
        fired: number of values that are not zero.

    Returns:
        ``[F, C', H, W]`` or ``[F, C', N]``; None if there are so many spikes that a dense
        convolution is quicker.
    """
    kind = "conv" if weight.dim() == 4 else "linear"
    if not _is_sparse(packed, weight, fired, MAX_DENSITY[kind]):
        return None
    blocks = _weight_blocks(weight)
    out = weight.new_empty((len(packed), len(weight), *packed.shape[2:]))
    biases = (bias,) if kind == "linear" else ()
    _call(f"avsnn_spike_{kind}", packed, blocks, *biases, out, *_sizes(packed, blocks))
    return out


def spike_conv_backward(grad: Tensor, packed: Tensor, weight: Tensor, fired: int) -> Tensor | None:
    """Return the gradient of the weights of ``spike_conv``.

    Returns:
        None if there are so many spikes that a dense convolution is quicker.
    """
    kind = "conv" if weight.dim() == 4 else "linear"
    if not _is_sparse(packed, weight, fired, MAX_DENSITY_BACKWARD[kind]):
        return None
    blocks = torch.empty_like(_weight_blocks(weight))
    _call(f"avsnn_spike_{kind}_backward", grad, packed, blocks, *_sizes(packed, blocks))
    back = blocks.movedim(-1, 1).reshape(weight.shape)
    return back.flip(-1) if kind == "conv" else back


def _is_sparse(packed: Tensor, weight: Tensor, fired: int, density: float) -> bool:
    """Return whether spikes are few enough, and output channels fit into whole blocks."""
    outputs = len(weight)
    fits = not outputs % _BLOCK or (weight.dim() == 4 and outputs < _BLOCK)
    return fits and fired < density * packed.numel()


def _weight_blocks(weight: Tensor) -> Tensor:
    """Return ``[C', C, ...]`` as ``[C' / block, C, ..., block]``; 3x3 has its columns reversed."""
    block = min(_BLOCK, len(weight))
    blocks = weight.flip(-1) if weight.dim() == 4 else weight
    return blocks.reshape(-1, block, *weight.shape[1:]).movedim(1, -1).contiguous()


def _sizes(packed: Tensor, blocks: Tensor) -> tuple[int, ...]:
    """Return the sizes that the C function takes; only 3x3 takes the size of a block."""
    sizes = (blocks.shape[0], blocks.shape[-1]) if packed.dim() == 4 else (blocks.shape[0],)
    return *packed.shape[:2], *sizes, *packed.shape[2:]


def _c_layer(current: Tensor, layer: LayerSpec, *, by_channel: bool) -> _CLayer:
    """Describe a layer to the C code; a current without channels may have any shape."""
    frame = layer.frame_shape(current)
    if layer.pooled or by_channel:
        batch, channels, *sides = frame
    else:
        batch, channels = 1, _count_planes(frame)
        sides = [prod(frame) // channels]
    height, width = sides if layer.pooled else (1, prod(sides))
    return _CLayer(
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


def _count_planes(frame: tuple[int, ...]) -> int:
    """Return the number of equal planes into which the first axes of a frame cut the frame.

    One thread computes one plane at a time. The first axes are used until there are enough planes
    for all threads, and no more axes than that, because each plane has a small fixed cost.
    """
    planes = 1
    for size in frame[:-1]:
        planes *= size if planes < _MIN_PLANES else 1
    return planes


# The types that the C code knows: values, sums, and spikes with one byte per value.
_DTYPES = (torch.float32, torch.float64, torch.uint8)


def _call(name: str, *arguments: Tensor | int | _CLayer | None) -> int:
    library = _library()
    if library is None:
        raise RuntimeError("There are no kernels for this CPU.")
    return int(getattr(library, name)(*(_as_c(argument) for argument in arguments)) or 0)


def _as_c(argument: Tensor | int | _CLayer | None) -> Any:
    if isinstance(argument, Tensor):
        if argument.dtype not in _DTYPES or not argument.is_contiguous():
            raise TypeError(
                f"The C kernels cannot read a tensor of {argument.dtype} with the strides "
                f"{argument.stride()}."
            )
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_int64(argument) if isinstance(argument, int) else argument


@cache
def _library() -> ctypes.CDLL | None:
    """Return the compiled kernels, or None if this machine cannot compile the kernels."""
    library = load_library(_FUNCTIONS)
    if library is not None:
        for name in _FUNCTIONS:
            counts = name in _COUNTING
            getattr(library, name).restype = ctypes.c_int64 if counts else None
    return library
