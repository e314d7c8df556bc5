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

# Nothing above it is no recording: ten steps of a 16-bit file. The faintest of 3,000 real spoken
# digits peaks at -40 dBFS.
SILENCE_DBFS = -70.0


# Encodings that 16 bits hold without loss.
SHORT = ("PCM_16", "PCM_U8", "PCM_S8", "ULAW", "ALAW", "MS_ADPCM", "IMA_ADPCM")


class Sound(NamedTuple):
    """Samples ``[n]`` in [-1, 1], mono, and the sample rate in Hz."""

    samples: NDArray[np.float32]
    rate: int

    @property
    def seconds(self) -> float:
        """Duration in s."""
        return len(self.samples) / self.rate


def transcode_to_flac(path: Path) -> tuple[bytes, float, int]:
    """A sound file as FLAC: bytes, duration in s, rate in Hz.

    Bit for bit where it holds integers of up to 24 bits; 24 bits of anything deeper, with
    floating-point samples cut off at [-1, 1].

    Raises:
        MediaError: it cannot be decoded, ends before its header says, holds no sample, or nothing
            above -70 dBFS, or has more channels than 8 or a rate above 655,350 Hz.
    """
    import soundfile

    _refuse_truncated_wav(path)
    buffer = BytesIO()
    try:
        with soundfile.SoundFile(path) as file:
            rate, promised = file.samplerate, file.frames
            # Read as integers, a file of floats would lose everything below 1.
            dtype = {"PCM_24": "int32", "PCM_32": "int32"}.get(file.subtype, "float32")
            dtype = "int16" if file.subtype in SHORT else dtype
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
    """Decodes the bytes of a sound file to mono."""
    import soundfile

    samples, rate = soundfile.read(BytesIO(data), dtype="float32", always_2d=True)
    return Sound(samples.mean(axis=1), rate)


def add_noise(sound: Sound, *, snr: float, key: str) -> Sound:
    """White noise of power ``mean(x ** 2) / 10 ** (snr / 10)``, the same for a key every time.

    Args:
        sound: the recording.
        snr: signal to noise ratio in dB.
        key: of the clip; the noise is drawn from it.
    """
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    noise = np.random.Generator(np.random.Philox(seed)).standard_normal(len(sound.samples))
    power = float(np.mean(np.square(sound.samples, dtype=np.float64))) / 10 ** (snr / 10)
    return Sound((sound.samples + noise * power**0.5).astype(np.float32), sound.rate)


def stft_magnitudes(sound: Sound, *, sample_rate: int, n_fft: int, hop: int) -> NDArray[np.float32]:
    """``|STFT|`` ``[1 + n_fft / 2, frames]`` as published (arXiv 2502.12488, authors' code).

    Resampled to ``sample_rate`` Hz, clamped to [-1, 1], centred Hann window, constant padding.
    """
    import torch

    samples = _resample(sound, sample_rate)
    # half the time of librosa's, which differs in the last bits
    spectrum = torch.stft(
        torch.from_numpy(samples).clamp(-1, 1),
        n_fft=n_fft,
        hop_length=hop,
        window=_window(n_fft),
        pad_mode="constant",
        return_complex=True,
    )
    return np.asarray(np.abs(spectrum.numpy()), np.float32)


def _resample(sound: Sound, rate: int) -> NDArray[np.float32]:
    """What ``librosa.resample`` gives, bit for bit, ``[ceil(n * rate / sound.rate)]``.

    By the library that does it there, as librosa's own needs 3 s and 200 MB for imports in each
    process.
    """
    import soxr

    if sound.rate == rate:
        return sound.samples
    count = math.ceil(len(sound.samples) * (rate / sound.rate))
    samples = soxr.resample(sound.samples, sound.rate, rate)[:count]
    return np.pad(samples, (0, count - len(samples)))


@cache
def _window(n_fft: int) -> "Tensor":
    import torch

    return torch.hann_window(n_fft)


@cache
def mel_filters(*, sample_rate: int, n_fft: int, n_mels: int) -> NDArray[np.float32]:
    """Triangles ``[n_mels, 1 + n_fft / 2]`` on Slaney's mel scale, each of unit area.

    Raises:
        ValueError: one of them is so narrow that no frequency of the STFT falls into it.
    """
    import librosa

    with warnings.catch_warnings(action="ignore"):
        filters = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels)
    if not filters.any(axis=1).all():
        raise ValueError(
            f"of {n_mels} mel filters some hold no frequency of an STFT with n_fft={n_fft} at "
            f"{sample_rate} Hz; take fewer, or a larger n_fft"
        )
    return np.asarray(filters, np.float32)


def log_image(magnitudes: NDArray[np.float32], *, size: int) -> NDArray[np.float32]:
    """``log(x + 1e-7)`` of ``[bins, frames]``, resized bilinearly to ``[1, size, size]``.

    With antialiasing, as published; frequency rises from row 0 down.
    """
    import torch

    image = torch.from_numpy(np.log(magnitudes + 1e-7)).float()
    resized = torch.nn.functional.interpolate(
        image[None, None], size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return np.asarray(resized[0].numpy(), np.float32)


def _require_sound(samples: NDArray[Any], promised: int) -> None:
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


def _refuse_truncated_wav(path: Path) -> None:
    """Libsndfile reads what is left of a cut file without a word; its own header knows better."""
    start = require_content(path)
    size = path.stat().st_size
    if start.startswith(b"RIFF"):
        promised = int.from_bytes(start[4:8], "little")
        # Writers that stream leave 0 or all ones here.
        if promised not in (0, 0xFFFFFFFF) and size < promised + 8:
            raise MediaError(
                f"is truncated: {size} of the {promised + 8} bytes its header promises"
            )
