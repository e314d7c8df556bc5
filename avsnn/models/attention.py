"""Spiking attention over tokens, over time steps, and over both (arXiv 2502.12488, section 3.3).

There is no softmax: the output is ``(Q K^T) V * 0.25`` for each head. Q, K and V are spikes, so
every product is a whole number, and the order of the two products does not change the result.
Features are ``[T, B, C, N]``; head h holds the channels ``h * D`` to ``(h + 1) * D``, with
``D = C / heads``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from avsnn.models.kernels.attention_products import (
    SCALE,
    from_matrices,
    join_heads,
    product,
    product_backward,
    split_heads,
    to_matrices,
)
from avsnn.models.kernels.dispatch import kernels_for_attention
from avsnn.models.layers import SpikingConv1x1
from avsnn.models.token_layout import times_step_mean, token_mean

if TYPE_CHECKING:
    from avsnn.models.neuron import LIF, NeuronFactory


class _Attend(torch.autograd.Function):
    """The product of attention; saves Q, K and V as bytes, where autograd would save floats."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(*(spikes.to(torch.uint8) for spikes in (query, key, value)))
        return product(query, key, value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return product_backward(grad, *(packed.to(grad.dtype) for packed in ctx.saved_tensors))


class Mix(nn.Module):
    """Base of attention without neurons between its two products.

    Saved for backward: query, key and value, one byte each.
    """

    #: The name of this attention in an ``AttentionSpec``.
    layout: ClassVar[str]

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Map spikes ``[T, B, heads, D, N]`` each to ``[T, B, C, N]``."""
        matrices = (to_matrices(x, self.layout) for x in (query, key, value))
        # Without gradients, no bytes are saved, and a tracer sees the products themselves.
        attend = _Attend.apply if torch.is_grad_enabled() else product
        mixed = attend(*matrices)
        return join_heads(from_matrices(mixed, self.layout), self.layout)


class SpatialMix(Mix):
    """Attention over the N tokens of each time step (arXiv 2502.12488, section 3.3)."""

    layout = "tokens"


class TemporalMix(Mix):
    """Attention over the T steps of each token (arXiv 2502.12488, section 3.3).

    Heads stay apart.
    """

    layout = "steps"


class PublishedTemporalMix(TemporalMix):
    """Attention over time steps as published: the result has heads and time interleaved.

    The published code reinterprets ``[heads, T, D]`` as ``[T, heads * D]`` without moving the head
    axis. The output at step t is therefore not the result of attention at step t.
    """

    layout = "interleaved"


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
        step, clip and token, or four where one kernel computes attention and neurons; query, key
        and value as bytes; both inputs and the spikes before the projection, on a CPU as bytes too.
        """
        query, key, value = self.query(own), self.key(other), self.value(other)
        return self.projection(self._attend(query, key, value))  # type: ignore[no-any-return]

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return the spikes on the attention output; one kernel computes both where one can."""
        mix = self.mix
        if isinstance(mix, Mix) and self._can_fuse(query, mix.layout):
            return self.lif.attend(query, key, value, heads=self.heads, layout=mix.layout)
        split = (split_heads(features, self.heads) for features in (query, key, value))
        return self.lif(self.norm(mix(*split)))  # type: ignore[no-any-return]

    def _can_fuse(self, query: Tensor, layout: str) -> bool:
        """Return whether nothing stands between attention and neurons, and a kernel takes both."""
        between = (self.mix, self.norm, self.lif)
        watched = any(module._forward_hooks or module._forward_pre_hooks for module in between)
        if watched or not isinstance(self.norm, nn.Identity):
            return False
        spec = self.lif.attention_spec(self.heads, layout)
        return self.lif.constants.has_kernels and kernels_for_attention(query, spec) is not None


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
        over_tokens = token_mean(self.spatial(own, other))
        return times_step_mean(over_tokens, self.temporal(own, other))
