"""Kernels for CPUs, in C, on float32 and bfloat16; the arithmetic is in float32.

The kernels are compiled on first use, with the C compiler of this machine.

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

from avsnn.models.kernels.compiled_library import NoLibraryError, load_library
from avsnn.models.kernels.instruction_set import has_any

if TYPE_CHECKING:
    from avsnn.models.kernels.layer_spec import LayerSpec

NAME = "cpu"

# What the names of the functions in csrc/ end in, for each type of values.
_SUFFIXES = {torch.float32: "", torch.bfloat16: "_bf16"}

# The functions of csrc/ that this module calls: functions of both types, then of float32 alone.
_FUNCTIONS = (
    *(
        name + suffix
        for suffix in _SUFFIXES.values()
        for name in (
            *("avsnn_moments", "avsnn_norm_backward"),
            *("avsnn_fire", "avsnn_fire_backward", "avsnn_fire_pool", "avsnn_fire_pool_backward"),
        )
    ),
    *("avsnn_pack", "avsnn_spike_conv", "avsnn_spike_conv_backward"),
    *("avsnn_spike_linear", "avsnn_spike_linear_backward"),
)

# The functions that return a number of spikes, of both types.
_COUNTING = ("avsnn_pack", "avsnn_fire", "avsnn_fire_pool")

# A current without channels is cut into at least so many planes, where its shape allows.
_MIN_PLANES = 64

# Number of output channels that a convolution of spikes computes together (BLOCK in csrc/common.h).
_BLOCK = 64
# Largest value in the input of a 1x1 convolution (MOST in csrc/spike_conv.c).
_MOST = 3
# The counters of csrc/spike_conv.c have 32 bits, and a value can be listed _MOST times.
_MAX_FRAME = 2**31 // _MOST

# Spikes per value of the input up to which adding weights was quicker than a convolution of oneDNN
# on the layers of the published network, forward and for the gradient of the weights. oneDNN gains
# more from AVX-512 than adding does. The numbers come from a table, because numbers that every
# machine measures for itself could differ between two runs, and the results with the numbers. The
# numbers were measured with benchmarks/spikes.py.
_WIDE_VECTORS = has_any("avx512f")
MAX_DENSITY = {"conv": 0.15 if _WIDE_VECTORS else 0.2, "linear": 0.22}
MAX_DENSITY_BACKWARD = {"conv": 0.3 if _WIDE_VECTORS else 0.25, "linear": 0.2}


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


def why_unavailable() -> str:
    """Return why these kernels do not run on the CPU of this machine; empty where they run."""
    return _loaded()[1]


def as_input(tensor: Tensor) -> Tensor:
    """Return ``tensor`` contiguous and in float32 or bfloat16, as these kernels read memory."""
    known = tensor if tensor.dtype in _SUFFIXES else tensor.float()
    return known.contiguous()


def moments(current: Tensor) -> Tensor:
    """Compute ``reference.moments`` in float32; the sums are in double precision."""
    frames, channels, *sides = current.shape
    both = torch.empty((2, channels), dtype=torch.float64)
    area = prod(sides)
    name = "avsnn_moments" + _SUFFIXES[current.dtype]
    _call(name, current, frames, channels, area, both[0], both[1])
    return both.float()


def fire(
    current: Tensor, scale: Tensor | None, shift: Tensor | None, layer: LayerSpec
) -> tuple[Tensor, Tensor]:
    """Compute ``reference.fire``; the spikes are of the type of ``current``."""
    c_layer = _c_layer(current, layer, by_channel=scale is not None)
    spikes = current.new_empty(layer.spike_shape(current))
    name = ("avsnn_fire_pool" if layer.pooled else "avsnn_fire") + _SUFFIXES[current.dtype]
    fired = _call(name, current, *_constants(scale, shift), spikes, c_layer)
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
    """Compute ``reference.fire_backward``; the gradient is of the type of ``current``.

    Raises:
        TypeError: ``grad`` and ``current`` are of different types.
    """
    _require_one_type(grad, current)
    by_channel = scale is not None or centre is not None
    c_layer = _c_layer(current, layer, by_channel=by_channel)
    out = torch.empty_like(current)
    sums = torch.empty((c_layer.channels, 2), dtype=torch.float64)
    name = "avsnn_fire_pool_backward" if layer.pooled else "avsnn_fire_backward"
    name += _SUFFIXES[current.dtype]
    _call(name, grad, current, *_constants(scale, shift, centre), out, sums, c_layer)
    return out, sums.float()


def norm_backward(grad: Tensor, current: Tensor, a: Tensor, b: Tensor, c: Tensor) -> None:
    """Compute ``reference.norm_backward``, in place.

    Raises:
        TypeError: ``grad`` and ``current`` are of different types.
    """
    _require_one_type(grad, current)
    frames, channels, *sides = current.shape
    name = "avsnn_norm_backward" + _SUFFIXES[current.dtype]
    _call(name, grad, current, *_constants(a, b, c), frames, channels, prod(sides))


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
    """Return whether spikes are few enough, and the sizes are sizes that the C code can compute.

    Output channels must fit into whole blocks, and the values of a frame must be countable.
    """
    outputs = len(weight)
    fits = not outputs % _BLOCK or (weight.dim() == 4 and outputs < _BLOCK)
    countable = packed.shape[1:].numel() < _MAX_FRAME
    return fits and countable and fired < density * packed.numel()


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


def _constants(*values: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return values of each channel in float32; a batch norm in bfloat16 gives bfloat16."""
    return tuple(None if value is None else value.float().contiguous() for value in values)


def _require_one_type(grad: Tensor, current: Tensor) -> None:
    """Refuse a gradient that the C code would read as values of another type."""
    if grad.dtype != current.dtype:
        raise TypeError(f"The gradient is {grad.dtype}, the current {current.dtype}.")


# The types that the C code knows: values, sums, and spikes with one byte per value.
_DTYPES = (*_SUFFIXES, torch.float64, torch.uint8)


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


def _library() -> ctypes.CDLL | None:
    """Return the compiled kernels, or None if this machine cannot compile the kernels."""
    return _loaded()[0]


@cache
def _loaded() -> tuple[ctypes.CDLL | None, str]:
    """Return the compiled kernels, or None and why there are none."""
    try:
        library = load_library(_FUNCTIONS)
    except NoLibraryError as error:
        return None, str(error)
    for name in _FUNCTIONS:
        counts = name.removesuffix(_SUFFIXES[torch.bfloat16]) in _COUNTING
        getattr(library, name).restype = ctypes.c_int64 if counts else None
    return library, ""
