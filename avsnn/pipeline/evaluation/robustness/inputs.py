"""The inputs of a network under each condition, batch by batch."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avsnn.pipeline.evaluation.robustness.conditions import Condition, Missing, Noisy, Swapped
from avsnn.pipeline.evaluation.robustness.noise import AUDIO_EPOCH, LEVELS, VISUAL_EPOCH, InputNoise
from avsnn.pipeline.evaluation.robustness.noisy_sound import NoisySounds, open_sounds, silent_image
from avsnn.pipeline.inference.inputs import network_inputs
from avsnn.pipeline.inference.open_part import OpenPart
from avsnn.pipeline.loading.augment import crop_and_normalise, resize_audio
from avsnn.pipeline.loading.augment_events import crop_and_normalise_events, whole_event_frames
from avsnn.pipeline.loading.order import BatchRequest
from avsnn.pipeline.loading.per_step import audio_inputs
from avsnn.pipeline.runs.sample_shapes import is_events
from avsnn.pipeline.runs.train_settings import TrainSettings

# Grey level of the picture that stands for a missing picture: the middle of 0 to 255.
GREY = 128


class Inputs(NamedTuple):
    """All that the inputs of a batch are made of, in the memory layout of the network's inputs.

    Attributes:
        audio: the audio input without noise, ``[B, 1, S, S]`` or ``[T, B, 1, S, S]``.
        frames: the visual input without noise, ``[B, C, S, S]`` or ``[T, B, C, S, S]``.
        noisy_audio: the noisy audio input at each level in dB; empty if no condition needs this.
        visual_noise: adds noise to the visual input; None if no condition needs this.
        other_audio: the audio input of clips of other classes; None if no condition needs this.
        fillings: the input, of any shape that broadcasts, for each missing modality.
    """

    audio: Tensor
    frames: Tensor
    noisy_audio: dict[float, Tensor]
    visual_noise: InputNoise | None
    other_audio: Tensor | None
    fillings: dict[Missing, Tensor]

    def under(self, condition: Condition) -> tuple[Tensor, Tensor]:
        """Return the audio input and the visual input of the network under a condition."""
        audio, frames = self.audio, self.frames
        match condition:
            case Noisy():
                if condition.has_noisy_audio:
                    audio = self.noisy_audio[condition.snr]
                if condition.has_noisy_frames and self.visual_noise is not None:
                    frames = self.visual_noise.add(condition.snr)
            case Missing(modality="audio"):
                audio = torch.empty_like(audio).copy_(self.fillings[condition])
            case Missing():
                frames = torch.empty_like(frames).copy_(self.fillings[condition])
            case Swapped() if self.other_audio is not None:
                audio = self.other_audio
        return audio, frames


def read_inputs(
    opened: OpenPart, wanted: Sequence[Condition], other_rows: NDArray[np.int64]
) -> Iterator[Inputs]:
    """Yield what the inputs of each batch are made of; nothing is made that no condition needs.

    The inputs have no noise of the settings, also if the evaluation of the run has noise.

    Args:
        opened: the network, and the clips of a part.
        wanted: the conditions.
        other_rows: the row whose sound each clip gets in `Swapped`, ``[N]``.

    Raises:
        UserError: the shards, which hold the waveforms, are missing, damaged or cannot be read.
    """
    config = opened.run.config
    settings = _without_noise(config.settings)
    noises = [condition for condition in wanted if isinstance(condition, Noisy)]
    wants_noisy_audio = any(noise.has_noisy_audio for noise in noises)
    wants_noisy_frames = any(noise.has_noisy_frames for noise in noises)
    is_swapped = Swapped() in wanted
    requests = _requests(opened.rows, other_rows if is_swapped else None, settings.batch_size)
    fillings = _fillings(opened, wanted)
    with ExitStack() as stack:
        sounds: NoisySounds | None = None
        if wants_noisy_audio and not is_events(opened.loader.source.shapes.audio):
            sounds = stack.enter_context(open_sounds(config))
        batches = opened.loader.read(requests)
        for batch in batches:
            audio, frames = network_inputs(batch, settings)
            other_audio = network_inputs(next(batches), settings)[0] if is_swapped else None
            noisy_audio = {}
            if sounds is not None:
                noisy_audio = _noisy_spectrograms(sounds, batch.rows, settings, like=audio)
            elif wants_noisy_audio:
                audio_noise = InputNoise(audio, batch.rows, epoch=AUDIO_EPOCH)
                noisy_audio = {snr: audio_noise.add(snr) for snr in LEVELS}
            visual_noise = None
            if wants_noisy_frames:
                visual_noise = InputNoise(frames, batch.rows, epoch=VISUAL_EPOCH)
            yield Inputs(audio, frames, noisy_audio, visual_noise, other_audio, fillings)


def _without_noise(settings: TrainSettings) -> TrainSettings:
    """Return the settings without noise on the frames."""
    augment = settings.data.augment.model_copy(update={"noise_snr": None})
    data = settings.data.model_copy(update={"augment": augment})
    return settings.model_copy(update={"data": data})


def _requests(
    rows: NDArray[np.int64], other_rows: NDArray[np.int64] | None, batch_size: int
) -> Iterator[BatchRequest]:
    """Yield the rows of each batch, each followed by the rows whose sounds the clips get."""
    for start in range(0, len(rows), batch_size):
        yield BatchRequest(rows[start : start + batch_size], None)
        if other_rows is not None:
            yield BatchRequest(other_rows[start : start + batch_size], None)


def _noisy_spectrograms(
    sounds: NoisySounds, rows: NDArray[np.int64], settings: TrainSettings, *, like: Tensor
) -> dict[float, Tensor]:
    """Return the audio input of noisy sounds by level, in the memory layout of ``like``."""
    found = {}
    for snr, images in sounds.images(rows, LEVELS).items():
        noisy = audio_inputs(torch.from_numpy(images).to(like.device), settings)
        found[snr] = torch.empty_like(like).copy_(noisy)
    return found


def _fillings(opened: OpenPart, wanted: Sequence[Condition]) -> dict[Missing, Tensor]:
    """Return the input of one clip, of one time step, for each missing modality."""
    size = opened.run.config.settings.data.size
    found = {}
    for condition in wanted:
        if not isinstance(condition, Missing):
            continue
        match condition:
            case Missing(filling="silence"):
                image = silent_image(opened.run.config.data.settings.audio)
                filling = resize_audio(torch.from_numpy(image)[None], size=size)
            case Missing(filling="grey"):
                picture = torch.full((1, 3, 1, 1), GREY, dtype=torch.uint8)
                crop = torch.tensor([[0, 0, 1, 1, 0]], dtype=torch.int32)
                filling = crop_and_normalise(picture, crop, size=size)
            case Missing(modality="visual", filling="no events"):
                frame = torch.zeros((1, 1, 2, 1, 1), dtype=torch.uint8)
                crop = whole_event_frames(1, frame.shape[-2:])
                filling = crop_and_normalise_events(frame, crop, channels_last=False)
            case _:
                # The numbers of events of a cochlea are not normalised: no events are zeros.
                filling = torch.zeros(1)
        found[condition] = filling.to(opened.device)
    return found
