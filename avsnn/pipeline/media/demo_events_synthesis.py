"""The recordings of demo-events: an event camera and a silicon cochlea, simulated from a seed.

There are six classes: three moving shapes, which only the event camera sees, times two pitch
contours, which only the cochlea hears. A perfect observer of the shape alone is right in 1/2 of the
cases, a perfect observer of the sound alone in 1/3, and a perfect observer of both always.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Height and width of the event camera in px, as of the DVS128.
SIDE = 128

# Number of channels of the cochlea, as in N-TIDIGITS18, and their centre frequencies in Hz.
CHANNELS = 64
CENTRES = np.geomspace(100, 5000, CHANNELS)

# Centre frequency of a channel, divided by the width of its band.
QUALITY = 8

# A neuron of the cochlea fires when the sum of its samples has grown by this much. No sample is as
# large, so a neuron fires at most once in a sample.
SPIKE_SUM = 4.0

# Sample rate in Hz of the sound that the cochlea hears.
SAMPLE_RATE = 12_000

# The log intensity of every pixel is computed once in each step of this many us. A pixel emits at
# most one event in a step.
STEP_US = 1000

# A pixel emits no second event within this many us.
REFRACTORY_US = 1000

# Change of the log intensity that makes a pixel emit an event: mean, and standard deviation between
# the pixels.
THRESHOLD, THRESHOLD_SPREAD = 0.22, 0.02

# The lines of a real recording of the DVS128, except for the date of the recording.
HEADER = (
    b"#!AER-DAT2.0\r\n"
    b"# This is a raw AE data file - do not edit\r\n"
    b"# Data format is int32 address, int32 timestamp (8 bytes total), repeated for each event\r\n"
    b"# Timestamps tick is 1 us\r\n"
    b"# made by the generator of demo-events, not recorded by a camera\r\n"
)


class _Pixels(NamedTuple):
    """Events of an event camera: time in us, column, row and polarity (ON is 1)."""

    t: NDArray[np.int64]
    x: NDArray[np.int64]
    y: NDArray[np.int64]
    p: NDArray[np.int64]


def write_recording(path: Path, *, key: str, shape: str) -> None:
    """Write an AEDAT 2.0 file of a DVS128, 1.0 to 1.4 s long: a shape that swings to and fro.

    A ring swings sideways, a cross up and down, a triangle along the diagonal. Size, contrast,
    tilt, tempo, place and the rate of noise events differ from clip to clip.

    Args:
        path: where the recording goes.
        key: key of the clip; all random numbers come from the key.
        shape: ``ring``, ``cross`` or ``triangle``.
    """
    random = _generator(key, "visual")
    seconds = _seconds(key)
    moving, noise = _shape_events(random, shape, seconds), _noise_events(random, seconds)
    t, x, y, p = (np.concatenate(both) for both in zip(moving, noise, strict=True))
    order = np.argsort(t, kind="stable")
    # The camera counts columns from the right and rows from the bottom.
    address = (SIDE - 1 - y) << 8 | (SIDE - 1 - x) << 1 | p
    records = np.stack([address[order], t[order] - t.min()], axis=1).astype(">u4")
    path.write_bytes(HEADER + records.tobytes())


def write_sound(path: Path, *, key: str, contour: str, part: Literal["train", "test"]) -> None:
    """Write an HDF5 file in the layout of N-TIDIGITS18 with the spikes of one sound.

    The sound is 1.0 to 1.4 s long: a tone with overtones whose pitch rises or falls to a note that
    the tone then holds. Rising tones come in even pulses, falling tones in long-short pairs. Pitch,
    tempo, level and background noise differ from clip to clip.

    Args:
        path: where the file goes.
        key: key of the clip, and of the spikes in the file; all random numbers come from the key.
        contour: ``rising`` or ``falling``.
        part: the part of N-TIDIGITS18 that holds the spikes; the other part is empty.
    """
    import h5py

    random = _generator(key, "audio")
    times, channels = _cochlea_spikes(random, _sound(random, contour, _seconds(key)))
    name = key.encode()
    # The oldest file format and no times of objects: the bytes are the same on every day.
    with h5py.File(path, "w", libver="earliest") as file:
        for each in ("train", "test"):
            labels = np.array([name] if each == part else [], dtype=f"S{len(name)}")
            file.create_dataset(f"{each}_labels", data=labels, track_times=False)
            addresses = file.create_group(f"{each}_addresses")
            timestamps = file.create_group(f"{each}_timestamps")
            if each == part:
                addresses.create_dataset(key, data=channels.astype(np.uint8), track_times=False)
                timestamps.create_dataset(key, data=times, track_times=False)


def _shape_events(random: np.random.Generator, shape: str, seconds: float) -> _Pixels:
    """Return the events of a shape that swings around a place near the middle of the camera."""
    size, swing, tempo = random.uniform(6, 8), random.uniform(3, 5), random.uniform(2, 3)
    phase, tilt = random.uniform(0, 2 * np.pi), np.deg2rad(random.uniform(-12, 12))
    contrast = random.uniform(2, 4)
    middle = random.integers(50, 78, 2)
    direction = {"ring": (1.0, 0.0), "cross": (0.0, 1.0), "triangle": (0.7, 0.7)}[shape]
    # Only the pixels that the shape can reach are computed.
    reach = int(np.ceil(size * 1.2 + swing)) + 1
    times = np.arange(0, int(seconds * 1e6), STEP_US)
    offset = swing * np.sin(2 * np.pi * tempo * times / 1e6 + phase)
    grid = np.arange(-reach, reach + 1, dtype=np.float32)
    x = grid[None, None, :] - (offset * direction[0]).astype(np.float32)[:, None, None]
    y = grid[None, :, None] - (offset * direction[1]).astype(np.float32)[:, None, None]
    cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    distance = _distance(shape, cos * x + sin * y, cos * y - sin * x, np.float32(size))
    # A pixel at the edge is covered in part, which makes the edge one pixel wide.
    covered = np.clip(np.float32(0.5) - distance, 0, 1)
    light = np.log(1 + np.float32(contrast) * covered).reshape(len(times), -1)
    thresholds = random.normal(THRESHOLD, THRESHOLD_SPREAD, light.shape[1]).astype(np.float32)
    t, pixel, p = _threshold_crossings(light, thresholds)
    row, column = np.divmod(pixel, len(grid))
    return _Pixels(t, column - reach + middle[0], row - reach + middle[1], p)


def _distance(
    shape: str, x: NDArray[np.float32], y: NDArray[np.float32], size: np.float32
) -> NDArray[np.float32]:
    """Return the distance in px of each point to the edge of a shape; negative inside the shape."""
    if shape == "ring":
        return np.abs(np.hypot(x, y) - size * np.float32(0.85)) - size * np.float32(0.2)
    if shape == "cross":
        long, short = size * np.float32(1.1), size * np.float32(0.3)
        across, along = np.abs(x), np.abs(y)
        return np.minimum(
            np.maximum(across - long, along - short), np.maximum(across - short, along - long)
        )
    # The sides of a triangle whose corner points up are lines at a distance of size / 2.
    steep = np.float32(np.sqrt(0.75)) * np.abs(x) - np.float32(0.5) * y
    return np.maximum(steep, y) - size * np.float32(0.55)


def _threshold_crossings(
    light: NDArray[np.float32], thresholds: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the events of pixels: times in us, numbers of the pixels, polarities.

    A pixel remembers the log intensity of its last event and emits an event when the log intensity
    has changed by the threshold of the pixel.

    Args:
        light: log intensity of each pixel at each step ``[steps, pixels]``.
        thresholds: threshold of each pixel ``[pixels]``.
    """
    remembered = light[0].copy()
    blind_until = np.zeros(len(thresholds))
    found: list[tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.bool_]]] = []
    for step in range(1, len(light)):
        change = light[step] - remembered
        pixel = np.flatnonzero(np.abs(change) >= thresholds)
        if not len(pixel):
            continue
        sign = np.sign(change[pixel])
        # The log intensity is a straight line between two steps, so the event is as far before the
        # end of the step as the line rose above the threshold. A line that was above the threshold
        # during the whole step gives the start of the step.
        above = sign * change[pixel] - thresholds[pixel]
        rise = np.maximum(sign * (light[step, pixel] - light[step - 1, pixel]), above)
        time = (step - above / np.maximum(rise, 1e-9)) * STEP_US
        # A pixel that was blind then emits the event when the pixel sees again.
        time = np.maximum(time, blind_until[pixel])
        seen = time < step * STEP_US
        pixel, time, sign = pixel[seen], time[seen], sign[seen]
        remembered[pixel] += sign * thresholds[pixel]
        blind_until[pixel] = time + REFRACTORY_US
        found.append((time, pixel, sign > 0))
    times, pixels, polarities = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return times.astype(np.int64), pixels.astype(np.int64), polarities.astype(np.int64)


