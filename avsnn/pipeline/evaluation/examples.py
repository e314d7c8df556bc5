"""Clips to look at: the worst mistakes and some right answers."""

from base64 import b64encode

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avsnn.pipeline.inference.open_part import OpenPart
from avsnn.pipeline.inference.predict import Scores
from avsnn.pipeline.loading import augment, augment_events
from avsnn.pydantic_base import StrictModel

# The largest number of each kind of clips. The right answers are of different classes.
MOST_MISTAKES = 8
MOST_RIGHT = 6

# The longer side of a picture in px. Larger pictures make the page large and show nothing more.
LONGEST_SIDE = 224

# Blue and vermilion of Okabe and Ito, which colour-blind people tell apart, as in `avsnn inspect`:
# OFF, ON.
POLARITY_COLOURS = ((0, 114, 178), (213, 94, 0))
BACKGROUND = 232


class Example(StrictModel):
    """One clip as the network sees the clip.

    Attributes:
        key: key of the clip.
        truth: class of the clip.
        answer: class that the network names.
        confidence: probability that the network gives to its answer, from 0 to 1.
        frame: the frame as PNG in base64; event frames are summed over the time steps, and of
            other frames in every time step, the frame of the middle step is shown.
        spectrogram: the audio image as PNG in base64, low frequencies at the bottom; of a window in
            every time step, the window of the middle step.
    """

    key: str
    truth: str
    answer: str
    confidence: float
    frame: str
    spectrogram: str


class Examples(StrictModel):
    """The content of ``report/PART-examples.json``.

    Attributes:
        fingerprint: changes with the checkpoint, the data, the part and the version of the code.
        mistakes: wrong answers, the most confident first.
        right: right answers, one for each of some classes, the most confident first.
    """

    fingerprint: str
    mistakes: list[Example]
    right: list[Example]


def choose_examples(opened: OpenPart, clean: Scores, *, fingerprint: str) -> Examples:
    """Choose clips to look at, and draw each clip as the network sees the clip.

    Args:
        opened: the network and the clips of the part.
        clean: logits and labels of these clips.
        fingerprint: the fingerprint of the record.
    """
    mistakes, right = choose_places(clean)
    places = [*mistakes, *right]
    frames, spectrograms = _pictures(opened, opened.rows[places])
    names = opened.run.config.manifest.classes
    keys, confidence = opened.keys, clean.probabilities.max(1)
    examples = [
        Example(
            key=keys[place],
            truth=names[int(clean.labels[place])],
            answer=names[int(clean.answers[place])],
            confidence=float(confidence[place]),
            frame=frame,
            spectrogram=spectrogram,
        )
        for place, frame, spectrogram in zip(places, frames, spectrograms, strict=True)
    ]
    return Examples(
        fingerprint=fingerprint,
        mistakes=examples[: len(mistakes)],
        right=examples[len(mistakes) :],
    )


def choose_places(clean: Scores) -> tuple[list[int], list[int]]:
    """Return the places of the worst mistakes in the part, and of some right answers.

    Of both kinds, the most confident answers come first; of equally confident answers, the first in
    the part. The right answers are of different classes.
    """
    is_right = clean.is_right
    by_confidence = np.argsort(-clean.probabilities.max(1), kind="stable").tolist()
    mistakes = [place for place in by_confidence if not is_right[place]][:MOST_MISTAKES]
    right: dict[int, int] = {}
    for place in by_confidence:
        if is_right[place]:
            right.setdefault(int(clean.labels[place]), place)
    return mistakes, list(right.values())[:MOST_RIGHT]


def _pictures(opened: OpenPart, rows: NDArray[np.int64]) -> tuple[list[str], list[str]]:
    """Return the frame and the spectrogram of each row, as PNG in base64."""
    frames: list[str] = []
    spectrograms: list[str] = []

    has_events = opened.run.config.manifest.has_events

    def look(audio: Tensor, visual: Tensor, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        shown = (audio, visual)
        if not has_events:
            shown = (_middle_step(audio), _middle_step(visual))
        spectrograms.extend(_png(image) for image in _spectrograms(shown[0]))
        frames.extend(_png(image) for image in _frames(shown[1]))
        return audio, visual

    # The network answers once more, because `change` sees the very inputs that the network gets.
    opened.scores(rows=rows, change=look)
    return frames, spectrograms


def _middle_step(images: Tensor) -> Tensor:
    """Return images ``[B, C, H, W]``, of several time steps those of the middle step."""
    return images[len(images) // 2] if images.dim() == 5 else images


def _frames(visual: Tensor) -> NDArray[np.uint8]:
    """Return the visual inputs of a network as images ``[B, H, W, 3]`` RGB."""
    if visual.dim() == 5:
        counts = (visual * augment_events.STD + augment_events.MEAN).round().clamp(min=0)
        return _coloured(counts.sum(0).cpu().numpy())
    mean, std = (visual.new_tensor(x)[:, None, None] for x in (augment.MEAN, augment.STD))
    light = (visual * std + mean).mul(255).round().clamp(0, 255)
    return light.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()


def _coloured(counts: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return counts of events ``[B, P, H, W]`` as images; a polarity without events is grey."""
    images = []
    for clip in counts:
        limit = np.percentile(clip[clip > 0], 95) if clip.any() else 1
        strength = np.minimum(1, clip / limit)[..., None]
        absorbed = BACKGROUND - np.array(POLARITY_COLOURS[: len(clip)])[:, None, None]
        images.append(np.clip(BACKGROUND - (strength * absorbed).sum(0), 0, 255))
    return np.stack(images).astype(np.uint8)


def _spectrograms(audio: Tensor) -> NDArray[np.uint8]:
    """Return the audio inputs of a network as images ``[B, H, W, 3]`` RGB; bright is loud."""
    levels = (audio.sum(0) if audio.dim() == 5 else audio)[:, 0].float()
    low, high = levels.amin((1, 2), keepdim=True), levels.amax((1, 2), keepdim=True)
    grey = ((levels - low) / (high - low).clamp(min=1e-9) * 255).round().to(torch.uint8)
    # The first row of an audio image holds the lowest frequencies.
    return np.stack(
        [
            cv2.cvtColor(cv2.applyColorMap(image, cv2.COLORMAP_MAGMA), cv2.COLOR_BGR2RGB)[::-1]
            for image in grey.cpu().numpy()
        ]
    )


def _png(image: NDArray[np.uint8]) -> str:
    """Return an image ``[H, W, 3]`` RGB as PNG in base64, shrunk if it is large."""
    height, width, _ = image.shape
    scale = LONGEST_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return b64encode(data.tobytes()).decode()
