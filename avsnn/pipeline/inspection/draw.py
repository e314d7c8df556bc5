"""Draws a clip: frames and the spectrogram of the sound."""

import textwrap
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.formats.audio_rows import read_sound, spectrogram
from avsnn.pipeline.formats.damaged import damaged_error
from avsnn.pipeline.formats.prepare_settings import AudioSettings
from avsnn.pipeline.formats.shards import AUDIO_MEMBER
from avsnn.pipeline.inspection.clip import Clip
from avsnn.pipeline.media import audio
from avsnn.pipeline.media.errors import MediaError, failures_of
from avsnn.pipeline.media.frames import spread_evenly
from avsnn.pipeline.media.image import decode_image
from avsnn.pipeline.pictures import new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A picture shows at most so many frames of a clip, so many in a row.
MOST_FRAMES, MOST_IN_ROW = 16, 8

# Width of the picture in inches, the largest height of one row of frames, and the height of a plot.
WIDTH, ROW_HEIGHT, PLOT_HEIGHT = 9.5, 2.0, 2.6

# A screen shows no more columns of a spectrogram. An hour of sound has a hundred times as many.
MOST_COLUMNS = 2000

# Sounds that are weaker than the loudest by more, in dB, are black.
DYNAMIC_RANGE_DB = 80

MEL_TICKS_HZ = (0, 500, 1000, 2000, 4000, 8000, 16000, 32000)

# Size of all letters in points, and a number of letters that an inch holds in any text.
FONT_SIZE, CHARACTERS_PER_INCH = 9, 11


def draw_clip(clip: Clip, *, width: float | None = None) -> "Figure":
    """Draw a clip as one picture: the frames of the clip above the spectrogram of the sound.

    The picture shows at most `MOST_FRAMES` frames, spread evenly over the clip.

    Args:
        clip: the clip.
        width: width of the picture in inches; None takes `WIDTH`.

    Raises:
        UserError: a file of the clip cannot be decoded.
    """
    try:
        shown = spread_evenly(clip.sample.frames, min(clip.sample.frames, MOST_FRAMES))
        with failures_of(f"a frame of the clip {clip.row.key}"):
            frames = [decode_image(clip.members[clip.sample.frame_member(n)]) for n in shown]
        with failures_of(f"the sound of the clip {clip.row.key}"):
            sound = read_sound(clip.members[AUDIO_MEMBER], clip.row.key, clip.settings.audio)
            bins = spectrogram(sound, clip.settings.audio)
    except MediaError as error:
        raise damaged_error(clip.shard, str(error)) from None
    width = width or WIDTH
    strip = _join_frames(frames, width)
    figure, (top, bottom) = new_figure(
        width=width,
        height=strip.inches + PLOT_HEIGHT + 1.5,
        nrows=2,
        height_ratios=(strip.inches, PLOT_HEIGHT),
    )
    _add_title(figure, clip, f"{sound.seconds:.1f} s of sound")
    names = [f"frame {number}" for number in shown]
    is_image = clip.manifest.visual == "image"
    _draw_strip(top, strip, [""] if is_image else names, _describe_frames(clip, len(frames)))
    _draw_spectrogram(bottom, bins, clip.settings.audio)
    return figure


def _add_title(figure: "Figure", clip: Clip, length: str) -> None:
    """Write the key above the picture, and class, part and length of the clip below the key."""
    facts = (
        f"class {shorten(clip.row.label_name, 60)}; part {clip.row.splits[clip.split]} of the "
        f"split {clip.split}; {length}"
    )
    width = int(CHARACTERS_PER_INCH * figure.get_figwidth())
    lines = [*textwrap.wrap(clip.row.key, width), *textwrap.wrap(facts, width)]
    # A name that holds two dollar signs is no formula.
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=FONT_SIZE, parse_math=False)


def _describe_frames(clip: Clip, shown: int) -> str:
    count = clip.sample.frames
    if clip.manifest.visual == "image":
        return "image"
    frames = "1 frame" if count == 1 else f"{count:,} frames"
    rule = clip.settings.extract.frames
    how = "about one per second" if rule == "1fps" else "spread evenly over the video"
    some = f"{shown} of " if shown < count else ""
    return f"{some}{frames}, {how}"


