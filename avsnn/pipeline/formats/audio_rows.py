"""A row of the audio cache, computed from a sound file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from avsnn.pipeline.formats.prepare_settings import AudioSettings
    from avsnn.pipeline.media.audio import Sound


def audio_row(file: bytes, key: str, settings: AudioSettings) -> NDArray[np.float32]:
    """Return the audio image ``[1, F, F]`` of a sound file.

    Args:
        file: the bytes of the sound file.
        key: key of the clip; the noise of ``noise_snr`` is drawn from the key.
        settings: the settings of the audio cache.

    Raises:
        MediaError: the sound cannot be decoded, or its STFT would be too large; the message names
            the clip.
    """
    # A command that finds nothing to do need not wait for the import of the decoders.
    from avsnn.pipeline.media.errors import failures_of

    with failures_of(f"the sound of the clip {key}"):
        return audio_image(read_sound(file, key, settings), settings)


def read_sound(file: bytes, key: str, settings: AudioSettings) -> Sound:
    """Decode a sound file, and add the noise of ``noise_snr``."""
    from avsnn.pipeline.media import audio

    sound = audio.read(file)
    if settings.noise_snr is not None:
        sound = audio.add_noise(sound, snr=settings.noise_snr, key=key)
    return sound


def audio_image(sound: Sound, settings: AudioSettings) -> NDArray[np.float32]:
    """Return the image ``[1, size, size]`` of a sound that the networks read; adds no noise."""
    from avsnn.pipeline.media import audio

    return audio.log_image(spectrogram(sound, settings), size=settings.size)


def spectrogram(sound: Sound, settings: AudioSettings) -> NDArray[np.float32]:
    """Return ``[bins, frames]``, the magnitude of the STFT or the power of each mel filter."""
    from avsnn.pipeline.media import audio

    bins = audio.stft_magnitudes(
        sound, sample_rate=settings.sample_rate, n_fft=settings.n_fft, hop=settings.hop
    )
    if settings.n_mels is not None:
        filters = audio.mel_filters(
            sample_rate=settings.sample_rate, n_fft=settings.n_fft, n_mels=settings.n_mels
        )
        bins = filters @ bins**2
    return bins
