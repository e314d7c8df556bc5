"""The shapes of the samples that a run is trained on."""

from typing import NamedTuple


class SampleShapes(NamedTuple):
    """The shapes of the arrays of one sample.

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


def is_events(shape: tuple[int, ...]) -> bool:
    """Return whether an array of a sample holds event frames: only these have a T axis."""
    return len(shape) == 4