def _noise_events(random: np.random.Generator, seconds: float) -> _Pixels:
    """Return the events that pixels emit without any light, all over the camera."""
    count = random.poisson(random.uniform(0.01, 0.04) * seconds * SIDE * SIDE)
    return _Pixels(
        random.integers(0, int(seconds * 1e6), count),
        random.integers(0, SIDE, count),
        random.integers(0, SIDE, count),
        random.integers(0, 2, count),
    )


def _sound(random: np.random.Generator, contour: str, seconds: float) -> NDArray[np.float64]:
    """Return the samples of a tone in pulses; the pitch rises or falls to a note that lasts."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    beat = (time * random.uniform(4, 6) + random.uniform(0, 1)) % 1
    base, octaves = random.uniform(300, 450), random.uniform(1.2, 1.8)
    # Half of the way is over after about one fifth of the time.
    way = 1 - (1 - time / seconds) ** 3
    height = way if contour == "rising" else 1 - way
    phase = 2 * np.pi * np.cumsum(base * 2 ** (octaves * height)) / SAMPLE_RATE
    tone = np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase)
    gate = beat < 0.5 if contour == "rising" else (beat < 0.45) | ((beat > 0.6) & (beat < 0.75))
    noise = random.normal(0, random.uniform(0.01, 0.05), len(time))
    return np.asarray(random.uniform(0.2, 0.5) * tone * gate + noise)


def _cochlea_spikes(
    random: np.random.Generator, samples: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the spikes of a cochlea: times in s, which do not fall, and channels.

    Each channel is a band-pass filter of second order, a rectifier that lets positive values
    through, and a neuron that sums the values and fires whenever the sum has grown by a threshold.
    """
    responses = _cochlea_responses()
    length = 2 * (responses.shape[1] - 1)
    channels = np.fft.irfft(np.fft.rfft(samples, length) * responses, length)[:, : len(samples)]
    # The neurons do not start together: each starts somewhere on the way to its first spike.
    sums = np.cumsum(np.maximum(channels, 0), axis=1) / SPIKE_SUM
    sums += random.uniform(0, 1, (CHANNELS, 1))
    channel, sample = np.nonzero(np.diff(np.floor(sums), axis=1, prepend=0))
    # The clock of the cochlea counts us.
    times = np.round(sample / SAMPLE_RATE * 1e6) / 1e6
    order = np.argsort(times, kind="stable")
    return times[order], channel[order]


@cache
def _cochlea_responses() -> NDArray[np.complex128]:
    """Return the response of each channel to each frequency ``[channels, frequencies]``."""
    # The longest sound has 16,800 samples. The zeros behind a sound keep its end from running into
    # its start, and a length of small prime factors makes the Fourier transform fast.
    length = 9 * 2**11
    frequency = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)[1:]
    detuning = frequency / CENTRES[:, None] - CENTRES[:, None] / frequency
    # No channel lets a constant through.
    return np.pad(1 / (1 + 1j * QUALITY * detuning), [(0, 0), (1, 0)])


def _seconds(key: str) -> float:
    """Return the duration of a clip in s, which is the same for the picture and the sound."""
    return float(_generator(key, "duration").uniform(1.0, 1.4))


def _generator(key: str, kind: str) -> np.random.Generator:
    """Return a generator of random numbers that depends on the clip and the kind alone."""
    seed = hashlib.sha256(f"avsnn demo-events {kind} {key}".encode()).digest()
    return np.random.Generator(np.random.Philox(int.from_bytes(seed[:8], "little")))
