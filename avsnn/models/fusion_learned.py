"""Fusion methods that arXiv 2502.12488 does not compare: each learns how much the streams share.

* ``GatedResidual``: S-CMRL, whose residual has a learned share in place of ``alpha``.
* ``TokenMaskAttention``: cross-modal Q-K attention, whose cost is linear in the number of tokens.
* ``StepAttention``: attention over the time steps of both streams together.

Of the papers of the last two methods, the abstracts were read and no program was at hand. Each
docstring says what is published, and which choices are ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from avsnn.models import builders
from avsnn.models.batch_norm import TokenNorm
from avsnn.models.fusion import AttentionResidual, Fused, Fusion
from avsnn.models.kernels.attention_products import split_heads
from avsnn.models.layers import SpikingConv1x1, published_linear
from avsnn.models.token_layout import token_mean
from avsnn.pydantic_base import StrictModel

if TYPE_CHECKING:
    from avsnn.models.neuron import LIF, NeuronFactory
    from avsnn.models.settings import ModelSettings

#: The first value of every learned share. LayerScale (arXiv 2103.17239, section 2) starts with this
#: value in networks of up to 18 blocks, so that a residual changes little at first.
FIRST_SHARE = 0.1


class LearnedShare(nn.Module):
    """Multiply a residual by one learned number for each channel, which starts at ``FIRST_SHARE``.

    Saved for backward: the residual, ``[T, B, C, N]``.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.full((channels,), FIRST_SHARE))

    def forward(self, residual: Tensor) -> Tensor:
        """Map ``[T, B, C, N]`` to ``[T, B, C, N]``, with the dtype of the residual."""
        return residual * self.share.to(residual.dtype).unsqueeze(-1)


class GatedResidual(AttentionResidual):
    """S-CMRL with a learned share of the residual for each stream and channel.

    ``a' = a + g_a * r(a; v)``, ``v' = v + g_v * r(v; a)``. The residual r is the residual of S-CMRL
    (arXiv 2502.12488, section 3.3), with its alignment. The learned share ``g`` of each channel is
    LayerScale (arXiv 2103.17239, section 2) and stands in place of ``alpha``, which this method
    does not read. To join the two is our choice.

    Values: the tokens are 0, 1 or 2. With alignment, or with attention over one axis, r is 0 or 1;
    otherwise r is a real number in [0, 1]. The streams after fusion are real numbers.
    Saved for backward: what S-CMRL saves, and both residuals.

    Args:
        channels: width C.
        blocks: the arguments of ``AttentionResidual``.
    """

    def __init__(self, *, channels: int, **blocks: nn.Module) -> None:
        super().__init__(**blocks)
        self.audio_share = LearnedShare(channels=channels)
        self.visual_share = LearnedShare(channels=channels)

    @classmethod
    def from_settings(cls, settings: ModelSettings, *, tokens: int | None) -> Self:
        """Build the method with the attention and the alignment that the settings name."""
        return cls(channels=settings.channels, **cls.blocks(settings))

    def forward(self, audio: Tensor, visual: Tensor) -> Fused:
        """Fuse; both residuals are computed from the streams before fusion."""
        r_audio, r_visual = self.residuals(audio, visual)
        return Fused(
            audio + self.audio_share(r_audio),
            visual + self.visual_share(r_visual),
            r_audio,
            r_visual,
        )


