"""The settings that decide the bytes of shards and caches."""

import shlex
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from avsnn.pipeline.settings_overrides import assignments
from avsnn.pydantic_base import StrictModel

MAX_FRAMES = 100_000

# Where nobody chose `clips_per_shard`: the number of clips in a shard is between these numbers, and
# a data set has at least so many shards that all workers of a large machine have work.
FEWEST_CLIPS, MOST_CLIPS, SHARDS_FOR_WORKERS = 128, 16_384, 64


class ExtractSettings(StrictModel):
    """What a shard holds of each clip."""

    frames: int | str = Field(
        default="1fps",
        description="Frames of each video: 1fps keeps one frame per second, as published; a number "
        "keeps that many frames, spread evenly over the video",
    )
    jpeg_quality: int = Field(
        default=95,
        ge=1,
        le=100,
        description="Quality of the JPEG files of video frames, from 1 to 100; images stay as "
        "published",
    )
    shard_bytes: int = Field(
        default=256_000_000,
        ge=1,
        le=10**15,
        description="Bytes of the files, as published, whose clips are one shard, at most",
    )
    clips_per_shard: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Number of clips in a shard, at most; unset takes 128, or more where the data "
        "set is so large that it has at least 64 shards all the same",
    )

    @field_validator("frames")
    @classmethod
    def _require_known_rule(cls, value: int | str) -> int | str:
        if value != "1fps" and not (isinstance(value, int) and 1 <= value <= MAX_FRAMES):
            raise ValueError(
                f"the value must be 1fps or a number of frames, from 1 to {MAX_FRAMES:,}"
            )
        return value

    def largest_shard(self, clips: int) -> int:
        """Return the number of clips in a shard, at most.

        Args:
            clips: number of clips of the data set.
        """
        if self.clips_per_shard is not None:
            return self.clips_per_shard
        largest = FEWEST_CLIPS
        while 2 * largest <= MOST_CLIPS and clips >= SHARDS_FOR_WORKERS * 2 * largest:
            largest *= 2
        return largest


class FrameSettings(StrictModel):
    """What the frame cache holds of each frame."""

    shorter_side: int = Field(
        default=256,
        ge=16,
        le=8192,
        description="Shorter side of a cached frame in px; larger frames are shrunk to this size, "
        "smaller frames keep their size",
    )


class AudioSettings(StrictModel):
    """The audio image of each clip in the audio cache; the defaults are the published values.

    ``log-stft`` is ``log(|STFT| + 1e-7)``, and ``log-mel`` is ``log(M |STFT|^2 + 1e-7)``, where
    ``M`` is the matrix of ``n_mels`` mel filters.
    """

    kind: Literal["log-stft", "log-mel"] = Field(
        default="log-stft",
        description="Kind of audio image: log of the STFT's magnitude (published), or log of the "
        "mel power spectrum",
    )
    sample_rate: int = Field(
        default=22050,
        ge=1000,
        le=1_000_000,
        description="Sample rate in Hz to which the sound is resampled (published: 22050)",
    )
    n_fft: int = Field(
        default=512,
        ge=16,
        le=1_000_000,
        description="Length of a window of the STFT in samples (published: 512)",
    )
    hop: int = Field(
        default=353,
        ge=1,
        le=10_000_000,
        description="Distance between two windows of the STFT in samples (published: 353)",
    )
    n_mels: int | None = Field(
        default=None,
        ge=8,
        le=8192,
        description="Number of mel filters, for example 64; set for log-mel only",
    )
    size: int = Field(
        default=128,
        ge=16,
        le=4096,
        description="Height and width of the audio image in px (published: 128)",
    )
    noise_snr: float | None = Field(
        default=None,
        ge=-100,
        le=100,
        description="Signal to noise ratio in dB of white noise that is added to the waveform of "
        "every clip, to compare methods under noise; unset adds no noise, as published",
    )

    @model_validator(mode="after")
    def _require_n_mels_for_log_mel(self) -> "AudioSettings":
        if (self.kind == "log-mel") != (self.n_mels is not None):
            raise ValueError(
                "n_mels goes with kind=log-mel; set both (n_mels to 64, for example) or neither"
            )
        if self.n_mels is not None:
            # Only log-mel needs this module, so other settings do not wait for the import.
            from avsnn.pipeline.media import audio

            audio.mel_filters(sample_rate=self.sample_rate, n_fft=self.n_fft, n_mels=self.n_mels)
        return self


class EventSettings(StrictModel):
    """How the events of a clip become event frames, one for each time step."""

    steps: int = Field(
        default=16,
        ge=1,
        le=1024,
        description="Number T of time bins, and so of event frames, of each clip; a network needs "
        "the same model.steps (published: 16 and 64)",
    )
    bins: Literal["time", "count"] = Field(
        default="time",
        description="Time bins that are equally long (time, as published), or that hold equally "
        "many events (count)",
    )
    downsample: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Number of rows and of columns of the event camera that become one",
    )
    crop: int | None = Field(
        default=28,
        ge=4,
        le=4096,
        description="Side in px of the square around the centre of the events that is kept, after "
        "the downsampling (published size: 28); unset keeps all that the camera sees",
    )


class PrepareSettings(StrictModel):
    """All settings that change what is prepared."""

    extract: ExtractSettings = Field(
        default=ExtractSettings(), description="What a shard holds of each clip"
    )
    frames: FrameSettings = Field(
        default=FrameSettings(), description="What the frame cache holds of each frame"
    )
    audio: AudioSettings = Field(
        default=AudioSettings(), description="The audio image of each clip"
    )
    events: EventSettings = Field(
        default=EventSettings(),
        description="How events become event frames, in data sets of event sensors",
    )
    limit: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000,
        description="Number of clips to prepare, with the same share of every part and class; "
        "unset prepares all clips",
    )


def prepare_command(dataset: str, settings: PrepareSettings, root: Path | None = None) -> str:
    """Return the command that prepares a data set with some settings.

    Args:
        dataset: name of the data set.
        settings: the settings.
        root: folder of the data sets; None, and the folder of the command itself, are not named.
    """
    words = ["avsnn", "prepare", dataset]
    if root is not None and root.resolve() != Path("data").resolve():
        words += ["--root", str(root)]
    if settings.limit is not None:
        words += ["--limit", str(settings.limit)]
    return shlex.join([*words, *assignments(settings, without=("limit",))])
