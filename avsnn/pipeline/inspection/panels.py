"""The parts of a picture of a clip: a strip of frames, a spectrogram, and a raster of events."""

import textwrap
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.formats.prepare_settings import AudioSettings
from avsnn.pipeline.media import audio

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from avsnn.pipeline.media.frames import Frame

# Size of all letters in points, and a number of letters that an inch holds in any text.
FONT_SIZE, CHARACTERS_PER_INCH = 9, 11

# The largest height of a row of frames in inches, and the width that the name of a frame needs.
ROW_HEIGHT, NAME_WIDTH = 2.0, 0.95

# What stands to the left of the axes, and on both sides, takes about so many inches.
LEFT_OF_AXES, BESIDE_AXES = 1.0, 1.8

# A screen shows no more columns than these. The spectrogram of an hour has a hundred times as many.
MOST_COLUMNS = 2000

# Sounds that are weaker than the loudest by more, in dB, are black.
DYNAMIC_RANGE_DB = 80

MEL_TICKS_HZ = (200, 500, 1000, 2000, 4000, 8000, 16000, 32000)

# Blue and vermilion of Okabe and Ito, which colour-blind people tell apart: OFF, ON.
POLARITY_COLOURS = ((0, 114, 178), (213, 94, 0))
POLARITY_NAMES = ("OFF (darker)", "ON (brighter)", "both")
BACKGROUND = 232

# An event frame has at most so many px on a side, and a raster so many rows and columns. More
# would be too small to be seen.
MOST_EVENT_PX, RASTER_ROWS, RASTER_COLUMNS = 64, 128, 400


class Strip(NamedTuple):
    """Frames side by side, in rows, with room for the name of each frame below the frame.

    Attributes:
        pixels: all frames as one image ``[H, W, 3]``.
        places: middle and lower edge of each frame in px, as (x, y).
        inches: height of the strip in the picture.
    """

    pixels: "Frame"
    places: list[tuple[float, float]]
    inches: float


def count_in_row(inches: float) -> int:
    """Return how many frames stand side by side in a picture of a width in inches."""
    return int((inches - BESIDE_AXES) / NAME_WIDTH)


def join_frames(frames: "list[Frame]", inches: float) -> Strip:
    """Return the strip of some frames for a picture of a width in inches."""
    height, width, _ = frames[0].shape
    across = min(len(frames), count_in_row(inches))
    rows = ceil(len(frames) / across)
    gap = ceil(0.06 * width)
    full_width = across * (width + gap) - gap
    px_per_inch = max(full_width / (inches - BESIDE_AXES), height / ROW_HEIGHT)
    below = ceil(0.28 * px_per_inch)
    pixels = np.full((rows * (height + below), full_width, 3), 255, np.uint8)
    places = []
    for number, frame in enumerate(frames):
        row, column = divmod(number, across)
        y, x = row * (height + below), column * (width + gap)
        pixels[y : y + height, x : x + width] = frame
        # The middle of the first px has the place 0.
        places.append((x + width / 2 - 0.5, y + height - 0.5))
    return Strip(pixels, places, len(pixels) / px_per_inch)


def draw_strip(axes: "Axes", strip: Strip, names: list[str], heading: str) -> None:
    """Draw a strip, with the name of each frame below the frame."""
    axes.imshow(strip.pixels)
    for place, name in zip(strip.places, names, strict=True):
        axes.annotate(
            name,
            place,
            xytext=(0, -FONT_SIZE - 1),
            textcoords="offset points",
            ha="center",
            va="baseline",
            fontsize=FONT_SIZE,
        )
    axes.set_anchor("W")
    axes.set_axis_off()
    _add_heading(axes, heading)


