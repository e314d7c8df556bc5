"""Sound files, and the spectrogram image that the networks read."""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.media import MediaError, refuse_stub


class Sound(NamedTuple):
    """Samples ``[n]`` in [-1, 1], mono, and the sample rate in Hz."""

    samples: NDArray[np.float32]
    rate: int

    @property
    def seconds(self) -> float:
        """Duration in s."""
        return len(self.samples) / self.rate


def transcode_to_flac(path: Path) -> tuple[bytes, float, int]:
    """A sound file as FLAC, bit for bit up to 24-bit integers: bytes, duration in s, rate in Hz.

    Floating-point samples are cut off at [-1, 1].

    Raises:
        MediaError: it cannot be decoded, ends before its header says, holds no sample, is digital
            silence throughout, or has more channels than 8 or a rate above 655,350 Hz.
    """
    import soundfile

    _refuse_truncated_wav(path)
    try:
        subtype = soundfile.info(path).subtype
        # Read as integers, samples of floating point would not be scaled but rounded to -1, 0, 1.
        kind = "float64" if subtype in ("FLOAT", "DOUBLE") else "int32"
        samples, rate = soundfile.read(path, dtype=kind, always_2d=True)
    except soundfile.LibsndfileError as error:
        raise MediaError(f"cannot be decoded: {error.error_string}") from None
    if not len(samples):
        raise MediaError("holds no audio sample")
    if not samples.any():
        raise MediaError("is digital silence from start to end")
    # FLAC holds 24 bits at most; 16 lose nothing of a 16-bit file and half the bytes.
    depth = "PCM_16" if subtype in ("PCM_16", "PCM_U8", "PCM_S8") else "PCM_24"
    buffer = BytesIO()
    try:
        soundfile.write(buffer, samples, rate, subtype=depth, format="FLAC")
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


def log_stft_image(
    sound: Sound, *, sample_rate: int, n_fft: int, hop: int, size: int
) -> NDArray[np.float32]:
    """The published audio image ``[1, size, size]`` (arXiv 2502.12488, authors' code).

    Resampled to ``sample_rate`` Hz, clamped to [-1, 1], centred Hann STFT with constant padding,
    ``log(|STFT| + 1e-7)``, then resized bilinearly with antialiasing.
    """
    import librosa
    import torch

    samples = librosa.resample(sound.samples, orig_sr=sound.rate, target_sr=sample_rate)
    spectrum = librosa.stft(
        np.clip(samples, -1, 1), n_fft=n_fft, hop_length=hop, center=True, pad_mode="constant"
    )
    image = torch.from_numpy(np.log(np.abs(spectrum) + 1e-7)).float()
    resized = torch.nn.functional.interpolate(
        image[None, None], size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return np.asarray(resized[0].numpy(), np.float32)


def _refuse_truncated_wav(path: Path) -> None:
    """Libsndfile reads what is left of a cut file without a word; its own header knows better."""
    start = refuse_stub(path)
    size = path.stat().st_size
    if start.startswith(b"RIFF"):
        promised = int.from_bytes(start[4:8], "little")
        # Writers that stream leave 0 or all ones here.
        if promised not in (0, 0xFFFFFFFF) and size < promised + 8:
            raise MediaError(
                f"is truncated: {size} of the {promised + 8} bytes its header promises"
            )
