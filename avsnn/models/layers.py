"""Small layers that every part of the networks is made of, on features ``[T, B, C, N]``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from avsnn.models import kernels
from avsnn.models.kernels import operations
from avsnn.models.recompute import replaying

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

    @property
    def fuses(self) -> bool:
        """Whether neurons can take this norm into their own operation, as it is used now."""
        if self.weight is None or self.running_mean is None:
            return False
        return not self._together if self.training else not torch.is_grad_enabled()

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """The norm in evaluation as ``x * scale + shift``, ``[C]`` each."""
        assert self.running_mean is not None  # noqa: S101 - what `fuses` says
        assert self.running_var is not None  # noqa: S101
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale

    def follow(self, mean: Tensor, variance: Tensor, *, count: int) -> None:
        """Let the running statistics follow those of a batch.

        Args:
            mean: of each channel, ``[C]``.
            variance: the biased one, ``[C]``.
            count: values of all channels that they were taken over, copies among them.
        """
        if replaying():
            return
        n = count // len(mean)
        with torch.no_grad():
            for running, now in (
                (self.running_mean, mean),
                (self.running_var, variance * (n / (n - 1))),
            ):
                if running is not None and self.momentum is not None:
                    # through ``data``, because autograd counts writes to what it does not read
                    running.data.lerp_(now.to(running.dtype), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)

    def of_frames(self, current: Tensor, copies: int | None) -> Tensor:
        """``[T, B, C, ...]``, or ``[B, C, ...]`` that stands for so many copies of itself.

        Mean and biased variance do not change with copies; the unbiased variance that goes into the
        running variance does, from ``n / (n - 1)`` to ``n T / (n T - 1)``.
        """
        if copies is None:
            return self(current.flatten(0, 1)).view_as(current)  # type: ignore[no-any-return]
        return self._normalise(current, copies)

    def forward(self, features: Tensor) -> Tensor:
        """``[B, C, ...]`` to the same shape. With ``synchronised``, B is the same everywhere."""
        return self._normalise(features, 1)

    def _normalise(self, features: Tensor, copies: int) -> Tensor:
        if not self.training or self.running_mean is None or self.momentum is None:
            return super().forward(features)
        axes = [axis for axis in range(features.dim()) if axis != 1]
        if not self._together:
            wide = features.detach().to(torch.promote_types(features.dtype, torch.float32))
            variance, mean = torch.var_mean(wide, axes, correction=0)
            self.follow(mean, variance, count=features.numel() * copies)
            return nn.functional.batch_norm(
                features, None, None, self.weight, self.bias, training=True, eps=self.eps
            )
        shape = [1, -1, *(1 for _ in axes[1:])]
        processes = dist.get_world_size()
        mean = sum_over_processes(features.mean(axes)) / processes
        centred = features - mean.view(shape)
        variance = sum_over_processes(centred.square().mean(axes)) / processes
        self.follow(mean.detach(), variance.detach(), count=features.numel() * copies * processes)
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return torch.addcmul(self.bias.view(shape), centred, scale.view(shape))


class TokenNorm(BatchNorm):
    """Batch norm of each channel over T, B and N together, on ``[T, B, C, N]``.

    Saved for backward: its input.
    """

    def forward(self, features: Tensor) -> Tensor:
        """``[T, B, C, N]`` to the same shape."""
        return super().forward(features.flatten(0, 1)).view_as(features)


def _convolve_spikes(layer: nn.Conv1d | nn.Conv2d, spikes: Tensor) -> Tensor | None:
    """By the kernels for that, or None where they are not for this.

    They take float32 on a CPU, and spikes, for 1x1 sums of up to three too; a compiler does not see
    which values there are.
    """
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return None
    if kernels.of(spikes) is not kernels.cpu or spikes.dtype != torch.float32:
        return None
    packed = kernels.cpu.pack(spikes.detach(), layer.weight)
    if packed is None:
        return None
    out: Tensor = operations.spike_conv(spikes, packed[0], layer.weight, layer.bias, packed[1])
    return out


class SpikeConv1d(nn.Conv1d):
    """1x1 convolution of spikes or sums of them, ``[F, C, N]`` to ``[F, C', N]``.

    In float32 on a CPU it may add weights for each spike and do no products, as ``kernels`` decides
    by how many there are. Saved for backward: the input, one byte each on that way.
    """

    def __init__(self, *, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__(inputs, outputs, kernel_size=1, bias=bias)

    def forward(self, spikes: Tensor) -> Tensor:
        """Convolve."""
        out = _convolve_spikes(self, spikes)
        return super().forward(spikes) if out is None else out


class SpikeConv2d(nn.Conv2d):
    """The same of spikes for 3x3, padding 1 and no bias, ``[F, C, H, W]`` to ``[F, C', H, W]``."""

    def __init__(self, *, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel_size=3, padding=1, bias=False)

    def forward(self, spikes: Tensor) -> Tensor:
        """Convolve."""
        out = _convolve_spikes(self, spikes)
        return super().forward(spikes) if out is None else out


class SpikingConv1x1(nn.Module):
    """1x1 convolution, batch norm, LIF: ``[T, B, C, N]`` to spikes ``[T, B, C', N]``.

    Saved for backward: the input, of spikes one byte each on a CPU, and what the convolution gave,
    so ``C + C'`` values for each step, clip and token.
    """

    def __init__(self, *, inputs: int, outputs: int, bias: bool, lif: LIF) -> None:
        super().__init__()
        self.conv = SpikeConv1d(inputs=inputs, outputs=outputs, bias=bias)
        self.norm = BatchNorm(outputs)
        self.lif = lif

    def forward(self, features: Tensor) -> Tensor:
        """Spikes ``[T, B, C', N]``. Statistics are taken over T, B and N together."""
        T, B, _, N = features.shape
        current = self.conv(features.flatten(0, 1)).view(T, B, -1, N)
        spikes: Tensor = self.lif(current, None, self.norm)
        return spikes


class SpikingMLP(nn.Module):
    """Two :class:`SpikingConv1x1`, C to ratio * C and back (arXiv 2502.12488, section 3.2).

    Saved for backward: ``2 C + 2 ratio C`` values for each step, clip and token, the input among
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
