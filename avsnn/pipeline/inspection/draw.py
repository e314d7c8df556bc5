"""Draws a clip as one picture: frames and a spectrogram, or event frames and a raster."""

import textwrap
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.formats.audio_rows import read_sound, spectrogram
from avsnn.pipeline.formats.damaged import damaged_error
from avsnn.pipeline.formats.event_npz import read_event_npz
from avsnn.pipeline.formats.event_rows import event_row
from avsnn.pipeline.formats.prepare_settings import EventSettings
from avsnn.pipeline.formats.shards import (
    AUDIO_EVENTS_MEMBER,
    AUDIO_MEMBER,
    VISUAL_EVENTS_MEMBER,
)
from avsnn.pipeline.inspection.clip import Clip
from avsnn.pipeline.inspection.panels import (
    CHARACTERS_PER_INCH,
    FONT_SIZE,
    add_polarity_legend,
    colour_polarities,
    count_in_row,
    draw_raster,
    draw_spectrogram,
    draw_strip,
    join_frames,
)
from avsnn.pipeline.media.errors import MediaError, failures_of
from avsnn.pipeline.media.events import Events
from avsnn.pipeline.media.frames import Frame, spread_evenly
from avsnn.pipeline.media.image import decode_image
from avsnn.pipeline.pictures import new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A picture shows at most so many rows of frames of a clip.
MOST_ROWS = 2

# Width of a picture, height of the plot of a sound, and height of all texts above and below the
# frames and the plot, in inches.
WIDTH, PLOT_HEIGHT, TEXT_HEIGHT = 9.5, 2.6, 1.5

LONGEST_CLASS = 40


class _Frames(NamedTuple):
    """The frames of a clip that a picture shows.

    Attributes:
        images: the frames as images.
        names: what is written below each frame.
        heading: what is written above the frames.
        has_polarities: whether the colours are the two polarities of events.
    """

    images: list[Frame]
    names: list[str]
    heading: str
    has_polarities: bool = False


def draw_clip(clip: Clip, *, width: float | None = None) -> "Figure":
    """Draw a clip as one picture: the frames of the clip, and below them its sound.

    The sound of a video is a spectrogram; the sound of event data is a raster of the cochlea. The
    picture shows at most two rows of frames, spread evenly over the clip.

    Args:
        clip: the clip.
        width: width of the picture in inches; None takes `WIDTH`.

    Raises:
        UserError: a file of the clip cannot be decoded.
    """
    width = width or WIDTH
    try:
        if clip.sample.events is not None:
            return _draw_events(clip, width)
        return _draw_video(clip, width)
    except MediaError as error:
        raise damaged_error(clip.shard, str(error)) from None


def _draw_video(clip: Clip, width: float) -> "Figure":
    with failures_of(f"the sound of the clip {clip.row.key}"):
        sound = read_sound(clip.members[AUDIO_MEMBER], clip.row.key, clip.settings.audio)
        bins = spectrogram(sound, clip.settings.audio)
    most = MOST_ROWS * count_in_row(width)
    with failures_of(f"a frame of the clip {clip.row.key}"):
        frames = _frames_of_video(clip, most)
    figure, plot = _begin(clip, frames, f"{sound.seconds:.1f} s of sound", width)
    draw_spectrogram(plot, bins, clip.settings.audio)
    return figure


def _draw_events(clip: Clip, width: float) -> "Figure":
    most = MOST_ROWS * count_in_row(width)
    with failures_of(f"the events of the clip {clip.row.key}"):
        seen = read_event_npz(clip.members[VISUAL_EVENTS_MEMBER])
        heard = read_event_npz(clip.members[AUDIO_EVENTS_MEMBER])
        frames = _frames_of_events(seen, clip.settings.events, most)
    seen_seconds, heard_seconds = _seconds(seen), _seconds(heard)
    length = f"{seen_seconds.max(initial=0):.2f} s of vision"
    length += f", {heard_seconds.max(initial=0):.2f} s of sound"
    figure, plot = _begin(clip, frames, length, width)
    draw_raster(plot, heard_seconds, heard.x, heard.sensor.width)
    return figure


def _begin(clip: Clip, frames: _Frames, length: str, width: float) -> "tuple[Figure, Axes]":
    """Return a figure with title and frames, and the empty axes of the sound."""
    strip = join_frames(frames.images, width)
    figure, (top, plot) = new_figure(
        width=width,
        height=strip.inches + PLOT_HEIGHT + TEXT_HEIGHT,
        nrows=2,
        height_ratios=(strip.inches, PLOT_HEIGHT),
    )
    facts = (
        f"class {shorten(clip.row.label_name, LONGEST_CLASS)}; part {clip.row.splits[clip.split]} "
        f"of the split {clip.split}; {length}"
    )
    characters = int(CHARACTERS_PER_INCH * width)
    lines = [*textwrap.wrap(clip.row.key, characters), *textwrap.wrap(facts, characters)]
    # A name that holds two dollar signs is no formula.
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=FONT_SIZE, parse_math=False)
    draw_strip(top, strip, frames.names, frames.heading)
    if frames.has_polarities:
        add_polarity_legend(top)
    return figure, plot


def _frames_of_video(clip: Clip, most: int) -> _Frames:
    """Decode at most ``most`` frames of a video, or the image of a clip."""
    count = clip.sample.frames
    shown = spread_evenly(count, min(count, most))
    images = [decode_image(clip.members[clip.sample.frame_member(number)]) for number in shown]
    if clip.manifest.visual == "image":
        return _Frames(images, [""], "image")
    is_per_second = clip.settings.extract.frames == "1fps"
    how = "about one per second" if is_per_second else "spread evenly over the video"
    heading = f"{_of(len(shown), count)} {'frame' if count == 1 else 'frames'}, {how}"
    return _Frames(images, [f"frame {number}" for number in shown], heading)


def _frames_of_events(events: Events, settings: EventSettings, most: int) -> _Frames:
    """Count the events of a camera, and name at most ``most`` event frames by their times in s."""
    frames, outside, _ = event_row(events, settings)
    count, _, height, width = frames.shape
    shown = spread_evenly(count, min(count, most))
    edges = _edges(_seconds(events), settings)
    digits = 2 if edges[-1] / count >= 0.02 else 3
    names = [f"{edges[n]:.{digits}f}-{edges[n + 1]:.{digits}f}" for n in shown]
    left_out = f", {outside:,} outside the crop" if outside else ""
    heading = (
        f"{_of(len(shown), count)} event frames of {height} x {width} px, times in s; "
        f"{len(events.t):,} events{left_out}"
    )
    return _Frames(
        colour_polarities(frames[shown]), names, heading, has_polarities=frames.shape[1] == 2
    )


def _of(shown: int, count: int) -> str:
    return f"{count:,}" if shown == count else f"{shown} of {count:,}"


def _seconds(events: Events) -> NDArray[np.float64]:
    """Return the time of each event after the first event, in s ``[E]``."""
    if not len(events.t):
        return np.zeros(0)
    unit = 1.0 if events.t.dtype.kind == "f" else 1e-6
    return np.asarray(events.t - events.t.min(), np.float64) * unit


def _edges(seconds: NDArray[np.float64], settings: EventSettings) -> NDArray[np.float64]:
    """Return the starts of the time bins, and the end of the last bin, in s ``[T + 1]``."""
    T = settings.steps
    if settings.bins == "time" or not len(seconds):
        return np.linspace(0, seconds.max(initial=0), T + 1)
    firsts = np.minimum(-(-np.arange(T + 1) * len(seconds) // T), len(seconds) - 1)
    return np.asarray(np.sort(seconds)[firsts], np.float64)
