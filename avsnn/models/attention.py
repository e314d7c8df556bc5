"""Spiking attention over tokens, over time steps, and over both (arXiv 2502.12488, section 3.3).

There is no softmax: the output is ``(Q K^T) V * 0.25`` for each head. Q, K and V are spikes, so
every product is a whole number, and the order of the two products does not change the result.
Features are ``[T, B, C, N]``; head h holds the channels ``h * D`` to ``(h + 1) * D``, with
``D = C / heads``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from avsnn.models.layers import SpikingConv1x1

if TYPE_CHECKING:
    from avsnn.models.neuron import LIF, NeuronFactory

SCALE = 0.25


class _Attend(torch.autograd.Function):
    """The product of attention; saves Q, K and V as bytes, where autograd would save floats."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(*(spikes.to(torch.uint8) for spikes in (query, key, value)))
        return _product(query, key, value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = (packed.to(grad.dtype) for packed in ctx.saved_tensors)
        if _channels_first(query):
            across = (value @ key.mT).mul_(SCALE)
            back = (grad @ query.mT).mul_(SCALE)
            return across.mT @ grad, back.mT @ value, back @ key
        scores = (key.mT @ query).mul_(SCALE)
        back = (value.mT @ grad).mul_(SCALE)
        return key @ back, query @ back.mT, grad @ scores.mT


def _channels_first(query: Tensor) -> bool:
    D, L = query.shape[-2:]
    return D <= L


def _product(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    if _channels_first(query):
        return (value @ key.mT).mul_(SCALE) @ query
    return value @ (key.mT @ query).mul_(SCALE)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return ``(Q K^T) V * 0.25`` of spikes ``[..., D, L]``; attention is over L.

    The two products are computed in the cheaper order. Both orders are exact in float32 as long as
    L * D < 2 ** 24. Saved for backward: the spikes, one byte each.
    """
    return _Attend.apply(query, key, value)  # type: ignore[no-any-return, no-untyped-call]


def split_heads(features: Tensor, heads: int) -> Tensor:
    """Return ``[T, B, C, N]`` as a view ``[T, B, heads, D, N]``."""
    T, B, C, N = features.shape
    return features.view(T, B, heads, C // heads, N)


class SpatialMix(nn.Module):
    """Attention over the N tokens of each time step (arXiv 2502.12488, section 3.3).

    Saved for backward: query, key and value, one byte each.
    """

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Map spikes ``[T, B, heads, D, N]`` each to ``[T, B, C, N]``."""
        return attend(query, key, value).flatten(2, 3)


class TemporalMix(nn.Module):
    """Attention over the T steps of each token; heads stay apart (arXiv 2502.12488, section 3.3).

    Saved for backward: query, key and value, one byte each.
    """

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Map spikes ``[T, B, heads, D, N]`` each to ``[T, B, C, N]``."""
        return self._attend(query, key, value).permute(4, 0, 1, 3, 2).flatten(2, 3).contiguous()

    @staticmethod
    def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Map spikes ``[T, B, heads, D, N]`` each to ``[B, heads, N, D, T]``."""
        return attend(*(x.permute(1, 2, 4, 3, 0) for x in (query, key, value)))


class PublishedTemporalMix(TemporalMix):
    """Attention over time steps as published: the result has heads and time interleaved.

    The published code reinterprets ``[heads, T, D]`` as ``[T, heads * D]`` without moving the head
    axis. The output at step t is therefore not the result of attention at step t.
    """

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Map spikes ``[T, B, heads, D, N]`` each to ``[T, B, C, N]``."""
        T, B, heads, D, N = query.shape
        mixed = self._attend(query, key, value).permute(0, 1, 4, 3, 2)  # [B, heads, T, D, N]
        return mixed.reshape(B, T, heads * D, N).transpose(0, 1).contiguous()


#: Attention over time steps, by the value of the ``temporal_layout`` setting.
TEMPORAL_LAYOUTS: dict[str, type[TemporalMix]] = {
    "published": PublishedTemporalMix,
    "corrected": TemporalMix,
}


class BiasedSpatialMix(nn.Module):
    """Attention over tokens with a relative position bias: ``LIF(Q K^T + bias) V * 0.25``.

    This is the attention of the visual block of SCA. The neurons stand between the two products, so
    the scores ``[T, B, heads, N, N]`` must be computed. Saved for backward: query, key and value,
    and the scores twice, as potentials and as spikes.
    """

    def __init__(self, *, bias: nn.Module, lif: LIF) -> None:
        super().__init__()
        self.bias = bias
        self.lif = lif

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Map spikes ``[T, B, heads, D, N]`` each to ``[T, B, C, N]``."""
        scores = query.transpose(-1, -2) @ key
        spikes: Tensor = self.lif(scores + self.bias(query))
        return (value @ spikes.transpose(-1, -2)).mul_(SCALE).flatten(2, 3)


def relative_table_side(tokens: int) -> int:
    """Return the side ``2 M - 1`` of the table of relative positions, with ``M = sqrt(N) + 1``.

    Raises:
        ValueError: the tokens do not form a square grid.
    """
    grid = math.isqrt(tokens)
    if grid * grid != tokens:
        raise ValueError(f"A relative position bias needs a square grid of tokens, not {tokens}.")
    return 2 * grid + 1


def relative_bias(table: Tensor, tokens: int) -> Tensor:
    """Return the bias ``[N, N]`` from the table of relative positions.

    Entry ((i, j), (k, l)) of the bias is ``table[i - k + M - 1, j - l + M - 1]``.
    """
    grid = math.isqrt(tokens)
    i = torch.arange(grid, device=table.device)
    offset = i[:, None] - i[None, :] + grid
    return table[offset[:, None, :, None], offset[None, :, None, :]].reshape(tokens, tokens)


class RandomBias(nn.Module):
    """The published position bias: drawn from a standard normal at every call, also in evaluation.

    The random numbers come from torch's default generator of the device of the input, so a run with
    a seed repeats.
    """

    def forward(self, query: Tensor) -> Tensor:
        """Return the bias ``[N, N]``; ``query`` ``[T, B, heads, D, N]`` is read for its shape."""
        side = relative_table_side(query.shape[-1])
        table = torch.randn(side, side, device=query.device, dtype=query.dtype)
        return relative_bias(table, query.shape[-1])


class LearnedBias(nn.Module):
    """The position bias as a parameter, for inputs of one size.

    Raises:
        ValueError: the tokens do not form a square grid.
    """

    def __init__(self, *, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        side = relative_table_side(tokens)
        self.table = nn.Parameter(torch.randn(side, side))

    def forward(self, query: Tensor) -> Tensor:
        """Return the bias ``[N, N]``; ``query`` ``[T, B, heads, D, N]`` is read for its shape.

        Raises:
            ValueError: the bias was built for another N.
        """
        if query.shape[-1] != self.tokens:
            raise ValueError(
                f"The learned position bias was built for {self.tokens} tokens, "
                f"not {query.shape[-1]}."
            )
        return relative_bias(self.table, self.tokens)


class SpikingAttention(nn.Module):
    """Attention with the query from one stream, and key and value from another stream.

    ``projection(lif(norm(mix(query, key, value))))``; query, key, value and projection are
    ``SpikingConv1x1`` layers.

    Args:
        channels: C.
        heads: number of heads.
        neuron: builds the LIF of query, key, value and projection.
        norm: layer between the attention output and ``lif``; ``nn.Identity()`` as published.
        lif: neurons on the attention output; the published code gives these neurons a threshold of
            their own.
        mix: computes the attention output from query, key and value ``[T, B, heads, D, N]``, such
            as ``SpatialMix``.

    Raises:
        ValueError: C is not a multiple of the heads.
    """

    def __init__(
        self,
        *,
        channels: int,
        heads: int,
        neuron: NeuronFactory,
        norm: nn.Module,
        lif: LIF,
        mix: nn.Module,
    ) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels do not split into {heads} heads.")
        self.heads = heads

        def layer() -> SpikingConv1x1:
            return SpikingConv1x1(inputs=channels, outputs=channels, bias=False, lif=neuron())

        self.query, self.key, self.value = layer(), layer(), layer()
        self.mix = mix
        self.norm = norm
        self.lif = lif
        self.projection = layer()

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """Compute spikes ``[T, B, C, N]``: query from ``own``, key and value from ``other``.

        Both inputs are ``[T, B, C, N]``. Saved for backward: five currents, C values each for each
        step, clip and token; query, key and value as bytes; both inputs and the spikes before the
        projection, on a CPU as bytes too.
        """
        query = split_heads(self.query(own), self.heads)
        key = split_heads(self.key(other), self.heads)
        value = split_heads(self.value(other), self.heads)
        return self.projection(self.lif(self.norm(self.mix(query, key, value))))  # type: ignore[no-any-return]


class OtherQueryAttention(SpikingAttention):
    """Attention with the query from the other stream, as the paper's figure draws the query."""

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """Compute spikes ``[T, B, C, N]``: query from ``other``, key and value from ``own``."""
        return super().forward(other, own)


#: Attention by the value of the ``query`` setting: the stream that gives the query.
QUERY_SIDES: dict[str, type[SpikingAttention]] = {
    "own": SpikingAttention,
    "other": OtherQueryAttention,
}


class SpatioTemporalAttention(nn.Module):
    """Cross-modal complementary attention (CCSSA, arXiv 2502.12488, section 3.3).

    The output is the mean over N of attention over tokens, times the mean over T of attention over
    time steps. The spikes of the first attention are freed before the second attention runs. Saved
    for backward: what both attentions save, and the two means, ``[T, B, C]`` and ``[B, C, N]``.
    """

    def __init__(self, *, spatial: SpikingAttention, temporal: SpikingAttention) -> None:
        super().__init__()
        self.spatial = spatial
        self.temporal = temporal

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """Map ``[T, B, C, N]`` each to real values ``[T, B, C, N]`` in [0, 1]."""
        over_tokens = self.spatial(own, other).mean(dim=3, keepdim=True)
        over_steps = self.temporal(own, other).mean(dim=0, keepdim=True)
        return over_tokens * over_steps  # type: ignore[no-any-return]
