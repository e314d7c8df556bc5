"""Reads the samples of sound files: with soundfile, or with PyAV what soundfile reads wrongly."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.media.container_headers import require_whole
from avsnn.pipeline.media.containers import open_container
from avsnn.pipeline.media.errors import MediaError, NoSoundError
from avsnn.pipeline.media.mpeg_frames import is_mp3_without_count

if TYPE_CHECKING:
    import soundfile
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

# Encodings whose samples 16 bits hold without loss.
SUBTYPES_OF_16_BITS = ("PCM_16", "PCM_U8", "PCM_S8", "ULAW", "ALAW", "MS_ADPCM", "IMA_ADPCM")

# Encodings that soundfile reads to the last sample; PyAV reads every other encoding.
SUBTYPES_OF_SOUNDFILE = (
    *SUBTYPES_OF_16_BITS,
    *("PCM_24", "PCM_32", "FLOAT", "DOUBLE", "VORBIS", "OPUS", "MPEG_LAYER_III"),
)

# Sample rates of a recording in Hz. A rate outside is a false header, and would make a short file
# hours long.
MIN_RATE, MAX_RATE = 1_000, 768_000

# A longer sound is no clip. The first limit is in s; the second limit counts the samples of all
# channels, and is an hour of stereo at 48,000 Hz and a little more.
MAX_SECONDS = 3600
MAX_VALUES = 400_000_000

# The last packet of an MP3 may be missing in a whole file, in samples.
TOLERATED_SAMPLES = 2 * 1152

# Formats whose first packet may be the rest of a frame. A tag at the end of an MP3 looks like a
# damaged packet, too.
FORMATS_WITHOUT_START = ("mp3", "mpeg", "mpegts")

# Number of samples that soundfile reads at a time, so that memory grows with the samples that are
# there, not with the number in the header.
SAMPLES_PER_BLOCK = 2**16

# The number that libsndfile gives where a FLAC file does not tell the number of its samples.
UNKNOWN_COUNT = 2**63 - 1


class Samples(NamedTuple):
    """The samples of a sound file.

    Attributes:
        values: the samples ``[n, channels]``, int16, int32 or float32.
        rate: sample rate in Hz.
        promised: number of samples by the header; None where the header gives no number.
    """

    values: NDArray[Any]
    rate: int
    promised: int | None


def read_samples(path: Path) -> Samples:
    """Return all samples of a sound file, or of the first sound of a container.

    Raises:
        MediaError: the file cannot be decoded, is shorter than its header says, or has a sample
            rate or a duration that no recording has.
    """
    import soundfile

    require_whole(path)
    reason = "cannot be decoded"
    tells_count = not is_mp3_without_count(path)
    if tells_count:
        try:
            with soundfile.SoundFile(os.fsencode(path)) as file:
                is_known = file.subtype in SUBTYPES_OF_SOUNDFILE and file.frames != UNKNOWN_COUNT
                if is_known:
                    samples = _read_with_soundfile(file)
                    # libsndfile takes a read error of the disk for the end of the file, and PyAV
                    # does not.
                    is_right = len(samples.values) == samples.promised
                    # A WAV from a pipe may tell a size of 0, which FFmpeg takes for unknown.
                    if is_right and len(samples.values):
                        return samples
        except soundfile.LibsndfileError as error:
            reason = f"cannot be decoded: {error.error_string}"
    samples = _read_with_pyav(path, reason)
    return samples if tells_count else samples._replace(promised=None)


def require_plausible_sound(rate: int, seconds: float) -> None:
    """Refuse a sample rate that no recording has, and a sound longer than an hour.

    Raises:
        MediaError: the rate or the duration is refused.
    """
    if not MIN_RATE <= rate <= MAX_RATE:
        limits = f"{MIN_RATE:,} to {MAX_RATE:,} Hz"
        raise MediaError(f"has a sample rate of {rate:,} Hz, which is outside {limits}")
    if seconds > MAX_SECONDS:
        raise MediaError(f"is longer than {MAX_SECONDS:,} s, which is too long for a clip")


class _Collector:
    """Joins blocks of samples, and refuses a sound that grows too long."""

    def __init__(self, rate: int) -> None:
        require_plausible_sound(rate, 0)
        self.rate = rate
        self._blocks: list[NDArray[Any]] = []
        self._count = 0

    def add(self, block: NDArray[Any]) -> None:
        """Add samples ``[n, channels]``."""
        if self._blocks and block.shape[1] != self._blocks[0].shape[1]:
            raise MediaError("changes its number of channels")
        self._blocks.append(block)
        self._count += len(block)
        require_plausible_sound(self.rate, self._count / self.rate)
        if self._count * block.shape[1] > MAX_VALUES:
            raise MediaError(
                f"holds more than {MAX_VALUES:,} samples, which is too long for a clip"
            )

    def joined(self) -> NDArray[Any]:
        """Return all samples ``[n, channels]``."""
        return np.concatenate(self._blocks) if self._blocks else np.zeros((0, 1), np.int16)


def _read_with_soundfile(file: "soundfile.SoundFile") -> Samples:
    # Floating-point samples stay floating-point: as integers, all samples between -1 and 1 would
    # become 0.
    dtype = {"PCM_24": "int32", "PCM_32": "int32"}.get(file.subtype, "float32")
    dtype = "int16" if file.subtype in SUBTYPES_OF_16_BITS else dtype
    collector = _Collector(file.samplerate)
    if file.format != "MP3":
        require_plausible_sound(file.samplerate, file.frames / file.samplerate)
    while len(block := file.read(SAMPLES_PER_BLOCK, dtype=dtype, always_2d=True)):
        collector.add(block)
    return Samples(collector.joined(), file.samplerate, file.frames)


def _read_with_pyav(path: Path, reason: str) -> Samples:
    """Read the first sound of a file; ``reason`` says what soundfile found wrong."""
    import av

    try:
        with open_container(path) as container:
            if not container.streams.audio:
                raise NoSoundError("has no sound track")
            for stream in container.streams.audio:
                if stream.codec_context is not None:
                    return _read_stream(container, stream)
            raise MediaError("holds no sound of a known codec")
    except av.FFmpegError:
        raise MediaError(reason) from None


def _read_stream(container: "InputContainer", stream: "AudioStream") -> Samples:
    import av

    # A codec checks the checksums in its packets only if asked.
    stream.codec_context.options = {"err_detect": "crccheck+explode"}
    packets = damaged = 0
    collector = None
    for packet in container.demux(stream):
        packets += packet.size > 0
        try:
            frames = packet.decode()
        except av.FFmpegError:
            # Some files end with an empty packet, which no decoder takes.
            damaged += packet.size > 0
            continue
        damaged += any(frame.is_corrupt for frame in frames)
        for frame in frames:
            collector = collector or _Collector(frame.sample_rate)
            if frame.sample_rate != collector.rate:
                raise MediaError("changes its sample rate")
            collector.add(_frame_samples(frame))
    if collector is None:
        raise NoSoundError("holds no audio sample")
    values, promised = collector.joined(), _promised(container, stream, collector.rate)
    if "mov" in container.format.name:
        # The codec fills its last packet with silence.
        values = values[:promised]
    tolerance = 0 if container.format.name == "flac" else TOLERATED_SAMPLES
    is_short = promised is not None and len(values) + tolerance < promised
    starts_anywhere = container.format.name in FORMATS_WITHOUT_START
    if not is_short and damaged > (max(3, 0.05 * packets) if starts_anywhere else 0):
        raise MediaError(f"is corrupt: {damaged} of its {packets} packets cannot be decoded")
    return Samples(values, collector.rate, promised if is_short else None)


def _promised(container: "InputContainer", stream: "AudioStream", rate: int) -> int | None:
    """Return the number of samples by the header; None where FFmpeg guesses, or the header lies."""
    is_told = {"flac", "mp3", "mov"} & set(container.format.name.split(","))
    if not is_told or not stream.duration or stream.time_base is None:
        return None
    promised = round(stream.duration * stream.time_base * rate)
    return promised if promised <= MAX_SECONDS * rate else None


def _frame_samples(frame: "AudioFrame") -> NDArray[Any]:
    """Return the samples of a frame ``[n, channels]`` as int16, int32 or float32."""
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    if values.dtype == np.uint8:
        return (values.astype(np.int16) - 128) << 8
    if values.dtype in (np.int16, np.int32):
        return values
    if np.issubdtype(values.dtype, np.floating):
        return values.astype(np.float32)
    raise MediaError(f"has samples of the format {frame.format.name}, which cannot be read")
