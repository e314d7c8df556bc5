"""The content of ``report/PART-robustness.json``."""

from typing import Literal

from pydantic import Field

from avsnn.datasets_manifest.clips import Modality, Part
from avsnn.pipeline.evaluation.intervals import Share
from avsnn.pydantic_base import StrictModel

NoisyInput = Literal["visual", "audio", "both"]
Filling = Literal["zeros", "silence", "grey", "no events"]


class NoisePoint(StrictModel):
    """The accuracy at one level of noise.

    Attributes:
        snr: signal to noise ratio in dB; None without noise.
        top1: top-1 accuracy, with its interval.
    """

    snr: float | None
    top1: Share


class NoiseCurve(StrictModel):
    """The accuracy over the level of noise.

    Attributes:
        target: which input is noisy.
        points: the clean input first, then the levels from the highest to the lowest SNR.
    """

    target: NoisyInput
    points: list[NoisePoint] = Field(min_length=1)


class MissingModality(StrictModel):
    """The accuracy without one modality.

    Attributes:
        missing: the modality that the network does not get.
        filling: what the network gets instead: zeros at the input of the network; or the input
            of a silent sound, of a grey picture, or of a recording without events.
        top1: top-1 accuracy, with its interval.
    """

    missing: Modality
    filling: Filling
    top1: Share


class SwappedModality(StrictModel):
    """Whom a network follows when each clip gets the sound of a clip of another class.

    Attributes:
        clips: number of clips with a swapped sound.
        follows_audio: share of answers that name the class of the sound.
        follows_visual: share of answers that name the class of the picture.
        follows_neither: share of all other answers.
    """

    clips: int
    follows_audio: Share
    follows_visual: Share
    follows_neither: Share


class Robustness(StrictModel):
    """The content of ``report/PART-robustness.json``.

    Attributes:
        fingerprint: changes with the checkpoint, the data, the part and the version of the code.
        part: the part that was measured.
        clips: number of clips.
        trained_with_noise: SNR in dB of the noise on training frames, the published habit
            (``data.augment.noise_snr``); None if the frames had no noise.
        prepared_with_noise: SNR in dB of the noise that `prepare` added to every waveform
            (``audio.noise_snr``), beneath the noise of the curves; None if `prepare` added none.
        audio_noise: where noise is added to the audio input: to the waveform before the
            spectrogram, or to the event frames that the network reads; None if no curve has a noisy
            audio input.
        curves: the accuracy over the level of noise, one curve for each noisy input.
        missing: the accuracy without one modality; empty for a network of one modality.
        swapped: whom the network follows; None for a network of one modality.
    """

    fingerprint: str
    part: Part
    clips: int
    trained_with_noise: float | None
    prepared_with_noise: float | None
    audio_noise: Literal["waveform", "event frames"] | None
    curves: list[NoiseCurve] = Field(min_length=1)
    missing: list[MissingModality]
    swapped: SwappedModality | None
