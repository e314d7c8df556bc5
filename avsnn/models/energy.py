"""Count the operations that a network performs for one clip, measured on the spikes of the network.

An operation is one weight, or one factor of an attention product, that takes part in one sum. The
count covers convolutions, linear layers and matrix products. The count leaves out biases, batch
norms (which fold into the weights before them), additions of streams, products of single values
(weights of steps, masks of tokens, shares of residuals), sums over channels, means, pooling and the
update of membrane potentials.

The rule for each layer, as measured on the given input:

* An input that holds only 0 and 1 is *binary*: nothing is multiplied, and zeros cost nothing. Each
  1 is one accumulate (AC) for each weight that it meets. A silent input is binary and free.
* Any other input costs one multiply-accumulate (MAC) for each weight and each place, also where the
  input is 0. Such inputs are images, the sums 0, 1, 2 behind the position branch, a stream that
  gained a residual times alpha, a product of means, and means.
* A matrix product has two inputs. If one input is binary, each 1 of that input is an AC for each
  value of the other input that it meets. If both inputs are binary, only a 1 that meets a 1 is an
  AC. If neither input is binary, all operations are MACs. The products of attention are counted in
  the order of the computation: ``V K^T`` before Q if D <= L, and ``K^T Q`` before V otherwise. The
  first product holds multiples of 0.25 and is usually not binary.
* What is computed once for all time steps, such as the first convolution of an image, counts once.

The energies are those of 32-bit operations in 45 nm (Horowitz, ISSCC 2014): 4.6 pJ for a MAC,
0.9 pJ for an AC. These energies compare arithmetic only; moving data usually costs more, and is not
counted.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from avsnn.models.kernels.dispatch import use_reference
from avsnn.models.neuron import LIF

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAC_PJ = 4.6
AC_PJ = 0.9


class LayerOperations(NamedTuple):
    """Operations of one layer for one clip, all time steps together.

    Attributes:
        name: name of the module; ``[0]`` and ``[1]`` mark the products of an attention in their
            order.
        kind: ``convolution``, ``linear`` or ``product``.
        dense: operations if every input were real-valued and no zero were skipped; padding counts.
        binary: whether the input, or one factor of a product, held only 0 and 1.
        macs: multiply-accumulates: ``dense``, or 0 if ``binary``.
        acs: accumulates, a mean over the clips of the batch; 0 if not ``binary``.
    """

    name: str
    kind: str
    dense: float
    binary: bool
    macs: float
    acs: float

    @property
    def operations(self) -> float:
        """Measured operations: MACs or ACs."""
        return self.macs + self.acs


class Operations(NamedTuple):
    """Operations of a network for one clip.

    Attributes:
        parameters: number of parameters of the network.
        layers: operations of each layer, in the order in which the layers ran.
    """

    parameters: int
    layers: tuple[LayerOperations, ...]

    @property
    def dense(self) -> float:
        """Operations of the same network with real values instead of spikes."""
        return sum(layer.dense for layer in self.layers)

    @property
    def macs(self) -> float:
        """Multiply-accumulates of all layers."""
        return sum(layer.macs for layer in self.layers)

    @property
    def acs(self) -> float:
        """Accumulates of all layers."""
        return sum(layer.acs for layer in self.layers)

    def energy(self, *, mac_pj: float = MAC_PJ, ac_pj: float = AC_PJ) -> float:
        """Return the energy of the arithmetic for one clip, in pJ."""
        return self.macs * mac_pj + self.acs * ac_pj

    def dense_energy(self, *, mac_pj: float = MAC_PJ) -> float:
        """Return the energy for one clip if every operation were a MAC, in pJ."""
        return self.dense * mac_pj


class CallOperations(NamedTuple):
    """Operations of one call of a torch function, for a whole batch.

    Attributes:
        dense: operations if every input were real-valued.
        measured: accumulates if ``binary``, otherwise ``dense``.
        binary: whether the input, or one factor of a product, held only 0 and 1.
    """

    dense: int
    measured: int
    binary: bool


class Counter(Protocol):
    """Counts the operations of one call of a torch function."""

    kind: str

    def __call__(self, *args: Any, **kwargs: Any) -> CallOperations:
        """Count the operations; the arguments are those of the torch function."""


def is_binary(values: Tensor) -> bool:
    """Return whether ``values`` holds only 0 and 1."""
    return bool(((values == 0) | (values == 1)).all())


def _total(counts: Tensor) -> int:
    # float64 holds whole numbers up to 2 ** 53 exactly.
    return int(counts.sum(dtype=torch.float64))


class _Convolution:
    """Counts a convolution, with the help of the torch function that computes the convolution."""

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
    ) -> CallOperations:
        # Convolve with ones instead of weights, and with one channel that holds the number of
        # nonzero channels: the sum of the result is the number of weights that the inputs meet.
        outputs = weight.shape[0] // groups
        ones = torch.ones_like(weight[:1, :1], dtype=torch.float64)
        used = (input != 0).sum(dim=1, keepdim=True).double()
        reached = self.convolve(used, ones, None, stride, padding, dilation)
        dense = reached.numel() * outputs * input.shape[1] * weight[0, 0].numel()
        binary = is_binary(input)
        return CallOperations(dense, _total(reached) * outputs if binary else dense, binary)


class _Linear:
    """Counts a linear layer on the last axis."""

    kind = "linear"

    def __call__(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> CallOperations:  # noqa: A002
        dense, binary = input.numel() * weight.shape[0], is_binary(input)
        measured = int(input.count_nonzero()) * weight.shape[0] if binary else dense
        return CallOperations(dense, measured, binary)


class _Product:
    """Counts a product of two stacks of matrices, ``[..., m, k]`` and ``[..., k, n]``."""

    kind = "product"

    def __call__(self, left: Tensor, right: Tensor) -> CallOperations:
        # For each of the k terms, the number of values of `left` that meet values of `right`.
        rows = torch.full_like(left[..., 0, :], left.shape[-2], dtype=torch.float64)
        columns = torch.full_like(right[..., :, 0], right.shape[-1], dtype=torch.float64)
        dense = _total(rows * columns)
        binary_left, binary_right = is_binary(left), is_binary(right)
        if binary_left:
            rows = left.count_nonzero(dim=-2).double()
        if binary_right:
            columns = right.count_nonzero(dim=-1).double()
        return CallOperations(dense, _total(rows * columns), binary_left or binary_right)


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
#: Functions that compute products and have no counter. A call is refused, because a count without
#: the call would be too low.
_UNCOUNTED = {
    torch.einsum,
    torch.tensordot,
    torch.baddbmm,
    functional.scaled_dot_product_attention,
}


class _Recorder(TorchFunctionMode):
    """Counts every call of a torch function under the name of the innermost running module."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.calls: list[tuple[str, str, CallOperations]] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        # torch switches this mode off inside this method, so the calls that a counter makes are not
        # counted.
        if counter := _COUNTERS.get(func):
            name = self.inside[-1] if self.inside else ""
            self.calls.append((name, counter.kind, counter(*args, **(kwargs or {}))))
        elif func in _UNCOUNTED:
            raise ValueError(f"Operations of {func.__name__} are not counted; use matmul.")
        return func(*args, **(kwargs or {}))

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Keep the names of the running modules in ``inside`` while the context is open.

        Neurons get no hooks, because a hook on a neuron changes how its pooling runs.
        """
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
    """Return the number of parameters of a network."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_operations(model: nn.Module, audio: Tensor | None, visual: Tensor | None) -> Operations:
    """Run a batch through a network in evaluation mode and count the operations.

    The dense counts depend only on the shapes of the input; all other counts depend on the values.
    The network does not change.

    Args:
        model: a network that is called as ``model(audio, visual)``; not compiled.
        audio: images ``[B, C_in, H, W]`` or frames ``[T, B, C_in, H, W]``; None if the network does
            not read audio.
        visual: images ``[B, C_in, H, W]`` or frames ``[T, B, C_in, H, W]``; None if the network
            does not read vision.

    Returns:
        operations for one clip, means over the batch, by the rule at the top of this file.

    Raises:
        ValueError: both inputs are None, the network calls a function that has no counter, or the
            network refuses the input.
    """
    given = audio if audio is not None else visual
    if given is None:
        raise ValueError("Operations are counted on an input; none was given.")
    clips = given.shape[-4]
    recorder = _Recorder()
    with use_reference(), _evaluating(model), recorder.watching(model), recorder:
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
        layers.append(LayerOperations(label, kind, dense, count.binary, macs, acs))
    return Operations(count_parameters(model), tuple(layers))
