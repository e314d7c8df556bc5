"""4. Shards to tensors, for clips that are events: Zarr caches of event frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from avsnn.errors import UserError
from avsnn.pipeline.formats.cache_layout import CLIPS_PER_GROUP
from avsnn.pipeline.formats.event_npz import read_event_npz
from avsnn.pipeline.formats.event_rows import event_row, event_row_shape
from avsnn.pipeline.formats.prepare_settings import EventSettings
from avsnn.pipeline.formats.shards import AUDIO_EVENTS_MEMBER, VISUAL_EVENTS_MEMBER
from avsnn.pipeline.media.errors import MediaError, failures_of
from avsnn.pipeline.media.events import Sensor
from avsnn.pipeline.prepare.stages.cache import Cache

if TYPE_CHECKING:
    from collections import Counter

    from numpy.typing import NDArray

    from avsnn.pipeline.formats.shard_columns import ShardColumns
    from avsnn.pipeline.formats.shards import Member

# A Zarr shard of event frames is at most this large, because a worker makes a shard in memory.
SHARD_BYTES = 2**25


@dataclass(frozen=True)
class EventCache(Cache):
    """A cache of event frames: counts uint8 ``[N, T, P, H, W]``, one row for each clip.

    The tallies are the numbers of events that were read, that lay outside of the crop, and that a
    count above 255 lost.

    Attributes:
        events_member: the member of a shard that holds the events.
        sensor: the columns of `ShardColumns.sensors` that describe the sensor.
    """

    dtype: ClassVar[str] = "uint8"
    events_member: ClassVar[str]
    sensor: ClassVar[slice]

    chosen: EventSettings

    def row_shape(self, columns: ShardColumns) -> tuple[int, ...]:
        """Return the shape of the event frames of a clip, ``(T, P, H, W)``.

        Raises:
            UserError: with these settings, the event frames would be too large.
        """
        try:
            return event_row_shape(Sensor(*columns.sensors[0, self.sensor].tolist()), self.chosen)
        except MediaError as error:
            raise UserError(f"events: {error}.") from None

    def rows_per_shard(self, shape: tuple[int, ...]) -> int:
        """Return a number of clips whose rows fit in memory several times."""
        fitting = max(1, SHARD_BYTES // int(np.prod(shape)))
        return min(CLIPS_PER_GROUP, 1 << (fitting.bit_length() - 1))

    def member(self, columns: ShardColumns, row: int, frame: int) -> Member:
        """Return the events of a clip."""
        return columns.member(row, self.events_member)

    def compute(
        self, data: bytes, key: str, shape: tuple[int, ...], tallies: Counter[str]
    ) -> NDArray[Any]:
        """Return the event frames ``[T, P, H, W]`` of a clip."""
        with failures_of(f"the events of the clip {key}"):
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
    events_member: ClassVar[str] = VISUAL_EVENTS_MEMBER
    sensor: ClassVar[slice] = slice(0, 3)


@dataclass(frozen=True)
class EventAudioCache(EventCache):
    """The event frames of the cochleas: ``audio`` uint8 ``[R, T, 1, H, W]``."""

    name: ClassVar[str] = "audio"
    version: ClassVar[int] = 1
    array: ClassVar[str] = "audio"
    events_member: ClassVar[str] = AUDIO_EVENTS_MEMBER
    sensor: ClassVar[slice] = slice(3, 6)

    @staticmethod
    def bins_of(settings: EventSettings) -> EventSettings:
        """Return the settings with the defaults in place of what a cochlea does not have.

        Another crop of the event camera then leaves the cache of the cochlea alone.
        """
        return EventSettings(steps=settings.steps, bins=settings.bins)

    def settings(self) -> dict[str, Any]:
        """Return the time bins: nothing else changes the frames of a cochlea."""
        return {"steps": self.chosen.steps, "bins": self.chosen.bins}
