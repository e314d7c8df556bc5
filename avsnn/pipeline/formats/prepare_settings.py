"""Settings that decide the bytes of shards and caches."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from avsnn.strict_model import StrictModel


class ExtractSettings(StrictModel):
    """What of a clip goes into its shard."""

    frames: int | str = Field(
        default="1fps",
        description="one frame per second, as published, or that many, spread over the clip",
    )
    jpeg_quality: int = Field(default=95, ge=1, le=100)
    clips_per_shard: int = Field(default=128, ge=1)

    @field_validator("frames")
    @classmethod
    def _is_rule(cls, value: int | str) -> int | str:
        if value != "1fps" and not (isinstance(value, int) and value >= 1):
            raise ValueError("it is 1fps, or a number of frames from 1 up")
        return value


class FrameSettings(StrictModel):
    """The cached frames."""

    shorter_side: int = Field(
        default=256, ge=16, description="px; larger frames are shrunk to it, smaller ones kept"
    )


class AudioSettings(StrictModel):
    """The cached image of the sound; the defaults are the published ones.

    ``log-stft`` is ``log(|STFT| + 1e-7)``, ``log-mel`` is ``log(M |STFT|^2 + 1e-7)`` with
    ``n_mels`` mel filters ``M``.
    """

    kind: Literal["log-stft", "log-mel"] = "log-stft"
    sample_rate: int = Field(default=22050, ge=1000, description="Hz")
    n_fft: int = Field(default=512, ge=16)
    hop: int = Field(default=353, ge=1, description="samples")
    n_mels: int | None = Field(default=None, ge=8, description="of log-mel, say 64")
    size: int = Field(default=128, ge=16, description="px, height and width")
    noise_snr: float | None = Field(
        default=None,
        description="dB; white noise added to the waveform of every clip, to compare methods on it",
    )

    @model_validator(mode="after")
    def _goes_together(self) -> "AudioSettings":
        if (self.kind == "log-mel") != (self.n_mels is not None):
            raise ValueError("n_mels goes with kind=log-mel, and log-mel with n_mels (64, say)")
        if self.n_mels is not None:
            from avsnn.pipeline.media import audio

            audio.mel_filters(sample_rate=self.sample_rate, n_fft=self.n_fft, n_mels=self.n_mels)
        return self


class PrepareSettings(StrictModel):
    """Everything that changes what is prepared."""

    extract: ExtractSettings = ExtractSettings()
    frames: FrameSettings = FrameSettings()
    audio: AudioSettings = AudioSettings()
    limit: int | None = Field(default=None, ge=1, description="that many clips, evenly chosen")
