"""Small layers that every part of the networks is made of, on features ``[T, B, C, N]``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from avsnn.models.neuron import LIF

    NeuronFactory = Callable[[], LIF]


def start_as_published(layer: nn.Linear) -> None:
    """Set the weights of a new linear layer: truncated normal 0.02, bias 0."""
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)


def published_linear(*, inputs: int, outputs: int) -> nn.Linear:
    """Make a linear layer on the last axis that starts as published."""
    layer = nn.Linear(inputs, outputs)
    start_as_published(layer)
    return layer


class ChannelLinear(nn.Linear):
    """A linear layer along the channel axis: ``[T, B, C, N]`` to ``[T, B, C', N]``.

    Saved for backward: its input.
    """

    def __init__(self, *, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        start_as_published(self)

    def forward(self, features: Tensor) -> Tensor:
        """``[T, B, C, N]`` to ``[T, B, C', N]``."""
        T, B, C, N = features.shape
        # as a 1x1 convolution: the channel axis stays where it is and nothing is transposed
        out = nn.functional.conv1d(
            features.reshape(T * B, C, N), self.weight.unsqueeze(-1), self.bias
        )
        return out.view(T, B, -1, N)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> Tensor:
        # Every process depends on the values of every other.
        return _Sum.forward(_ctx, grad.contiguous())


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum over all processes that train together; gradients flow back to each of them."""
    return _Sum.apply(values)  # type: ignore[no-any-return, no-untyped-call]


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm of each channel of ``[B, C, ...]``, over the batch of this process or of all.

    Saved for backward: its input.

    Attributes:
        synchronised: take the statistics over the batches of all processes that train together
            (``torch.distributed``); off, as published, each has its own. Unlike torch's own, this
            works on a CPU too.
    """

    synchronised = False

    def _check_input_dim(self, features: Tensor) -> None:
        """Any number of axes behind the channels."""

    @property
    def _together(self) -> bool:
        return self.synchronised and self.training and dist.is_initialized()

    def count(self, features: Tensor) -> int:
        """How many values of a channel its statistics are taken over."""
        own = features.numel() // features.shape[1]
        return own * dist.get_world_size() if self._together else own

    def forward(self, features: Tensor) -> Tensor:
        """``[B, C, ...]`` to the same shape. With ``synchronised``, B is the same everywhere."""
        if not self._together:
            return super().forward(features)
        axes = [axis for axis in range(features.dim()) if axis != 1]
        shape = [1, -1, *(1 for _ in axes[1:])]
        processes, n = dist.get_world_size(), self.count(features)

        mean = sum_over_processes(features.mean(axes)) / processes
        centred = features - mean.view(shape)
        variance = sum_over_processes(centred.square().mean(axes)) / processes
        with torch.no_grad():
            for running, now in (
                (self.running_mean, mean),
                (self.running_var, variance * (n / (n - 1))),
            ):
                if running is not None and self.momentum is not None:
                    running.lerp_(now, self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return torch.addcmul(self.bias.view(shape), centred, scale.view(shape))


class TokenNorm(BatchNorm):
    """Batch norm of each channel over T, B and N together, on ``[T, B, C, N]``.

    Saved for backward: its input.
    """

    def forward(self, features: Tensor) -> Tensor:
        """``[T, B, C, N]`` to the same shape."""
        return super().forward(features.flatten(0, 1)).view_as(features)


class SpikingConv1x1(nn.Module):
    """1x1 convolution, batch norm, LIF: ``[T, B, C, N]`` to spikes ``[T, B, C', N]``.

    Saved for backward: the input, what the convolution gave, and the potentials of the neurons, so
    ``C + 2 C'`` values for each step, clip and token.
    """

    def __init__(self, *, inputs: int, outputs: int, bias: bool, lif: LIF) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel_size=1, bias=bias)
        self.norm = BatchNorm(outputs)
        self.lif = lif

    def forward(self, features: Tensor) -> Tensor:
        """Spikes ``[T, B, C', N]``. Statistics are taken over T, B and N together."""
        T, B, _, N = features.shape
        current = self.norm(self.conv(features.flatten(0, 1)))
        spikes: Tensor = self.lif(current.view(T, B, -1, N))
        return spikes


class SpikingMLP(nn.Module):
    """Two :class:`SpikingConv1x1`, C to ratio * C and back (arXiv 2502.12488, section 3.2).

    Saved for backward: ``3 C + 3 ratio C`` values for each step, clip and token, the input among
    them.
    """

    def __init__(self, *, channels: int, ratio: int, neuron: NeuronFactory) -> None:
        super().__init__()
        hidden = channels * ratio
        # The biases change nothing in front of a batch norm; published weights have them.
        self.expand = SpikingConv1x1(inputs=channels, outputs=hidden, bias=True, lif=neuron())
        self.contract = SpikingConv1x1(inputs=hidden, outputs=channels, bias=True, lif=neuron())

    def forward(self, features: Tensor) -> Tensor:
        """``[T, B, C, N]`` to spikes ``[T, B, C, N]``."""
        spikes: Tensor = self.contract(self.expand(features))
        return spikes


def batch_norm_of_copies(norm: BatchNorm, features: Tensor, *, copies: int) -> Tensor:
    """Batch norm of one copy that leaves ``norm`` as if it had seen ``copies`` of it.

    Mean and biased variance do not change with copies; the unbiased variance that goes into the
    running variance does, from ``n / (n - 1)`` to ``n T / (n T - 1)``.

    Args:
        norm: the layer; its running variance is corrected in training mode.
        features: ``[B, C, H, W]``.
        copies: T.

    Returns:
        ``[B, C, H, W]``.
    """
    if not (norm.training and norm.running_var is not None and norm.momentum is not None):
        out: Tensor = norm(features)
        return out
    kept = norm.running_var.data * (1.0 - norm.momentum)
    out = norm(features)
    n = norm.count(features)
    ratio = (n * copies / (n * copies - 1)) / (n / (n - 1))
    # Only the small difference is scaled, so no digits of the running value are lost. Through
    # ``data``, because autograd counts writes to a buffer that it saved but does not read here.
    running = norm.running_var.data
    running.add_(running - kept, alpha=ratio - 1.0)
    return out
