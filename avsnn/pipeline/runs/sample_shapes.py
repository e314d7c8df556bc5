"""The shapes of the samples that a run is trained on, and of the inputs of its network."""

from typing import NamedTuple

from avsnn.pipeline.runs.train_settings import TrainSettings


class SampleShapes(NamedTuple):
    """The shapes of the arrays that the caches hold of one sample.

    Attributes:
        frames: ``(3, H, W)`` of an image, or ``(T, 2, H, W)`` of event frames.
        audio: ``(1, F, F)`` of an audio image, or ``(T, 1, h, w)`` of the event frames of a
            cochlea.
    """

    frames: tuple[int, ...]
    audio: tuple[int, ...]

    @property
    def steps(self) -> int | None:
        """Number T of time steps of event frames; None if the samples have no event frames."""
        return next((shape[0] for shape in self if is_events(shape)), None)


class InputShapes(NamedTuple):
    """The shapes of what a network reads of one clip, where S is ``data.size``.

    Attributes:
        frames: ``(C, S, S)`` of an input that is the same in every time step, or ``(T, C, S, S)``.
        audio: ``(1, S, S)``, or ``(T, 1, S, S)``.
    """

    frames: tuple[int, ...]
    audio: tuple[int, ...]


def is_events(shape: tuple[int, ...]) -> bool:
    """Return whether an array of a sample holds event frames: only these have a T axis."""
    return len(shape) == 4


def has_steps(shape: tuple[int, ...]) -> bool:
    """Return whether an input of a network has a T axis: another image in every time step."""
    return len(shape) == 4


def input_shapes(shapes: SampleShapes, settings: TrainSettings) -> InputShapes:
    """Return the shapes of what a network reads of one clip.

    Args:
        shapes: the shapes of the samples.
        settings: the settings of the training.
    """
    size, data = settings.data.size, settings.data

    def of(shape: tuple[int, ...], *, is_per_step: bool) -> tuple[int, ...]:
        image = (shape[-3], size, size)
        if is_events(shape):
            return (shape[0], *image)
        return (settings.model.steps, *image) if is_per_step else image

    return InputShapes(
        frames=of(shapes.frames, is_per_step=data.frames == "per-step"),
        audio=of(shapes.audio, is_per_step=data.audio != "whole"),
    )
