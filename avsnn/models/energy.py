"""How many operations a network performs for one clip, counted on its own spikes.

An operation is one weight, or one factor of an attention product, taking part in one sum. Counted
are convolutions, linear layers and matrix products; not counted are biases, batch norms (they fold
into the weights before them), additions of streams, means, pooling and the update of potentials.

The rule, layer by layer, as measured on the given input:

* An input that holds nothing but 0 and 1 is *binary*: there is nothing to multiply, and its zeros
  cost nothing. Each of its ones is one accumulate (AC) for each weight that it meets. Silence is
  binary and free.
* Any other input costs one multiply-accumulate (MAC) for each weight and each place, its zeros too.
  That holds for images, for the sums 0, 1, 2 behind the position branch, for a stream that gained
  a residual times alpha, for a product of means, and for means themselves.
* A matrix product has two inputs. With one of them binary, each of its ones is an AC for each value
  of the other that it meets; with both binary, only where one meets one; with none, all are MACs.
  Attention is counted in the order in which it is computed: ``V K^T`` before Q where D <= L, and
  ``K^T Q`` before V otherwise. What comes between is a multiple of 0.25 and usually not binary.
* What is computed once for all time steps, as the first convolution of an image, counts once.

Energies are those of 32-bit operations in 45 nm (Horowitz, ISSCC 2014): 4.6 pJ for a MAC, 0.9 pJ
for an AC. They compare arithmetic; moving data, which mostly costs more, is not in them.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from avsnn.models import kernels
from avsnn.models.neuron import LIF

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAC_PJ = 4.6
AC_PJ = 0.9


class Layer(NamedTuple):
    """Operations of one layer for one clip, all time steps together.

    Attributes:
        name: of the module; ``[0]`` and ``[1]`` are the products of an attention in their order.
        kind: ``convolution``, ``linear`` or ``product``.
        dense: operations if every input were real-valued and nothing skipped; padding counts.
        binary: whether the input, or one factor of a product, held only 0 and 1.
        macs: multiply-accumulates: ``dense``, or 0 where it is binary.
        acs: accumulates, a mean over the clips of the batch; 0 where it is not binary.
    """

    name: str
    kind: str
    dense: float
    binary: bool
    macs: float
    acs: float

    @property
    def operations(self) -> float:
        """What was measured: MACs or ACs."""
        return self.macs + self.acs


class Operations(NamedTuple):
    """A network's operations for one clip.

    Attributes:
        parameters: numbers that it learns.
        layers: in the order in which they ran.
    """

    parameters: int
    layers: tuple[Layer, ...]

    @property
    def dense(self) -> float:
        """Operations of the same network with real values in the place of spikes."""
        return sum(layer.dense for layer in self.layers)

    @property
    def macs(self) -> float:
        """Multiply-accumulates."""
        return sum(layer.macs for layer in self.layers)

    @property
    def acs(self) -> float:
        """Accumulates."""
        return sum(layer.acs for layer in self.layers)

    def energy(self, *, mac_pj: float = MAC_PJ, ac_pj: float = AC_PJ) -> float:
        """Picojoules of arithmetic for one clip."""
        return self.macs * mac_pj + self.acs * ac_pj

    def dense_energy(self, *, mac_pj: float = MAC_PJ) -> float:
        """Picojoules if every operation were a MAC."""
        return self.dense * mac_pj


class Count(NamedTuple):
    """Operations of one call for a whole batch; ``measured`` is exact if binary, else ``dense``."""

    dense: int
    measured: int
    binary: bool


class Counter(Protocol):
    """Counts one call of a torch function from its arguments."""

    kind: str

    def __call__(self, *args: Any, **kwargs: Any) -> Count:
        """Count; the arguments are those of the function."""


def is_binary(values: Tensor) -> bool:
    """Whether there is nothing but 0 and 1 in it."""
    return bool(((values == 0) | (values == 1)).all())


def _total(counts: Tensor) -> int:
    return int(counts.sum(dtype=torch.float64))  # whole numbers, exact up to 2 ** 53


class _Convolution:
    """A convolution of any number of axes, by the torch function that computes it."""

    kind = "convolution"

    def __init__(self, convolve: Callable[..., Tensor]) -> None:
        self.convolve = convolve

    def __call__(
        self,
        input: Tensor,  # noqa: A002 - torch's name, which callers may use
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Count:
        # Where each input goes: ones in the place of weights, one channel in the place of all.
        outputs = weight.shape[0] // groups
        ones = torch.ones_like(weight[:1, :1], dtype=torch.float64)
        used = (input != 0).sum(dim=1, keepdim=True).double()
        reached = self.convolve(used, ones, None, stride, padding, dilation)
        dense = reached.numel() * outputs * input.shape[1] * weight[0, 0].numel()
        binary = is_binary(input)
        return Count(dense, _total(reached) * outputs if binary else dense, binary)


class _Linear:
    """A linear layer on the last axis."""

    kind = "linear"

    def __call__(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Count:  # noqa: A002
        dense, binary = input.numel() * weight.shape[0], is_binary(input)
        measured = int(input.count_nonzero()) * weight.shape[0] if binary else dense
        return Count(dense, measured, binary)


class _Product:
    """A product of two stacks of matrices, ``[..., m, k]`` and ``[..., k, n]``."""

    kind = "product"

    def __call__(self, left: Tensor, right: Tensor) -> Count:
        # for each of the k terms, how many values meet how many values
        rows = torch.full_like(left[..., 0, :], left.shape[-2], dtype=torch.float64)
        columns = torch.full_like(right[..., :, 0], right.shape[-1], dtype=torch.float64)
        dense = _total(rows * columns)
        binary_left, binary_right = is_binary(left), is_binary(right)
        if binary_left:
            rows = left.count_nonzero(dim=-2).double()
        if binary_right:
            columns = right.count_nonzero(dim=-1).double()
        return Count(dense, _total(rows * columns), binary_left or binary_right)


_PRODUCT = _Product()
_COUNTERS: dict[Any, Counter] = {
    functional.conv1d: _Convolution(functional.conv1d),
    functional.conv2d: _Convolution(functional.conv2d),
    functional.linear: _Linear(),
    torch.matmul: _PRODUCT,
    Tensor.matmul: _PRODUCT,
    Tensor.__matmul__: _PRODUCT,
    torch.bmm: _PRODUCT,
}
#: What computes products as well and has no counter yet: better refused than left out in silence.
_UNCOUNTED = {
    torch.einsum,
    torch.tensordot,
    torch.baddbmm,
    functional.scaled_dot_product_attention,
}


class _Recorder(TorchFunctionMode):
    """Counts what torch is asked to compute, in the name of the innermost module that asks."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.calls: list[tuple[str, str, Count]] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        # torch switches this mode off while it is in here, so counting does not count itself
        if counter := _COUNTERS.get(func):
            name = self.inside[-1] if self.inside else ""
            self.calls.append((name, counter.kind, counter(*args, **(kwargs or {}))))
        elif func in _UNCOUNTED:
            raise ValueError(f"Operations of {func.__name__} are not counted; use matmul.")
        return func(*args, **(kwargs or {}))

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Know which module runs. Neurons are left alone: hooks would change how they run."""
        handles = []
        for name, module in model.named_modules():
            if isinstance(module, LIF):
                continue

            def enter(_module: nn.Module, _inputs: Any, name: str = name) -> None:
                self.inside.append(name)

            def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
                self.inside.pop()

            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def count_parameters(model: nn.Module) -> int:
    """How many numbers a network learns."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_operations(model: nn.Module, audio: Tensor | None, visual: Tensor | None) -> Operations:
    """Run a batch through a network in evaluation mode and count what it computes.

    Dense counts depend on the shapes of the input alone, all others on its values. The network is
    left as it was.

    Args:
        model: called as ``model(audio, visual)``, not compiled.
        audio: images ``[B, C_in, H, W]`` or frames ``[T, B, C_in, H, W]``, None where not read.
        visual: the same for vision.

    Returns:
        counts for one clip, means over the batch; the rule is at the top of this file.

    Raises:
        ValueError: both inputs are missing, the network computes products in a way that is not
            counted, or what the network itself refuses.
    """
    given = audio if audio is not None else visual
    if given is None:
        raise ValueError("Operations are counted on an input; none was given.")
    clips = given.shape[-4]
    recorder = _Recorder()
    with kernels.plainly(), _evaluating(model), recorder.watching(model), recorder:
        model(audio, visual)
    products: dict[str, int] = {}
    layers = []
    for name, kind, count in recorder.calls:
        label = name
        if kind == _PRODUCT.kind:
            products[name] = products.get(name, -1) + 1
            label = f"{name}[{products[name]}]"
        dense, measured = count.dense / clips, count.measured / clips
        macs, acs = (0.0, measured) if count.binary else (measured, 0.0)
        layers.append(Layer(label, kind, dense, count.binary, macs, acs))
    return Operations(count_parameters(model), tuple(layers))
