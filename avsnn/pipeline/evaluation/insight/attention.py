"""The cross-modal attention of chosen clips, as grids of tokens."""

import math

import numpy as np
import torch
from torch import Tensor

from avsnn.models.attention_maps import attention_by_keys, token_attention
from avsnn.pipeline.evaluation.insight.chosen_clips import Clip
from avsnn.pipeline.evaluation.insight.record import AttentionMap
from avsnn.pipeline.inference.open_part import OpenPart


def attention_maps(opened: OpenPart, clips: list[Clip]) -> list[AttentionMap]:
    """Return where the attention of some clips looks.

    Returns:
        the empty list for a network without cross-modal attention over tokens.
    """
    if not attention_by_keys(opened.model):
        return []
    with token_attention(opened.model) as maps:
        opened.scores(rows=np.array([clip.row for clip in clips]))
    frames, spectrograms = (torch.cat(maps[stream]).cpu() for stream in ("visual", "audio"))
    return [
        AttentionMap(
            key=clip.key,
            truth=clip.truth,
            answer=clip.answer,
            frame=_grid(frame),
            spectrogram=_grid(spectrogram),
        )
        for clip, frame, spectrogram in zip(clips, frames, spectrograms, strict=True)
    ]


def _grid(shares: Tensor) -> list[list[float]]:
    """Return the share of each token ``[N]`` as rows and columns; inputs are squares."""
    side = math.isqrt(len(shares))
    rows: list[list[float]] = shares.view(side, side).tolist()
    return [[round(share, 6) for share in row] for row in rows]
