"""Spiking patch splitting: turn an image, or T event frames, into tokens ``[T, B, C, N]``.

A patch split has stages of [3x3 convolution, batch norm, LIF, 3x3 max pool with stride 2], then a
position branch [3x3 convolution, batch norm, LIF], whose output is added to its input (arXiv
2502.12488, section 3.2, after Spikformer). The tokens have the values 0, 1 and 2.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor, nn

from avsnn.models.batch_norm import BatchNorm
from avsnn.models.spike_conv import SpikeConv2d

if TYPE_CHECKING:
    from avsnn.models.neuron import LIF, NeuronFactory

#: The stages of each patch split, by name: a stage with divisor d gives C / d channels.
PATCH_SPLITS: dict[str, tuple[int, ...]] = {"deep": (8, 4, 2, 1), "shallow": (2, 1)}


class SpikingConv3x3(nn.Module):
    """3x3 convolution (no bias), batch norm, LIF and, if ``pooled``, max pooling, on frames.

    A static image is convolved and normalised once, not T times; the spikes are the first tensor
    with a T axis. Pooling halves both sides, and the spikes before pooling are never in memory all
    at once. Saved for backward: the input (spikes on a CPU with one byte per value) and the output
    of the convolution.
    """

    def __init__(
        self, *, inputs: int, outputs: int, of_spikes: bool, pooled: bool, lif: LIF
    ) -> None:
        super().__init__()
        self.conv = (
            SpikeConv2d(inputs=inputs, outputs=outputs)
            if of_spikes
            else nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
        )
        self.norm = BatchNorm(outputs)
        self.lif = lif
        self.pooled = pooled

    def forward(self, frames: Tensor, steps: int) -> Tensor:
        """Compute spikes ``[T, B, C', H, W]``, or ``[T, B, C', H / 2, W / 2]`` with pooling.

        The input is ``[T, B, C, H, W]``, or ``[B, C, H, W]`` that is the same at every step.
        """
        fire = self.lif.pooled if self.pooled else self.lif
        if frames.dim() == 4:
            return fire(self.conv(frames), steps, self.norm)
        current = self.conv(frames.flatten(0, 1))
        return fire(current.view(steps, -1, *current.shape[1:]), None, self.norm)


class PatchSplit(nn.Module):
    """Turns an image or T frames into tokens.

    Saved for backward by each stage: its input and the output of the convolution. A static image
    gets its T axis in the first stage.

    Args:
        inputs: channels of the image.
        channels: C of the tokens.
        divisors: one stage per divisor, with ``channels // divisor`` channels; each stage halves
            both sides.
        neuron: builds the LIF of each stage.

    Raises:
        ValueError: ``channels`` is not a multiple of every divisor.
    """

    def __init__(
        self, *, inputs: int, channels: int, divisors: tuple[int, ...], neuron: NeuronFactory
    ) -> None:
        super().__init__()
        if any(channels % divisor for divisor in divisors):
            raise ValueError(
                f"This patch split needs channels that are a multiple of {max(divisors)}, "
                f"not {channels}."
            )
        widths = [inputs, *(channels // divisor for divisor in divisors)]
        self.stages = nn.ModuleList(
            SpikingConv3x3(
                inputs=before, outputs=after, of_spikes=place > 0, pooled=True, lif=neuron()
            )
            for place, (before, after) in enumerate(pairwise(widths))
        )
        self.position = SpikingConv3x3(
            inputs=channels, outputs=channels, of_spikes=True, pooled=False, lif=neuron()
        )
        self.patch = 2 ** len(divisors)

    def forward(self, frames: Tensor, steps: int) -> Tensor:
        """Turn ``[B, C_in, H, W]`` (static) or ``[T, B, C_in, H, W]`` into tokens ``[T, B, C, N]``.

        ``N = H / patch * W / patch``; the patch is 16 for the deep and 4 for the shallow split.

        Raises:
            ValueError: ``frames`` has another number of axes, a T other than ``steps``, or sides
                that are not multiples of the patch.
        """
        if frames.dim() not in (4, 5):
            raise ValueError(
                f"Input must be [B, C, H, W] or [T, B, C, H, W], not {list(frames.shape)}."
            )
        if frames.dim() == 5 and frames.shape[0] != steps:
            raise ValueError(
                f"Input has {frames.shape[0]} time steps, but the model was built for {steps}."
            )
        height, width = frames.shape[-2:]
        if min(height, width) < self.patch or height % self.patch or width % self.patch:
            raise ValueError(
                f"Both sides of the input must be multiples of {self.patch}, "
                f"not {height} x {width}."
            )
        for stage in self.stages:
            frames = stage(frames, steps)
        tokens = frames + self.position(frames, steps)
        return tokens.flatten(3)  # type: ignore[no-any-return]
