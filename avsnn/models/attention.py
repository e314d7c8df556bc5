"""Spiking attention: over tokens, over time, and their product (arXiv 2502.12488, section 3.3).

There is no softmax: the output is ``(Q K^T) V * 0.25`` for each head, and with spikes for Q, K and
V every product of it is a whole number, so the order of multiplication is free.
Features are ``[T, B, C, N]``; head h holds channels ``h * D`` to ``(h + 1) * D`` of them, with
``D = C / heads``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from avsnn.models.layers import SpikingConv1x1

if TYPE_CHECKING:
    from avsnn.models.layers import NeuronFactory
    from avsnn.models.neuron import LIF

SCALE = 0.25


class _Attend(torch.autograd.Function):
    """Saves its operands as bytes, which a product of spikes as such would keep as floats."""

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
    """``(Q K^T) V * 0.25`` of spikes ``[..., D, L]``, attending over L, in the cheaper order.

    Exact in either order, as long as L * D < 2 ** 24 in float32. Saved for backward: the spikes,
    one byte each.
    """
    return _Attend.apply(query, key, value)  # type: ignore[no-any-return, no-untyped-call]


def split_heads(features: Tensor, heads: int) -> Tensor:
    """``[T, B, C, N]`` to ``[T, B, heads, D, N]``, a view."""
    T, B, C, N = features.shape
    return features.view(T, B, heads, C // heads, N)


class SpatialMix(nn.Module):
    """Attention over the N tokens of each time step (arXiv 2502.12488, section 3.3).

    Saved for backward: query, key and value, one byte each.
    """

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Spikes ``[T, B, heads, D, N]`` each, to ``[T, B, C, N]``."""
        return attend(query, key, value).flatten(2, 3)


