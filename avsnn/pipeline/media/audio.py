"""Sound files, and the spectrogram image that the networks read."""

import hashlib
import math
import warnings
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.media.checksums import require_flac_digest
from avsnn.pipeline.media.errors import MediaError, NoSoundError
from avsnn.pipeline.media.sound_files import Samples, read_samples, require_plausible_sound

if TYPE_CHECKING:
    from torch import Tensor

# A sound whose peak is below this level is no recording. The level is ten steps of a 16-bit file;
# the faintest of 3,000 real spoken digits peaks at -40 dBFS.
SILENCE_DBFS = -70.0
SILENCE_PEAK = 10 ** (SILENCE_DBFS / 20)

# Loud floating-point recordings pass full scale (1) by some dB. A peak of 20 dB above full scale
# means integers that a program wrote as floating-point numbers, for instance up to 32,767.
MAX_FLOAT_PEAK = 10.0

# Number of values of an STFT, of 8 bytes each. An hour of sound has 58 million by default.
MAX_STFT_VALUES = 2**28


class Sound(NamedTuple):
    """A mono sound.

    Attributes:
        samples: the samples ``[n]`` in [-1, 1].
        rate: sample rate in Hz.
    """

    samples: NDArray[np.float32]
    rate: int

    @property
    def seconds(self) -> float:
        """Duration in s."""
        return len(self.samples) / self.rate


def transcode_to_flac(path: Path) -> tuple[bytes, float, int]:
    """Return a sound file, or the sound of a video, as FLAC: bytes, duration in s, rate in Hz.

    The samples stay bit for bit where the file holds integers of up to 24 bits. Deeper samples
    become 24 bits, and floating-point samples are cut off at [-1, 1].

    Raises:
        MediaError: the file cannot be decoded, ends earlier than its header says, holds no sample
            or nothing above -70 dBFS, is longer than an hour, or has a rate or a number of channels
            that FLAC cannot hold.
    """
    sound = read_samples(path)
    require_sound(sound)
    require_flac_digest(path, sound.values)
    return encode_flac(sound)


def encode_flac(sound: Samples) -> tuple[bytes, float, int]:
    """Return samples as FLAC, as `transcode_to_flac` does: bytes, duration in s, rate in Hz.

    Raises:
        MediaError: the samples have a rate or a number of channels that FLAC cannot hold.
    """
    import soundfile

    samples, rate, _ = sound
    subtype = "PCM_16" if samples.dtype == np.int16 else "PCM_24"
    buffer = BytesIO()
    try:
        soundfile.write(buffer, samples, rate, subtype=subtype, format="FLAC")
    except soundfile.LibsndfileError:
        what = f"{samples.shape[1]} channels at {rate:,} Hz"
        raise MediaError(f"has {what}, which FLAC cannot hold") from None
    return buffer.getvalue(), len(samples) / rate, rate


def read(data: bytes) -> Sound:
    """Decode the bytes of a sound file, and return the mean of all channels.

    Raises:
        MediaError: the header declares a rate or a duration that no recording has.
    """
    import soundfile

    with soundfile.SoundFile(BytesIO(data)) as file:
        require_plausible_sound(file.samplerate, file.frames / max(1, file.samplerate))
        samples = file.read(dtype="float32", always_2d=True)
        return Sound(samples.mean(axis=1), file.samplerate)


def add_noise(sound: Sound, *, snr: float, key: str) -> Sound:
    """Return the sound with white noise of power ``mean(x ** 2) / 10 ** (snr / 10)``.

    Args:
        sound: the recording.
        snr: signal-to-noise ratio in dB.
        key: key of the clip; the same key gives the same noise every time.
    """
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    noise = np.random.Generator(np.random.Philox(seed)).standard_normal(len(sound.samples))
    return mix(sound, noise, snr=snr)


def mix(sound: Sound, noise: NDArray[np.float64], *, snr: float) -> Sound:
    """Return the sound with noise of power ``mean(x ** 2) / 10 ** (snr / 10)``.

    The mean is taken over the whole sound. The samples of the result may pass [-1, 1].

    Args:
        sound: the recording.
        noise: noise of power 1, ``[n]``.
        snr: signal to noise ratio in dB.
    """
    power = float(np.mean(np.square(sound.samples, dtype=np.float64))) / 10 ** (snr / 10)
    return Sound((sound.samples + noise * power**0.5).astype(np.float32), sound.rate)


def resample(sound: Sound, rate: int) -> Sound:
    """Return what ``librosa.resample`` gives, bit for bit, ``[ceil(n * rate / sound.rate)]``.

    ``librosa.resample`` calls soxr; this function calls soxr directly, because ``librosa.resample``
    needs 3 s and 200 MB for imports in each process.
    """
    import soxr

    if sound.rate == rate:
        return sound
    count = math.ceil(len(sound.samples) * (rate / sound.rate))
    samples = soxr.resample(sound.samples, sound.rate, rate)[:count]
    return Sound(np.pad(samples, (0, count - len(samples))), rate)


