"""The fused features of clips in a plane."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from avsnn.models.spikformer import AudioVisualSpikformer
from avsnn.models.watching import watching
from avsnn.pipeline.evaluation.insight.chosen_clips import Clip
from avsnn.pipeline.evaluation.insight.record import EmbeddedClip, Embedding

# t-SNE of fewer clips shows chance, and t-SNE of more clips takes minutes.
LEAST_CLIPS, MOST_CLIPS = 30, 2000
# The value that scikit-learn and the authors of t-SNE propose.
PERPLEXITY = 30.0
SEED = 0


@contextmanager
def watch_features(model: nn.Module) -> Iterator[list[Tensor]]:
    """Record the fused features, which are the input of the head, while the context is open.

    The context yields a list that grows by one tensor ``[B, features]`` with every call of the
    network. The features are means over tokens and time steps.
    """
    holder: Any = model.readout if isinstance(model, AudioVisualSpikformer) else model
    features: list[Tensor] = []

    def keep(_name: str, inputs: tuple[Tensor, ...], _scores: Tensor) -> None:
        features.append(inputs[0].float())

    with watching({"head": holder.head}, keep):
        yield features


def embed(features: NDArray[np.float32], clips: list[Clip]) -> Embedding:
    """Put the features of clips into a plane: by t-SNE for 30 to 2,000 clips, otherwise by PCA.

    Features that are the same for all clips, as of a silent network, go by PCA too. The same
    features always get the same coordinates.

    Args:
        features: ``[N, features]``.
        clips: the clips, in the same order.
    """
    wide = features.astype(np.float64)
    by_tsne = LEAST_CLIPS <= len(wide) <= MOST_CLIPS and bool((wide != wide[0]).any())
    plane = _tsne(wide) if by_tsne else principal_components(wide)
    return Embedding(
        method="t-SNE" if by_tsne else "PCA",
        clips=[
            EmbeddedClip(key=clip.key, truth=clip.truth, answer=clip.answer, x=x, y=y)
            for clip, (x, y) in zip(clips, plane.round(4).tolist(), strict=True)
        ],
    )


def _tsne(features: NDArray[np.float64]) -> NDArray[np.float64]:
    # scikit-learn takes a second to import, and few commands need it.
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    start = principal_components(features)
    start = (start / start[:, 0].std() * 1e-4).astype(np.float32)
    # Several threads add in an order that differs from time to time.
    with threadpool_limits(limits=1):
        plane: NDArray[np.float64] = TSNE(
            perplexity=perplexity, init=start, random_state=SEED, n_jobs=1
        ).fit_transform(features)
    return plane.astype(np.float64)


def principal_components(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the first two principal components, ``[N, 2]``; a component that is missing is 0.

    The sign of a component is free: the largest coordinate in size is made positive.
    """
    centred = features - features.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    scores = (left * sizes)[:, :2]
    largest = np.abs(scores).argmax(0)
    scores *= np.where(np.take_along_axis(scores, largest[None], 0) < 0, -1.0, 1.0)
    return np.pad(scores, ((0, 0), (0, 2 - scores.shape[1])))
