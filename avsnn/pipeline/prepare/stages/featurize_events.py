"""4. Shards to tensors, for clips that are events: Zarr caches of event frames."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from avsnn.errors import UserError
from avsnn.pipeline.formats.cache_layout import CLIPS_PER_GROUP
from avsnn.pipeline.formats.event_npz import read_event_npz
from avsnn.pipeline.formats.event_rows import event_row, event_row_shape
from avsnn.pipeline.formats.prepare_settings import EventSettings
from avsnn.pipeline.formats.shards import (
    AUDIO_EVENTS_MEMBER,
    VISUAL_EVENTS_MEMBER,
    EventSensors,
    Sample,
    read_member,
)
from avsnn.pipeline.media.errors import MediaError, failures_of
from avsnn.pipeline.prepare.stages.cache import Cache, RowSource

if TYPE_CHECKING:
    from collections import Counter

    from numpy.typing import NDArray

    from avsnn.pipeline.media.events import Sensor

# A Zarr shard of event frames is at most this large, because a worker makes a shard in memory.
SHARD_BYTES = 2**25


@dataclass(frozen=True)
class EventCache(Cache):
    """A cache of event frames: counts uint8 ``[N, T, P, H, W]``, one row for each clip.

    The tallies are the numbers of events that were read, that lay outside of the crop, and that a
    count above 255 lost.

    Attributes:
        member: the member of a shard that holds the events.
    """

    dtype: ClassVar[str] = "uint8"
    member: ClassVar[str]

    chosen: EventSettings

    @abstractmethod
    def sensor_of(self, sample: Sample) -> Sensor:
        """Return the sensor whose events this cache holds."""

    def row_shape(self, samples: list[Sample]) -> tuple[int, ...]:
        """Return the shape of the event frames of a clip, ``(T, P, H, W)``.

        Raises:
            UserError: with these settings, the event frames would be too large.
        """
        try:
            return event_row_shape(self.sensor_of(samples[0]), self.chosen)
        except MediaError as error:
            raise UserError(f"events: {error}.") from None

    def rows_per_shard(self, shape: tuple[int, ...]) -> int:
        """Return a number of clips whose rows fit in memory several times."""
        fitting = max(1, SHARD_BYTES // int(np.prod(shape)))
        return min(CLIPS_PER_GROUP, 1 << (fitting.bit_length() - 1))

    def read(
        self, source: RowSource, shape: tuple[int, ...], tallies: Counter[str]
    ) -> NDArray[Any]:
        """Return the event frames ``[T, P, H, W]`` of a clip."""
        data = read_member(source.shard, source.sample.members[self.member])
        with failures_of(f"the events of the clip {source.sample.key}"):
            events = read_event_npz(data)
            row = event_row(events, self.chosen)
        tallies.update(
            {"events": len(events.t), "outside": row.outside, "saturated": row.saturated}
        )
        return row.frames


@dataclass(frozen=True)
class EventFrameCache(EventCache):
    """The event frames of the event cameras: ``frames`` uint8 ``[R, T, 2, H, W]``."""

    name: ClassVar[str] = "frames"
    version: ClassVar[int] = 1
    array: ClassVar[str] = "frames"
    member: ClassVar[str] = VISUAL_EVENTS_MEMBER

    def sensor_of(self, sample: Sample) -> Sensor:
        """Return the event camera of a clip."""
        return _sensors(sample).visual


@dataclass(frozen=True)
class EventAudioCache(EventCache):
    """The event frames of the cochleas: ``audio`` uint8 ``[R, T, 1, H, W]``."""

    name: ClassVar[str] = "audio"
    version: ClassVar[int] = 1
    array: ClassVar[str] = "audio"
    member: ClassVar[str] = AUDIO_EVENTS_MEMBER

    @staticmethod
    def bins_of(settings: EventSettings) -> EventSettings:
        """Return the settings with the defaults in place of what a cochlea does not have.

        Another crop of the event camera then leaves the cache of the cochlea alone.
        """
        return EventSettings(steps=settings.steps, bins=settings.bins)

    def settings(self) -> dict[str, Any]:
        """Return the time bins: nothing else changes the frames of a cochlea."""
        return {"steps": self.chosen.steps, "bins": self.chosen.bins}

    def sensor_of(self, sample: Sample) -> Sensor:
        """Return the cochlea of a clip."""
        return _sensors(sample).audio


def _sensors(sample: Sample) -> EventSensors:
    assert sample.events is not None  # noqa: S101 - narrows the type
    return sample.events