def draw_spectrogram(axes: "Axes", bins: NDArray[np.float32], settings: AudioSettings) -> None:
    """Draw a spectrogram ``[bins, frames]`` in dB, over time in s and frequency in Hz.

    Args:
        axes: the axes to draw on.
        bins: the result of `audio_rows.spectrogram`.
        settings: the settings of the spectrogram.
    """
    hop = settings.hop / settings.sample_rate
    count, columns = bins.shape
    pooled = ceil(columns / MOST_COLUMNS)
    bins = np.maximum.reduceat(bins, range(0, columns, pooled), axis=1)
    levels = (20 if settings.n_mels is None else 10) * np.log10(bins + 1e-7)
    kind = f"STFT (window {settings.n_fft}, hop {settings.hop}, {settings.sample_rate:,} Hz)"
    if settings.n_mels is None:
        half = settings.sample_rate / settings.n_fft / 2
        lowest, highest = -half, settings.sample_rate / 2 + half
    else:
        lowest, highest = -0.5, count - 0.5
        kind = f"{settings.n_mels} mel filters on the {kind}"
        peaks = audio.mel_frequencies(sample_rate=settings.sample_rate, n_mels=settings.n_mels)
        ticks = [hz for hz in MEL_TICKS_HZ if peaks[0] <= hz <= peaks[-1]]
        axes.set_yticks(np.interp(ticks, peaks, range(count)), map(str, ticks))
    noise = "" if settings.noise_snr is None else f", with noise at {settings.noise_snr:g} dB SNR"
    image = axes.imshow(
        levels - levels.max(),
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=-DYNAMIC_RANGE_DB,
        vmax=0,
        # The middle of window n is at the time n * hop.
        extent=(-hop / 2, (bins.shape[1] * pooled - 0.5) * hop, lowest, highest),
    )
    _label_axes(axes, f"sound: {kind}{noise}", y="Hz")
    bar = axes.figure.colorbar(image, ax=axes)
    bar.ax.set_title("dB", fontsize=FONT_SIZE)
    bar.ax.tick_params(labelsize=FONT_SIZE)


def draw_raster(
    axes: "Axes", seconds: NDArray[np.float64], channels: NDArray[np.unsignedinteger], count: int
) -> None:
    """Draw the events of a cochlea: a dark px where a channel has an event.

    Args:
        axes: the axes to draw on.
        seconds: time of each event in s ``[E]``, from 0.
        channels: channel of each event ``[E]``.
        count: number of channels.
    """
    end = float(seconds.max(initial=0)) or 1.0
    bins = (min(count, RASTER_ROWS), RASTER_COLUMNS)
    span = ((-0.5, count - 0.5), (0, end))
    events, _, _ = np.histogram2d(channels, seconds, bins=bins, range=span)
    axes.imshow(
        events > 0,
        origin="lower",
        aspect="auto",
        cmap="Greys",
        vmin=0,
        vmax=1,
        extent=(0, end, -0.5, count - 0.5),
    )
    _label_axes(axes, f"sound: {len(seconds):,} events of {count:,} channels", y="channel")


def colour_polarities(frames: NDArray[np.uint8]) -> "list[Frame]":
    """Return event frames ``[T, P, H, W]`` as images: grey where nothing happened.

    More events of a polarity make the colour of the polarity stronger, up to a number that 95 % of
    the counts do not exceed. A sensor without polarities has one colour.
    """
    height, width = frames.shape[2:]
    # Single px of a large sensor would be too small to be seen.
    step = ceil(max(height, width) / MOST_EVENT_PX)
    counts = np.add.reduceat(frames, range(0, height, step), axis=2, dtype=np.int64)
    counts = np.add.reduceat(counts, range(0, width, step), axis=3)
    limit = np.percentile(counts[counts > 0], 95) if counts.any() else 1
    strength = np.minimum(1, counts / limit)[..., None]
    absorbed = BACKGROUND - np.array(POLARITY_COLOURS[: frames.shape[1]])[:, None, None]
    light = BACKGROUND - (strength * absorbed).sum(axis=1)
    return list(np.clip(light, 0, 255).astype(np.uint8))


def add_polarity_legend(axes: "Axes") -> None:
    """Say below the frames which colour is which polarity."""
    from matplotlib.patches import Patch

    colours = zip((*POLARITY_COLOURS, (0, 0, 0)), POLARITY_NAMES, strict=True)
    axes.legend(
        handles=[Patch(facecolor=f"#{bytes(rgb).hex()}", label=name) for rgb, name in colours],
        loc="upper left",
        bbox_to_anchor=(0, 0),
        ncols=len(POLARITY_NAMES),
        frameon=False,
        fontsize=FONT_SIZE,
        borderpad=0,
        borderaxespad=0.2,
    )


def _label_axes(axes: "Axes", heading: str, *, y: str) -> None:
    _add_heading(axes, heading)
    axes.set_xlabel("time in s", fontsize=FONT_SIZE)
    axes.set_ylabel(y, fontsize=FONT_SIZE, rotation=0, ha="right", va="center", labelpad=8)
    axes.tick_params(labelsize=FONT_SIZE)


def _add_heading(axes: "Axes", heading: str) -> None:
    figure = axes.get_figure(root=True)
    width = (figure.get_figwidth() if figure else 0) - LEFT_OF_AXES
    lines = textwrap.wrap(heading, int(CHARACTERS_PER_INCH * width))
    axes.set_title("\n".join(lines), loc="left", fontsize=FONT_SIZE)
