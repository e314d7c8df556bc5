"""Rows of the caches, computed from the members of a shard: of pictures and sound, or of events."""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.formats.audio_rows import audio_row
from avsnn.pipeline.formats.event_npz import read_event_npz
from avsnn.pipeline.formats.event_rows import event_row, event_row_shape
from avsnn.pipeline.formats.frame_rows import frame_row, frame_shape
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.formats.shard_columns import ShardColumns
from avsnn.pipeline.formats.shards import (
    AUDIO_EVENTS_MEMBER,
    AUDIO_MEMBER,
    VISUAL_EVENTS_MEMBER,
    Member,
)
from avsnn.pipeline.media.events import Sensor
from avsnn.pipeline.runs.sample_shapes import SampleShapes


class ShardRows(Protocol):
    """Computes the rows that the two caches hold of a clip.

    Attributes:
        shapes: shapes of the rows.
    """

    shapes: SampleShapes

    def members(self, columns: ShardColumns, row: int, frames: Iterable[int]) -> list[Member]:
        """Return the members that hold some frames of a clip, then the member that holds its sound.

        Raises:
            UserError: the clip has no such frame or sound.
        """

    def frames(self, data: bytes) -> NDArray[np.uint8]:
        """Return the row of the frame cache.

        Raises:
            MediaError: the bytes cannot be decoded.
        """

    def audio(self, data: bytes, key: str) -> NDArray[Any]:
        """Return the row of the audio cache.

        Raises:
            MediaError: the bytes cannot be decoded.
        """


def rows_of_clips(columns: ShardColumns, settings: PrepareSettings) -> ShardRows:
    """Return what computes the rows of the clips of a prepared data set, of at least one clip."""
    if len(columns.sensors):
        sensors = columns.sensors[0].tolist()
        shapes = event_shapes(Sensor(*sensors[:3]), Sensor(*sensors[3:6]), settings)
        return EventRows(shapes, settings)
    shapes = SampleShapes(frame_shape(columns.clips, settings.frames), audio_image_shape(settings))
    return MediaRows(shapes, settings)


def audio_image_shape(settings: PrepareSettings) -> tuple[int, ...]:
    """Return the shape ``(1, F, F)`` of the audio image of a sound."""
    return (1, settings.audio.size, settings.audio.size)


def event_shapes(camera: Sensor, cochlea: Sensor, settings: PrepareSettings) -> SampleShapes:
    """Return the shapes of the event frames of two sensors."""
    return SampleShapes(
        event_row_shape(camera, settings.events), event_row_shape(cochlea, settings.events)
    )


class MediaRows:
    """Rows of pictures and sound; see `ShardRows`."""

    def __init__(self, shapes: SampleShapes, settings: PrepareSettings) -> None:
        self._settings = settings
        self.shapes = shapes

    def members(self, columns: ShardColumns, row: int, frames: Iterable[int]) -> list[Member]:
        """Return the images and the sound."""
        images = [columns.frame(row, frame) for frame in frames]
        return [*images, columns.member(row, AUDIO_MEMBER)]

    def frames(self, data: bytes) -> NDArray[np.uint8]:
        """Return the pixels of an image ``[3, H, W]``."""
        return frame_row(data, self.shapes.frames, self._settings.frames)

    def audio(self, data: bytes, key: str) -> NDArray[Any]:
        """Return the audio image ``[1, F, F]`` of a sound."""
        return audio_row(data, key, self._settings.audio)


class EventRows:
    """Rows of event frames; see `ShardRows`."""

    def __init__(self, shapes: SampleShapes, settings: PrepareSettings) -> None:
        self._settings = settings.events
        self.shapes = shapes

    def members(self, columns: ShardColumns, row: int, frames: Iterable[int]) -> list[Member]:
        """Return the recording of the camera for each frame, and the recording of the cochlea."""
        cameras = [columns.member(row, VISUAL_EVENTS_MEMBER) for _ in frames]
        return [*cameras, columns.member(row, AUDIO_EVENTS_MEMBER)]

    def frames(self, data: bytes) -> NDArray[np.uint8]:
        """Return the event frames ``[T, 2, H, W]`` of an event camera."""
        return event_row(read_event_npz(data), self._settings).frames

    def audio(self, data: bytes, key: str) -> NDArray[Any]:
        """Return the event frames ``[T, 1, H, W]`` of a cochlea."""
        return event_row(read_event_npz(data), self._settings).frames
