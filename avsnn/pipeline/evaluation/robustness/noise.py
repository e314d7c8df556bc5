"""Gaussian noise for the inputs of a network: the levels, and the draws for each clip."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avsnn.pipeline.loading.augment import add_noise
from avsnn.pipeline.loading.batch import EVALUATION_EPOCH
from avsnn.pipeline.loading.order import sample_noise

# Signal to noise ratios in dB, from the least noise to the most noise.
LEVELS = (30.0, 25.0, 20.0, 15.0, 10.0, 5.0, 0.0)

# Every network gets the same noise, whatever the seed of its training is. No training and no
# evaluation draws the noise of these epochs.
SEED = 0
VISUAL_EPOCH, AUDIO_EPOCH = EVALUATION_EPOCH + 1, EVALUATION_EPOCH + 2


def sound_noise(row: int, count: int) -> NDArray[np.float64]:
    """Return white Gaussian noise of power 1 for the waveform of the clip of a row, ``[count]``.

    The power of the draw itself is 1, so that the level is exact also in a short sound.
    """
    drawn = sample_noise(seed=SEED, epoch=AUDIO_EPOCH, rows=np.array([row]), shape=(count,))[0]
    noise: NDArray[np.float64] = drawn.astype(np.float64)
    noise /= np.sqrt(np.mean(np.square(noise)))
    return noise


class InputNoise:
    """Noise for one input of the clips of a batch, the same draw at every level.

    The draw of a clip depends on its row alone: neither the batch nor the order changes the draw.

    Args:
        images: the input without noise, ``[B, C, H, W]``, or with time steps ``[T, B, C, H, W]``.
        rows: row of each clip, ``[B]``.
        epoch: number of the stream of random numbers, one for each modality.
    """

    def __init__(self, images: Tensor, rows: NDArray[np.int64], *, epoch: int) -> None:
        self._images = images
        clips_first = images if images.dim() == 4 else images.transpose(0, 1)
        drawn = sample_noise(seed=SEED, epoch=epoch, rows=rows, shape=tuple(clips_first.shape[1:]))
        # The power of each draw itself is 1, so that the level is exact also on a small image.
        others = tuple(range(1, drawn.ndim))
        drawn /= np.sqrt(np.mean(np.square(drawn, dtype=np.float64), axis=others, keepdims=True))
        noise = torch.from_numpy(drawn)
        # The noise has the memory layout of the images, so the sum has this layout too.
        self._noise = torch.empty_like(images).copy_(
            noise if images.dim() == 4 else noise.transpose(0, 1)
        )

    def add(self, snr: float) -> Tensor:
        """Return the images with noise at a signal to noise ratio in dB over each whole clip."""
        return add_noise(self._images, self._noise, snr=snr)
