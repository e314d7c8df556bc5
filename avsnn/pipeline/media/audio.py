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

from avsnn.pipeline.media.errors import MediaError, require_content

if TYPE_CHECKING:
    from torch import Tensor

# A sound whose peak is below this level is no recording. The level is ten steps of a 16-bit file;
# the faintest of 3,000 real spoken digits peaks at -40 dBFS.
SILENCE_DBFS = -70.0

# Encodings whose samples 16 bits hold without loss.
SUBTYPES_OF_16_BITS = ("PCM_16", "PCM_U8", "PCM_S8", "ULAW", "ALAW", "MS_ADPCM", "IMA_ADPCM")


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
    """Return a sound file as FLAC: bytes, duration in s, sample rate in Hz.

    The samples stay bit for bit where the file holds integers of up to 24 bits. Deeper samples
    become 24 bits, and floating-point samples are cut off at [-1, 1].

    Raises:
        MediaError: the file cannot be decoded, ends earlier than its header says, holds no sample
            or nothing above -70 dBFS, or has more than 8 channels or a rate above 655,350 Hz.
    """
    import soundfile

    _require_whole_wav(path)
    buffer = BytesIO()
    try:
        with soundfile.SoundFile(path) as file:
            rate, promised = file.samplerate, file.frames
            # Floating-point samples stay floating-point: as integers, all samples between -1 and 1
            # would become 0.
            dtype = {"PCM_24": "int32", "PCM_32": "int32"}.get(file.subtype, "float32")
            dtype = "int16" if file.subtype in SUBTYPES_OF_16_BITS else dtype
            samples = file.read(dtype=dtype, always_2d=True)
    except soundfile.LibsndfileError as error:
        raise MediaError(f"cannot be decoded: {error.error_string}") from None
    _require_sound(samples, promised)
    subtype = "PCM_16" if dtype == "int16" else "PCM_24"
    try:
        soundfile.write(buffer, samples, rate, subtype=subtype, format="FLAC")
    except soundfile.LibsndfileError:
        what = f"{samples.shape[1]} channels at {rate:,} Hz"
        raise MediaError(f"has {what}, which FLAC cannot hold") from None
    return buffer.getvalue(), len(samples) / rate, rate


def read(data: bytes) -> Sound:
    """Decode the bytes of a sound file, and return the mean of all channels."""
    import soundfile

    samples, rate = soundfile.read(BytesIO(data), dtype="float32", always_2d=True)
    return Sound(samples.mean(axis=1), rate)


def add_noise(sound: Sound, *, snr: float, key: str) -> Sound:
    """Return the sound with white noise of power ``mean(x ** 2) / 10 ** (snr / 10)``.

    Args:
        sound: the recording.
        snr: signal-to-noise ratio in dB.
        key: key of the clip; the same key gives the same noise every time.
    """
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    noise = np.random.Generator(np.random.Philox(seed)).standard_normal(len(sound.samples))
    power = float(np.mean(np.square(sound.samples, dtype=np.float64))) / 10 ** (snr / 10)
    return Sound((sound.samples + noise * power**0.5).astype(np.float32), sound.rate)


def stft_magnitudes(sound: Sound, *, sample_rate: int, n_fft: int, hop: int) -> NDArray[np.float32]:
    """Return ``|STFT|`` ``[1 + n_fft / 2, frames]`` as published (arXiv 2502.12488, authors' code).

    The sound is resampled to ``sample_rate`` Hz and clamped to [-1, 1]. The Hann window is centred,
    and the padding is constant.
    """
    import torch

    samples = _resample(sound, sample_rate)
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


def _require_whole_wav(path: Path) -> None:
    """Refuse a WAV file that is shorter than its header says.

    Libsndfile reads what is left of a cut file without an error.
    """
    start = require_content(path)
    size = path.stat().st_size
    if start.startswith(b"RIFF"):
        promised = int.from_bytes(start[4:8], "little")
        # Programs that write a stream do not know the size, and leave 0 or all ones here.
        if promised not in (0, 0xFFFFFFFF) and size < promised + 8:
            raise MediaError(
                f"is truncated: {size} of the {promised + 8} bytes its header promises"
            )


def _require_sound(samples: NDArray[Any], promised: int) -> None:
    """Refuse samples ``[n, channels]`` that are fewer than promised, or hold no sound."""
    if not len(samples):
        raise MediaError("holds no audio sample")
    if len(samples) < promised:
        raise MediaError(f"is truncated: {len(samples)} of the {promised} samples it promises")
    is_integer = np.issubdtype(samples.dtype, np.integer)
    full_scale = -float(np.iinfo(samples.dtype).min) if is_integer else 1.0
    peak = max(float(samples.max()), -float(samples.min())) / full_scale
    if not math.isfinite(peak):
        raise MediaError("holds samples that are no numbers")
    if not peak:
        raise MediaError("is digital silence from start to end")
    if peak < 10 ** (SILENCE_DBFS / 20):
        level = 20 * math.log10(peak)
        raise MediaError(f"is silent: its peak is {level:.0f} dBFS, below {SILENCE_DBFS:.0f}")


def _resample(sound: Sound, rate: int) -> NDArray[np.float32]:
    """Return what ``librosa.resample`` gives, bit for bit, ``[ceil(n * rate / sound.rate)]``.

    ``librosa.resample`` calls soxr; this function calls soxr directly, because ``librosa.resample``
    needs 3 s and 200 MB for imports in each process.
    """
    import soxr

    if sound.rate == rate:
        return sound.samples
    count = math.ceil(len(sound.samples) * (rate / sound.rate))
    samples = soxr.resample(sound.samples, sound.rate, rate)[:count]
    return np.pad(samples, (0, count - len(samples)))


@cache
def _hann_window(n_fft: int) -> "Tensor":
    import torch

    return torch.hann_window(n_fft)