class TokenMask(nn.Module):
    """Keep the spikes of those key tokens whose query fires enough: ``A * K``, ``A = LIF(sum Q)``.

    The sum is over the D channels of one head, as in Q-K token attention (QKFormer, arXiv
    2403.16552). No token meets another token, so the cost is linear in N.
    Saved for backward: the sums and the mask, ``[T, B, heads, N]`` each, and the key,
    ``[T, B, C, N]``; with a norm, also its input.

    Args:
        heads: number of heads.
        norm: layer on the sums ``[T, B, heads, N]`` before the neurons.
        lif: neurons of the mask.
    """

    def __init__(self, *, heads: int, norm: nn.Module, lif: LIF) -> None:
        super().__init__()
        self.heads = heads
        self.norm = norm
        self.lif = lif

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Map spikes ``[T, B, C, N]`` each to spikes ``[T, B, C, N]``."""
        mask: Tensor = self.lif(self.norm(split_heads(query, self.heads).sum(dim=3)))
        return (mask.unsqueeze(3) * split_heads(key, self.heads)).flatten(2, 3)


class QKAttention(nn.Module):
    """Q-K token attention with the query from one stream and the key from the other stream.

    ``projection(mask(query, key))``; query, key and projection are ``SpikingConv1x1`` layers.

    Args:
        channels: C.
        mask: joins query and key.
        neuron: builds the LIF of query, key and projection.
        asks_other: the query comes from the other stream, and the key from the own stream.

    Raises:
        ValueError: C is not a multiple of the heads.
    """

    def __init__(
        self, *, channels: int, mask: TokenMask, neuron: NeuronFactory, asks_other: bool
    ) -> None:
        super().__init__()
        if channels % mask.heads:
            raise ValueError(f"{channels} channels do not split into {mask.heads} heads.")

        def layer() -> SpikingConv1x1:
            return SpikingConv1x1(inputs=channels, outputs=channels, bias=False, lif=neuron())

        self.query, self.key = layer(), layer()
        self.mask = mask
        self.projection = layer()
        self.asks_other = asks_other

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """Map ``[T, B, C, N]`` each to spikes ``[T, B, C, N]``.

        Saved for backward: three currents, ``3 C`` values for each step, clip and token, both
        inputs and the masked key, on a CPU as bytes, and what ``TokenMask`` saves.
        """
        asking, asked = (other, own) if self.asks_other else (own, other)
        masked = self.mask(self.query(asking), self.key(asked))
        return self.projection(masked)  # type: ignore[no-any-return]


class TokenMaskAttention(Fusion):
    """CMQKA: each stream gains a learned share of its Q-K attention to the other stream.

    ``A = LIF(sum_D Q)``, ``r = LIF(norm(W (A * K)))``, ``a' = a + g_a * r(a; v)``, and the same for
    ``v'``. Cross-modal Q-K attention is the fusion of SNNergy (arXiv 2602.00701): attention in both
    directions, binary, linear in N, with a learned residual. The equations of ``A`` and ``r`` are
    the token form of Q-K attention (QKFormer, arXiv 2403.16552). These choices are ours: one stage
    in place of three stages, the token form alone, a sum for each head, and a share ``g`` for each
    channel that starts at ``FIRST_SHARE``. The settings ``query``, ``heads``,
    ``attention_threshold`` and ``attention_norm`` work as in S-CMRL.

    Values: the tokens are 0, 1 or 2, and Q, K, A and r are spikes, 0 or 1. The streams after fusion
    are real numbers: a token plus 0, or plus ``g``.
    Saved for backward: what both attentions save, and both residuals.
    """

    def __init__(self, *, audio: QKAttention, visual: QKAttention, channels: int) -> None:
        super().__init__()
        self.audio = audio
        self.visual = visual
        self.audio_share = LearnedShare(channels=channels)
        self.visual_share = LearnedShare(channels=channels)

    @classmethod
    def from_settings(cls, settings: ModelSettings, *, tokens: int | None) -> Self:
        """Build the method with the width, the heads, the neurons and the query of the settings."""

        def attention() -> QKAttention:
            lif = builders.neuron_factory(settings, threshold=settings.attention_threshold)()
            norm = TokenNorm(settings.heads) if settings.attention_norm else nn.Identity()
            return QKAttention(
                channels=settings.channels,
                mask=TokenMask(heads=settings.heads, norm=norm, lif=lif),
                neuron=builders.neuron_factory(settings),
                asks_other=settings.query == "other",
            )

        return cls(audio=attention(), visual=attention(), channels=settings.channels)

    def forward(self, audio: Tensor, visual: Tensor) -> Fused:
        """Fuse; both residuals are computed from the streams before fusion."""
        r_audio, r_visual = self.audio(audio, visual), self.visual(visual, audio)
        return Fused(
            audio + self.audio_share(r_audio),
            visual + self.visual_share(r_visual),
            r_audio,
            r_visual,
        )


class StepAttentionSettings(StrictModel):
    """The settings that only ``StepAttention`` has."""

    weighs_loss: bool = Field(
        default=True,
        description="Whether the training loss is that of each time step, weighted with the scores",
    )


class StepAttention(Fusion):
    """TAAF: attention over the time steps of both streams together weights steps and loss.

    ``f[t] = concat(mean_N a[t], mean_N v[t])``, ``s[t] = fc2(tanh(fc1(f[t])))``,
    ``w = T softmax_t(s)``, ``a'[t] = w[t] a[t]``, ``v'[t] = w[t] v[t]``. Temporal attention-guided
    adaptive fusion (arXiv 2505.14535) gives each time step of the fused features a score, and the
    scores weight the steps and the loss. These choices are ours, because we could read no more than
    the abstract: the mean over tokens, the two linear layers with tanh between, the softmax, and
    the factor T, with which equal scores leave the streams unchanged. At the start of a training,
    the scores are nearly equal. The loss is the mean over the steps of ``w[t] CE(logits[t])``
    (`step_cross_entropy`). The paper also changes the learning rate of each modality; strategies
    of balanced training do so for every method.

    Values: the tokens are 0, 1 or 2. The streams after fusion are real numbers from 0 to ``2 T``, 0
    where the token is 0. A weight needs the tokens of all steps, so the network cannot answer
    before the last step of the clip has come.
    Saved for backward: both streams, and vectors for each step and clip.

    Args:
        channels: width C.
        weighs_loss: whether the scores weight the loss too.
    """

    Settings = StepAttentionSettings

    def __init__(self, *, channels: int, weighs_loss: bool = True) -> None:
        super().__init__()
        self.weighs_loss = weighs_loss
        self.mix = published_linear(inputs=2 * channels, outputs=channels)
        self.score = published_linear(inputs=channels, outputs=1)

    @classmethod
    def from_settings(cls, settings: ModelSettings, *, tokens: int | None) -> Self:
        """Build the method from the width C and the settings of its own."""
        return cls(channels=settings.channels, **settings.custom)

    def weights(self, audio: Tensor, visual: Tensor) -> Tensor:
        """Return the weights of the steps, ``[T, B, 1]``; their mean over T is 1."""
        means = torch.cat([token_mean(audio), token_mean(visual)], dim=2)
        scores: Tensor = self.score(torch.tanh(self.mix(means)))
        return len(audio) * torch.softmax(scores, dim=0)

    def forward(self, audio: Tensor, visual: Tensor) -> Fused:
        """Fuse the streams, ``[T, B, C, N]`` each; the results have the dtype of the streams."""
        weights = self.weights(audio, visual)
        factors = weights.to(audio.dtype).unsqueeze(-1)
        new_audio, new_visual = factors * audio, factors * visual
        return Fused(
            new_audio,
            new_visual,
            new_audio,
            new_visual,
            step_weights=weights.squeeze(-1) if self.weighs_loss else None,
        )