class TemporalMix(nn.Module):
    """Attention over the T steps of each token, heads kept apart (arXiv 2502.12488, section 3.3).

    Saved for backward: query, key and value, one byte each.
    """

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Spikes ``[T, B, heads, D, N]`` each, to ``[T, B, C, N]``."""
        return self._attend(query, key, value).permute(4, 0, 1, 3, 2).flatten(2, 3).contiguous()

    @staticmethod
    def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """To ``[B, heads, N, D, T]``."""
        return attend(*(x.permute(1, 2, 4, 3, 0) for x in (query, key, value)))


class PublishedTemporalMix(TemporalMix):
    """Attention over time as published: its result is read back with heads and time interleaved.

    The published code reinterprets ``[heads, T, D]`` as ``[T, heads * D]`` without moving the head
    axis. What comes out at step t is therefore not what was attended to at step t.
    """

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """``[T, B, heads, D, N]`` each, to ``[T, B, C, N]``."""
        T, B, heads, D, N = query.shape
        mixed = self._attend(query, key, value).permute(0, 1, 4, 3, 2)  # [B, heads, T, D, N]
        return mixed.reshape(B, T, heads * D, N).transpose(0, 1).contiguous()


#: Time attention by the ``temporal_layout`` that asks for it.
TEMPORAL_LAYOUTS: dict[str, type[TemporalMix]] = {
    "published": PublishedTemporalMix,
    "corrected": TemporalMix,
}


class BiasedSpatialMix(nn.Module):
    """Attention over tokens with a relative position bias, whose scores are spikes themselves.

    ``LIF(Q K^T + bias) V * 0.25`` (the visual block of SCA). The scores ``[T, B, heads, N, N]``
    have to exist here, because a neuron stands between the two products. Saved for backward: query,
    key and value, and the scores twice: as potentials and as spikes.
    """

    def __init__(self, *, bias: nn.Module, lif: LIF) -> None:
        super().__init__()
        self.bias = bias
        self.lif = lif

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """``[T, B, heads, D, N]`` each, to ``[T, B, C, N]``."""
        scores = query.transpose(-1, -2) @ key
        spikes: Tensor = self.lif(scores + self.bias(query))
        return (value @ spikes.transpose(-1, -2)).mul_(SCALE).flatten(2, 3)


def relative_table_side(tokens: int) -> int:
    """Side ``2 M - 1`` of the table of relative positions, ``M = sqrt(N) + 1``.

    Raises:
        ValueError: the tokens do not form a square grid.
    """
    grid = math.isqrt(tokens)
    if grid * grid != tokens:
        raise ValueError(f"A relative position bias needs a square grid of tokens, not {tokens}.")
    return 2 * grid + 1


def relative_bias(table: Tensor, tokens: int) -> Tensor:
    """``[N, N]``: entry ((i, j), (k, l)) is ``table[i - k + M - 1, j - l + M - 1]``."""
    grid = math.isqrt(tokens)
    i = torch.arange(grid, device=table.device)
    offset = i[:, None] - i[None, :] + grid
    return table[offset[:, None, :, None], offset[None, :, None, :]].reshape(tokens, tokens)


class RandomBias(nn.Module):
    """The bias as published: drawn anew from a standard normal at every call, evaluation too.

    Uses torch's default generator of the input's device, so a seeded run repeats.
    """

    def forward(self, query: Tensor) -> Tensor:
        """``[T, B, heads, D, N]``, read for its shape, to ``[N, N]``."""
        side = relative_table_side(query.shape[-1])
        table = torch.randn(side, side, device=query.device, dtype=query.dtype)
        return relative_bias(table, query.shape[-1])


class LearnedBias(nn.Module):
    """The bias as a parameter, for inputs of one size.

    Raises:
        ValueError: the tokens do not form a square grid.
    """

    def __init__(self, *, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        side = relative_table_side(tokens)
        self.table = nn.Parameter(torch.randn(side, side))

    def forward(self, query: Tensor) -> Tensor:
        """``[T, B, heads, D, N]``, read for its shape, to ``[N, N]``.

        Raises:
            ValueError: N is not what the bias was built for.
        """
        if query.shape[-1] != self.tokens:
            raise ValueError(
                f"The learned position bias was built for {self.tokens} tokens, "
                f"not {query.shape[-1]}."
            )
        return relative_bias(self.table, self.tokens)


class SpikingAttention(nn.Module):
    """Query from one stream, key and value from another, mixed, fired and projected.

    Args:
        channels: C.
        heads: number of heads.
        neuron: makes a LIF for query, key, value and projection.
        norm: stands between the mixed values and their neuron; ``nn.Identity()`` as published.
        lif: the neuron on the mixed values; the paper's code asks for a threshold of its own here.
        mix: what is attended over, on ``[T, B, heads, D, N]``.

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
        """Query from ``own``, key and value from ``other``, both ``[T, B, C, N]``, to spikes.

        Saved for backward: five currents, C values each for each step, clip and token; query, key
        and value as bytes; both inputs and the spikes before the projection, on a CPU as bytes too.
        """
        query = split_heads(self.query(own), self.heads)
        key = split_heads(self.key(other), self.heads)
        value = split_heads(self.value(other), self.heads)
        return self.projection(self.lif(self.norm(self.mix(query, key, value))))  # type: ignore[no-any-return]


class OtherQueryAttention(SpikingAttention):
    """The same with the query from the other stream, as the paper's figure draws it."""

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """Query from ``other``, key and value from ``own``, both ``[T, B, C, N]``, to spikes."""
        return super().forward(other, own)


#: Attention by the stream that the ``query`` setting takes the query from.
QUERY_SIDES: dict[str, type[SpikingAttention]] = {
    "own": SpikingAttention,
    "other": OtherQueryAttention,
}


class SpatioTemporalAttention(nn.Module):
    """Cross-modal complementary attention: a share of each step times a share of each token.

    The mean over N of attention over tokens times the mean over T of attention over time (CCSSA,
    arXiv 2502.12488, section 3.3). The spikes of one are gone before those of the other are there.
    Saved for backward: what both attentions save, and the two means, ``[T, B, C]`` and
    ``[B, C, N]``.
    """

    def __init__(self, *, spatial: SpikingAttention, temporal: SpikingAttention) -> None:
        super().__init__()
        self.spatial = spatial
        self.temporal = temporal

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """``[T, B, C, N]`` each, to real values ``[T, B, C, N]`` in [0, 1]."""
        over_tokens = self.spatial(own, other).mean(dim=3, keepdim=True)
        over_steps = self.temporal(own, other).mean(dim=0, keepdim=True)
        return over_tokens * over_steps  # type: ignore[no-any-return]
