"""Networks in plain torch operations, for programs that do not have avsnn's operators.

Exporters such as ONNX and TorchScript record the operations of a network. The operators of the
package ``kernels`` are unknown outside avsnn. So a copy of the network gets neurons that are
written out, one time step after another. The copy computes in evaluation mode only.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from avsnn.models.attention import RandomBias, relative_bias, relative_table_side
from avsnn.models.batch_norm import BatchNorm
from avsnn.models.kernels.dispatch import use_reference
from avsnn.models.kernels.registration import operator
from avsnn.models.neuron import LIF
from avsnn.models.neuron_constants import RESETS
from avsnn.models.watching import watching

if TYPE_CHECKING:
    from collections.abc import Iterator


def _fire(
    current: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    steps: int,
    rate: float,
    threshold: float,
    reset: str,
) -> Tensor:
    if scale is not None and shift is not None:
        behind = [1] * (current.dim() - (2 if steps else 3))
        current = current * scale.view(-1, *behind) + shift.view(-1, *behind)
    currents = [current] * steps if steps else list(current.unbind(0))
    membrane = torch.zeros_like(currents[0])
    train = []
    for x in currents:
        potential = membrane + (x - membrane) * rate
        spikes = (potential >= threshold).to(x.dtype)
        membrane = RESETS[reset](potential, spikes, threshold)
        train.append(spikes)
    return torch.stack(train)


@operator()
def plain_fire(
    current: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    steps: int,
    rate: float,
    threshold: float,
    reset: str,
) -> Tensor:
    """Return the spikes of ``current * scale + shift`` as one operator, without a gradient.

    Args:
        current: ``[T, ...]``; or ``[...]``, the same at every step, with ``steps``. With ``scale``,
            ``[T, B, C, ...]`` or ``[B, C, ...]``.
        scale: ``[C]``, or None to take ``current`` as it is.
        shift: ``[C]`` with ``scale``, otherwise None.
        steps: T of a constant current; 0 if ``current`` has its own T axis.
        rate: ``1 / tau``.
        threshold: membrane potential at which a neuron fires.
        reset: name of the reset (``neuron_constants.RESETS``).
    """
    return _fire(current, scale, shift, steps, rate, threshold, reset)


def _fake_plain_fire(
    current: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    steps: int,
    *_constants: float | str,
) -> Tensor:
    shape = (steps, *current.shape) if steps else current.shape
    return current.new_empty(shape)


torch.library.register_fake("avsnn::plain_fire", _fake_plain_fire)


def tau_of(layer: LIF) -> float:
    """Return the membrane time constant of a layer in steps, learned or not."""
    return 1.0 / float(torch.sigmoid(layer.w.detach())) if layer.learn_tau else layer.tau


class PlainLIF(LIF):
    """Neurons of an evaluation as plain sums, products and comparisons, without a gradient.

    The potentials are those of ``kernels.reference``, to the bit.

    Args:
        layer: the layer to copy.

    Attributes:
        as_operator: compute all time steps in one operator (``plain_fire``). A tracer that
            translates the operator records a few hundred operations fewer for each layer.
    """

    as_operator = False

    def __init__(self, layer: LIF) -> None:
        super().__init__(
            tau=layer.tau,
            threshold=layer.threshold,
            detach_membrane=layer.detach_membrane,
            reset=layer.reset,
            surrogate=layer.surrogate,
            slope=layer.slope,
            learn_tau=layer.learn_tau,
        )
        self.rate = 1.0 / tau_of(layer)

    def forward(
        self,
        current: Tensor,
        steps: int | None = None,
        norm: BatchNorm | PlainNorm | None = None,
    ) -> Tensor:
        """Compute the spikes of ``LIF.forward``."""
        scale, shift = (None, None) if norm is None else norm.scale_and_shift()
        fire = plain_fire if self.as_operator else _fire
        return fire(current, scale, shift, steps or 0, self.rate, self.threshold, self.reset)

    def pooled(
        self,
        current: Tensor,
        steps: int | None = None,
        norm: BatchNorm | PlainNorm | None = None,
    ) -> Tensor:
        """Compute the spikes of ``LIF.pooled``."""
        spikes = self(current, steps, norm)
        pooled = functional.max_pool2d(spikes.flatten(0, 1), 3, 2, 1)
        return pooled.view(*spikes.shape[:2], *pooled.shape[1:])


class PlainNorm(nn.Module):
    """The batch norm of an evaluation before neurons: a scale and a shift, which are constants."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: BatchNorm) -> None:
        super().__init__()
        for name, values in zip(("scale", "shift"), norm.scale_and_shift(), strict=True):
            self.register_buffer(name, values.detach())

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return the constants of ``BatchNorm.scale_and_shift``."""
        return self.scale, self.shift


class FixedBias(nn.Module):
    """One draw of the random position bias of SCA, because an exported network draws nothing.

    Args:
        tokens: number N of tokens.
        seed: seed of the draw; an evaluation of a run draws its first bias with the same seed.
    """

    bias: Tensor

    def __init__(self, *, tokens: int, seed: int) -> None:
        super().__init__()
        side = relative_table_side(tokens)
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(side, side, generator=generator)
        self.register_buffer("bias", relative_bias(table, tokens))

    def forward(self, query: Tensor) -> Tensor:
        """Return the bias ``[N, N]``; nothing of ``query`` is read."""
        return self.bias


class PlainNetwork(nn.Module):
    """The logits of a network, from plain operations alone; the base of the two classes below.

    Args:
        network: the network; it stays as it is.
        tokens: number N of tokens, which a random position bias needs.
        seed: seed of a random position bias.

    Attributes:
        ran: names of the layers of neurons, in the order in which the last call computed them.
        returns_spikes: whether ``forward`` also returns the spikes of every layer that ran,
            ``[T, B, ...]`` each and before pooling, in the order of the computation.
    """

    returns_spikes = False

    def __init__(self, network: nn.Module, *, tokens: int, seed: int) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu().eval().requires_grad_(requires_grad=False)
        modules = dict(self.network.named_modules())
        self.ran: list[str] = []
        for name, module in modules.items():
            if isinstance(module, LIF):
                self.network.set_submodule(name, PlainLIF(module))
            elif type(module) is BatchNorm:
                self.network.set_submodule(name, PlainNorm(module))
            elif isinstance(module, RandomBias):
                self.network.set_submodule(name, FixedBias(tokens=tokens, seed=seed))

    def _answer(self, audio: Tensor, visual: Tensor) -> Tensor | tuple[Tensor, ...]:
        if not self.returns_spikes:
            logits: Tensor = self.network(audio, visual).logits
            return logits
        with recorded_spikes(self.network) as spikes:
            logits = self.network(audio, visual).logits
        self.ran = list(spikes)
        return (logits, *spikes.values())


class PlainAudioVisual(PlainNetwork):
    """The logits of a network that reads both modalities."""

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the logits ``[B, classes]`` of the inputs that the network takes."""
        return self._answer(audio, visual)


