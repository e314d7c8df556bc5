"""Audio images of noisy sounds: the noise is added to the waveform, before the spectrogram."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.engine.children import usable_cores
from avsnn.pipeline.evaluation.robustness.noise import sound_noise
from avsnn.pipeline.formats.audio_rows import audio_image, read_sound
from avsnn.pipeline.formats.damaged import damaged_error
from avsnn.pipeline.formats.prepare_settings import AudioSettings
from avsnn.pipeline.loading.dataset import open_source
from avsnn.pipeline.loading.shard_source import ShardSource
from avsnn.pipeline.media.audio import Sound, mix, resample
from avsnn.pipeline.media.errors import MediaError, failures_of
from avsnn.pipeline.runs.config import RunConfig


def noisy_waveforms(sound: Sound, row: int, levels: Sequence[float]) -> Iterator[Sound]:
    """Yield a sound with white Gaussian noise at each level, the same draw at every level.

    A silent sound stays silent, because the noise has a share of the power of the sound.

    Args:
        sound: the sound at the sample rate of the spectrogram. Noise that is added before the
            resampling would lose the part above the new highest frequency, so the spectrogram
            would have less noise than the level says.
        row: row of the clip.
        levels: signal to noise ratios in dB, over the whole sound.
    """
    noise = sound_noise(row, len(sound.samples))
    for snr in levels:
        yield mix(sound, noise, snr=snr)


def silent_image(settings: AudioSettings) -> NDArray[np.float32]:
    """Return the audio image ``[1, F, F]`` of a second of digital silence."""
    silence = np.zeros(settings.sample_rate, np.float32)
    return audio_image(Sound(silence, settings.sample_rate), settings)


class NoisySounds:
    """Computes the audio images of the noisy sounds of a run's clips.

    Args:
        source: the shards, which hold the sounds.
        settings: the settings of the audio cache.
        threads: compute the images.
    """

    def __init__(
        self, source: ShardSource, settings: AudioSettings, threads: ThreadPoolExecutor
    ) -> None:
        self._source = source
        self._settings = settings
        self._threads = threads

    def images(
        self, rows: NDArray[np.int64], levels: Sequence[float]
    ) -> dict[float, NDArray[np.float32]]:
        """Return the audio images ``[B, 1, F, F]`` of the clips of some rows, by level in dB.

        Args:
            rows: row of each clip, ``[B]``.
            levels: signal to noise ratios in dB.

        Raises:
            UserError: a shard is missing or damaged, or cannot be read.
        """
        files = self._source.read_sounds(rows)
        compute = partial(self._images_of_clip, levels)
        images = np.stack(list(self._threads.map(compute, rows.tolist(), files)))
        return {snr: images[:, number] for number, snr in enumerate(levels)}

    def _images_of_clip(
        self, levels: Sequence[float], row: int, file: bytes
    ) -> NDArray[np.float32]:
        """Return the audio images of one clip at every level, ``[levels, 1, F, F]``."""
        key, settings = str(self._source.keys[row]), self._settings
        try:
            with failures_of(f"the sound of the clip {key}"):
                sound = resample(read_sound(file, key, settings), settings.sample_rate)
                noisy = noisy_waveforms(sound, row, levels)
                return np.stack([audio_image(one, settings) for one in noisy])
        except MediaError as error:
            raise damaged_error(self._source.shard_of(row), str(error)) from None


@contextmanager
def open_sounds(config: RunConfig) -> Iterator[NoisySounds]:
    """Open the sounds of a run's clips while the context is open.

    Raises:
        UserError: there are no shards, a shard is damaged, or the data have changed.
    """
    source = open_source(config, shards=True)
    assert isinstance(source, ShardSource)  # noqa: S101 - narrows the type
    with ThreadPoolExecutor(usable_cores()) as threads:
        yield NoisySounds(source, config.data.settings.audio, threads)