class _Strip(NamedTuple):
    """Frames side by side, in rows, with room for the name of each frame below the frame.

    Attributes:
        pixels: all frames as one image ``[H, W, 3]``.
        places: middle and lower edge of each frame in px, as (x, y).
        inches: height of the strip in the picture.
    """

    pixels: NDArray[np.uint8]
    places: list[tuple[float, int]]
    inches: float


def _join_frames(frames: list[NDArray[np.uint8]], inches: float) -> _Strip:
    """Return the strip of some frames for a picture of a width in inches."""
    height, width, _ = frames[0].shape
    across = min(len(frames), MOST_IN_ROW)
    rows = -(-len(frames) // MOST_IN_ROW)
    gap = ceil(0.06 * width)
    px_per_inch = max((across * (width + gap) - gap) / inches, height / ROW_HEIGHT)
    below = ceil(0.22 * px_per_inch)
    pixels = np.full((rows * (height + below), across * (width + gap) - gap, 3), 255, np.uint8)
    places = []
    for number, frame in enumerate(frames):
        row, column = divmod(number, MOST_IN_ROW)
        y, x = row * (height + below), column * (width + gap)
        pixels[y : y + height, x : x + width] = frame
        places.append((x + width / 2, y + height))
    return _Strip(pixels, places, len(pixels) / px_per_inch)


def _draw_strip(axes: "Axes", strip: _Strip, names: list[str], heading: str) -> None:
    """Draw a strip, with the name of each frame below the frame."""
    axes.imshow(strip.pixels)
    for (x, y), name in zip(strip.places, names, strict=True):
        axes.text(x, y, name, ha="center", va="top", fontsize=FONT_SIZE)
    axes.set_anchor("W")
    axes.set_axis_off()
    _add_heading(axes, heading)


def _draw_spectrogram(axes: "Axes", bins: NDArray[np.float32], settings: AudioSettings) -> None:
    """Draw a spectrogram ``[bins, frames]`` in dB, over time in s and frequency in Hz."""
    hop = settings.hop / settings.sample_rate
    count, columns = bins.shape
    pooled = -(-columns // MOST_COLUMNS)
    bins = np.maximum.reduceat(bins, range(0, columns, pooled), axis=1)
    factor = 20 if settings.n_mels is None else 10
    levels = factor * np.log10(bins + 1e-7)
    levels -= levels.max()
    # Window n lies around the time n * hop.
    right = (bins.shape[1] * pooled - 0.5) * hop
    kind = f"STFT (window {settings.n_fft}, hop {settings.hop}, {settings.sample_rate:,} Hz)"
    if settings.n_mels is None:
        half = settings.sample_rate / settings.n_fft / 2
        lowest, highest = -half, settings.sample_rate / 2 + half
    else:
        lowest, highest = -0.5, count - 0.5
        kind = f"{settings.n_mels} mel filters on the {kind}"
    noise = "" if settings.noise_snr is None else f", with noise at {settings.noise_snr:g} dB SNR"
    image = axes.imshow(
        levels,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=-DYNAMIC_RANGE_DB,
        vmax=0,
        extent=(-hop / 2, right, lowest, highest),
    )
    if settings.n_mels is not None:
        peaks = audio.mel_frequencies(sample_rate=settings.sample_rate, n_mels=settings.n_mels)
        ticks = [hz for hz in MEL_TICKS_HZ if peaks[0] <= hz <= peaks[-1]]
        axes.set_yticks(np.interp(ticks, peaks, range(count)), map(str, ticks))
    _label_axes(axes, f"sound: {kind}{noise}", y="Hz")
    bar = axes.figure.colorbar(image, ax=axes)
    bar.ax.set_title("dB", fontsize=FONT_SIZE)
    bar.ax.tick_params(labelsize=FONT_SIZE)


def _label_axes(axes: "Axes", heading: str, *, y: str) -> None:
    _add_heading(axes, heading)
    axes.set_xlabel("time in s", fontsize=FONT_SIZE)
    axes.set_ylabel(y, fontsize=FONT_SIZE, rotation=0, ha="right", va="center")
    axes.tick_params(labelsize=FONT_SIZE)


def _add_heading(axes: "Axes", heading: str) -> None:
    # Numbers and units of the axes take an inch to the left of the heading.
    figure = axes.get_figure(root=True)
    width = (figure.get_figwidth() if figure else WIDTH) - 1
    lines = textwrap.wrap(heading, int(CHARACTERS_PER_INCH * width))
    axes.set_title("\n".join(lines), loc="left", fontsize=FONT_SIZE)
