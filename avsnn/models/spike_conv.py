"""Convolutions of spikes, which need no multiplication where a kernel can add weights instead."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avsnn.models.kernels import cpu, spike_conv_operators
from avsnn.models.kernels.dispatch import kernels_for
from avsnn.models.token_layout import has_channels_innermost, linear_along_channels


def _convolve_spikes(layer: nn.Conv1d | nn.Conv2d, spikes: Tensor) -> Tensor | None:
    """Convolve with the kernels for spikes, or return None where these kernels cannot run.

    The kernels take float32 on a CPU, and spikes only; for 1x1, also sums of up to three spikes.
    They cannot run under a compiler, which does not see the values. Under autocast, a dense
    convolution in bfloat16 is quicker from about 0.1 spikes per place on.
    """
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return None
    if kernels_for(spikes) is not cpu or spikes.dtype != torch.float32:
        return None
    packed = cpu.pack(spikes.detach(), layer.weight)
    if packed is None:
        return None
    out: Tensor = spike_conv_operators.spike_conv(
        spikes, packed[0], layer.weight, layer.bias, packed[1]
    )
    return out


class SpikeConv1d(nn.Conv1d):
    """1x1 convolution of spikes, or of sums of spikes: ``[F, C, N]`` to ``[F, C', N]``.

    In float32 on a CPU, the package ``kernels`` decides by the number of spikes whether to add the
    weights of each spike, without multiplication, or to run a dense convolution. Saved for
    backward: the input, one byte per value where these kernels run.
    """

    def __init__(self, *, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__(inputs, outputs, kernel_size=1, bias=bias)

    def forward(self, spikes: Tensor) -> Tensor:
        """Convolve ``[F, C, N]`` to ``[F, C', N]``."""
        out = _convolve_spikes(self, spikes)
        if out is not None:
            return out
        if has_channels_innermost(spikes):
            return linear_along_channels(spikes, self.weight.squeeze(-1), self.bias)
        return super().forward(spikes)


class SpikeConv2d(nn.Conv2d):
    """3x3 convolution of spikes, padding 1, no bias: ``[F, C, H, W]`` to ``[F, C', H, W]``.

    The package ``kernels`` decides how to compute this convolution, as for ``SpikeConv1d``; sums of
    spikes are always convolved densely. Saved for backward: as ``SpikeConv1d``.
    """

    def __init__(self, *, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel_size=3, padding=1, bias=False)

    def forward(self, spikes: Tensor) -> Tensor:
        """Convolve ``[F, C, H, W]`` to ``[F, C', H, W]``."""
        out = _convolve_spikes(self, spikes)
        return super().forward(spikes) if out is None else out