class PlainOneModality(PlainNetwork):
    """The logits of a network that reads one modality."""

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the logits ``[B, classes]`` of the input that the network takes."""
        # The network takes its own modality out of a pair; the other one is never read.
        return self._answer(images, images)


@contextmanager
def recorded_spikes(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Keep the spikes of every layer of neurons that runs while the context is open.

    The dictionary holds the spikes ``[T, B, ...]`` before pooling, by the name of the layer, in the
    order of the computation.
    """
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, LIF)}
    spikes: dict[str, Tensor] = {}

    def keep(name: str, _inputs: object, output: Tensor) -> None:
        spikes[name] = output

    with watching(layers, keep):
        yield spikes


@contextmanager
def plain_operations() -> Iterator[None]:
    """Record or run a ``PlainNetwork`` inside the context: no kernels, and no gradients."""
    with use_reference(), torch.no_grad():
        yield


def fold_batch_norm(convolution: nn.Conv1d | nn.Conv2d, norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the one convolution that computes convolution and batch norm.

    The products are computed in float64 and rounded once, so that a folded network keeps nearly
    all spikes.

    Returns:
        weight ``[C', C, ...]`` and bias ``[C']``, float32.
    """
    wide = copy.deepcopy(norm).double()
    scale, shift = wide.scale_and_shift()
    weight = convolution.weight.double()
    bias = shift if convolution.bias is None else shift + convolution.bias.double() * scale
    folded = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    return folded.detach().float(), bias.detach().float()