def stft_magnitudes(sound: Sound, *, sample_rate: int, n_fft: int, hop: int) -> NDArray[np.float32]:
    """Return ``|STFT|`` ``[1 + n_fft / 2, frames]`` as published (arXiv 2502.12488, authors' code).

    The sound is resampled to ``sample_rate`` Hz and clamped to [-1, 1]. The Hann window is centred,
    and the padding is constant.

    Raises:
        MediaError: the STFT would have more than 268 million values.
    """
    import torch

    _require_small_stft(sound, sample_rate, n_fft, hop)
    samples = resample(sound, sample_rate).samples
    # The STFT of PyTorch takes half the time of the STFT of librosa; the last bits differ.
    spectrum = torch.stft(
        torch.from_numpy(samples).clamp(-1, 1),
        n_fft=n_fft,
        hop_length=hop,
        window=_hann_window(n_fft),
        pad_mode="constant",
        return_complex=True,
    )
    return np.asarray(np.abs(spectrum.numpy()), np.float32)


@cache
def mel_filters(*, sample_rate: int, n_fft: int, n_mels: int) -> NDArray[np.float32]:
    """Return triangles ``[n_mels, 1 + n_fft / 2]`` on Slaney's mel scale, each of unit area.

    Raises:
        ValueError: a triangle is so narrow that no frequency of the STFT falls into the triangle.
    """
    import librosa

    # The warning of librosa says the same as the error below.
    with warnings.catch_warnings(action="ignore"):
        filters = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels)
    if not filters.any(axis=1).all():
        raise ValueError(
            f"of {n_mels} mel filters some hold no frequency of an STFT with n_fft={n_fft} at "
            f"{sample_rate} Hz; take fewer, or a larger n_fft"
        )
    return np.asarray(filters, np.float32)


def mel_frequencies(*, sample_rate: int, n_mels: int) -> NDArray[np.float64]:
    """Return the frequencies in Hz ``[n_mels]`` of the peaks of `mel_filters`."""
    import librosa

    # The first frequency and the last one are the feet of the outermost triangles.
    edges = librosa.mel_frequencies(n_mels=n_mels + 2, fmin=0, fmax=sample_rate / 2)
    return np.asarray(edges[1:-1], np.float64)


def log_image(magnitudes: NDArray[np.float32], *, size: int) -> NDArray[np.float32]:
    """Return ``log(x + 1e-7)`` of ``[bins, frames]``, resized to ``[1, size, size]``.

    The interpolation is bilinear with antialiasing, as published. Row 0 is the lowest frequency.
    """
    import torch

    image = torch.from_numpy(np.log(magnitudes + 1e-7)).float()
    resized = torch.nn.functional.interpolate(
        image[None, None], size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return np.asarray(resized[0].numpy(), np.float32)


def require_sound(sound: Samples) -> None:
    """Refuse samples ``[n, channels]`` that are fewer than promised, or hold no sound.

    Raises:
        NoSoundError: there are no samples, or the samples are silence.
        MediaError: samples are missing, are no numbers or are far too loud.
    """
    samples, _, promised = sound
    if not len(samples):
        raise NoSoundError("holds no audio sample")
    if promised is not None and len(samples) < promised:
        raise MediaError(f"is truncated: {len(samples)} of the {promised} samples it promises")
    is_integer = np.issubdtype(samples.dtype, np.integer)
    full_scale = -float(np.iinfo(samples.dtype).min) if is_integer else 1.0
    peak = _peak(samples) / full_scale
    if not math.isfinite(peak):
        raise MediaError("holds samples that are no numbers")
    if not peak:
        raise NoSoundError("is digital silence from start to end")
    if peak > MAX_FLOAT_PEAK:
        raise MediaError(
            f"holds samples up to {math.floor(peak):,}, where floating-point sound ends at 1"
        )
    if peak < SILENCE_PEAK:
        level = 20 * math.log10(peak)
        raise NoSoundError(f"is silent: its peak is {level:.0f} dBFS, below {SILENCE_DBFS:.0f}")
    mixed = samples[:, 0]
    if samples.shape[1] > 1:
        # The networks hear the mean of all channels.
        mixed = samples.mean(axis=1, dtype=np.float32)
        mean = _peak(mixed) / full_scale
        if mean < SILENCE_PEAK:
            mixed_level = f"{20 * math.log10(mean):.0f} dBFS" if mean else "0"
            raise NoSoundError(
                f"is silent when its channels are mixed: the peak of their mean is {mixed_level}, "
                f"below {SILENCE_DBFS:.0f} dBFS"
            )
    # A microphone that hears nothing may still give a constant voltage. A codec makes a click of
    # the jump to the voltage at both ends.
    inner = mixed[len(mixed) // 10 : len(mixed) - len(mixed) // 10]
    offset = float(inner.mean(dtype=np.float64)) / full_scale
    swing = (float(inner.max()) - float(inner.min())) / 2 / full_scale
    if swing < SILENCE_PEAK <= abs(offset):
        raise NoSoundError(
            f"is silent: all its samples are close to the constant value {offset:.3f}"
        )


def _peak(samples: NDArray[Any]) -> float:
    """Return the largest absolute value."""
    return max(float(samples.max()), -float(samples.min()))


def _require_small_stft(sound: Sound, sample_rate: int, n_fft: int, hop: int) -> None:
    """Refuse an STFT that would need more memory than a worker has."""
    values = (1 + n_fft // 2) * (1 + int(sound.seconds * sample_rate / hop))
    if values > MAX_STFT_VALUES:
        raise MediaError(
            f"lasts {sound.seconds:,.0f} s, so its STFT would have {values:,} values, and the "
            f"limit is {MAX_STFT_VALUES:,}; a larger hop gives fewer"
        )


@cache
def _hann_window(n_fft: int) -> "Tensor":
    import torch

    return torch.hann_window(n_fft)
