"""Draws clips that are made by hand, and reads the texts and the pixels of the figure."""

from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import soundfile
from matplotlib.figure import Figure
from numpy.typing import NDArray

from avsnn.datasets_manifest import load
from avsnn.errors import UserError
from avsnn.pipeline.formats.clip_index import IndexRow
from avsnn.pipeline.formats.event_npz import event_npz
from avsnn.pipeline.formats.prepare_settings import AudioSettings, EventSettings, PrepareSettings
from avsnn.pipeline.formats.shards import EventSensors, Member, Sample
from avsnn.pipeline.inspection.clip import Clip
from avsnn.pipeline.inspection.draw import draw_clip
from avsnn.pipeline.inspection.panels import BACKGROUND, POLARITY_COLOURS, colour_polarities
from avsnn.pipeline.media.events import Events, Sensor
from avsnn.pipeline.media.image import encode_jpeg
from avsnn.pipeline.pictures import png

RATE = 22050
CAMERA, COCHLEA = Sensor(2, 32, 32), Sensor(1, 1, 64)


def make_clip(
    members: dict[str, bytes], settings: PrepareSettings, *, name: str = "a", **facts: Any
) -> Clip:
    row = IndexRow(
        key="key-1",
        label=0,
        label_name=name,
        group="g",
        part="val",
        splits={"published": "val"},
        audio="a",
        visual="v",
        sha256={},
    )
    sample = Sample(
        key="key-1",
        label=0,
        splits=row.splits,
        members={name: Member(0, len(data), 0) for name, data in members.items()},
        **{"frames": 0, "height": 24, "width": 32, "audio_seconds": 1, "audio_rate": RATE, **facts},
    )
    manifest = load("demo")
    return Clip(manifest, settings, row, "published", sample, Path("s.tar"), members, clips=1)


def make_video(*, frames: int, hz: float = 1000.0, name: str = "a", **audio: Any) -> Clip:
    """Return a clip whose frame n has the grey level 4 * n, and whose sound is a tone of 2 s."""
    flac = BytesIO()
    tone = 0.5 * np.sin(2 * np.pi * hz * np.arange(2 * RATE) / RATE)
    soundfile.write(flac, tone, RATE, format="FLAC")
    images = {
        f"{n}.jpg": encode_jpeg(np.full((24, 32, 3), 4 * n, np.uint8), 95) for n in range(frames)
    }
    settings = PrepareSettings(audio=AudioSettings(**audio))
    return make_clip({**images, "flac": flac.getvalue()}, settings, name=name, frames=frames)


def make_events(seen: Events, heard: Events, **events: Any) -> Clip:
    settings = PrepareSettings(events=EventSettings(**events))
    sensors = EventSensors(
        visual=seen.sensor,
        audio=heard.sensor,
        visual_events=len(seen.t),
        audio_events=len(heard.t),
    )
    members = {"visual.npz": event_npz(seen), "audio.npz": event_npz(heard)}
    return make_clip(members, settings, events=sensors)


def camera_events(t: list[int], p: list[int]) -> Events:
    places = np.full(len(t), 16, np.uint8)
    return Events(np.array(t), places, places, np.array(p, np.uint8), CAMERA)


def cochlea_events(t: list[float], channels: list[int]) -> Events:
    zeros = np.zeros(len(t), np.uint8)
    return Events(np.array(t), np.array(channels, np.uint8), zeros, zeros, COCHLEA)


def names_of_frames(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def image_of(figure: Figure, axes: int) -> NDArray[Any]:
    return np.asarray(figure.axes[axes].images[0].get_array())


def heading(figure: Figure, axes: int) -> str:
    return figure.axes[axes].get_title(loc="left").replace("\n", " ")


def loudest_hz(figure: Figure) -> float:
    """Return the frequency of the loudest row, read from the axis as a person reads it."""
    axes = figure.axes[1]
    low, high = axes.get_ylim()
    levels = image_of(figure, 1).max(axis=1)
    place = low + (np.argmax(levels) + 0.5) / len(levels) * (high - low)
    ticks = axes.get_yticks()
    texts = [label.get_text().replace("\N{MINUS SIGN}", "-") for label in axes.get_yticklabels()]
    return float(np.interp(place, ticks, [float(text) for text in texts]))


def test_a_picture_says_which_clip_it_shows_and_what_its_axes_are() -> None:
    figure = draw_clip(make_video(frames=2))
    assert (
        figure.get_suptitle() == "key-1\nclass a; part val of the split published; 2.0 s of sound"
    )
    assert heading(figure, 0) == "2 frames, about one per second"
    assert names_of_frames(figure) == ["frame 0", "frame 1"]
    sound = figure.axes[1]
    assert heading(figure, 1) == "sound: STFT (window 512, hop 353, 22,050 Hz)"
    assert (sound.get_xlabel(), sound.get_ylabel()) == ("time in s", "Hz")
    assert sound.get_xlim() == pytest.approx((0, 2), abs=0.02)
    assert sound.get_ylim() == pytest.approx((0, 11025), abs=25)
    picture = cv2.imdecode(np.frombuffer(png(figure), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    height, width, _ = picture.shape
    assert (width, 500 < height < 1500) == (1235, True)


@pytest.mark.parametrize("hz", [500, 2000, 8000])
@pytest.mark.parametrize("mels", [None, 64])
def test_a_tone_stands_at_its_frequency(hz: int, mels: int | None) -> None:
    kind = "log-stft" if mels is None else "log-mel"
    figure = draw_clip(make_video(frames=1, hz=hz, kind=kind, n_mels=mels))
    assert loudest_hz(figure) == pytest.approx(hz, rel=0.05)


def test_a_long_clip_shows_frames_from_everywhere_and_says_how_many() -> None:
    figure = draw_clip(make_video(frames=60))
    names = names_of_frames(figure)
    assert (names[0], names[-1], len(names)) == ("frame 1", "frame 58", 16)
    assert heading(figure, 0) == "16 of 60 frames, about one per second"
    strip = image_of(figure, 0)
    for text, name in zip(figure.axes[0].texts, names, strict=True):
        x, bottom = text.xy
        assert abs(int(strip[int(bottom) - 12, int(x), 0]) - 4 * int(name.split()[1])) <= 2
    assert len(names_of_frames(draw_clip(make_video(frames=60), width=5.0))) == 6


def test_noise_of_the_cache_is_in_the_spectrogram_and_its_heading() -> None:
    figure = draw_clip(make_video(frames=1, noise_snr=-5.0))
    assert heading(figure, 1).endswith("with noise at -5 dB SNR")
    quiet = image_of(draw_clip(make_video(frames=1)), 1)
    assert np.median(image_of(figure, 1)) > np.median(quiet) + 20


def test_names_that_are_no_formula_or_very_long_or_not_in_the_font_are_drawn(
    recwarn: pytest.WarningsRecorder,
) -> None:
    for name in (r"$\frac{", "long " * 1000, "犬"):
        figure = draw_clip(make_video(frames=1, name=name))
        assert png(figure)
        assert len(figure.get_suptitle()) < 200
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_an_hour_of_sound_takes_no_more_pixels_than_a_minute() -> None:
    clip = make_video(frames=1, hop=1)
    assert image_of(draw_clip(clip), 1).shape[1] <= 2000
    assert draw_clip(clip).axes[1].get_xlim() == pytest.approx((0, 2), abs=0.01)


def test_a_file_that_cannot_be_decoded_is_one_sentence() -> None:
    clip = make_video(frames=1)
    with pytest.raises(UserError, match=r"s\.tar is damaged \(a frame of the clip key-1 "):
        draw_clip(clip._replace(members={**clip.members, "0.jpg": b"no image"}))
    seen, heard = camera_events([0, 1], [0, 1]), cochlea_events([0.0, 1.0], [0, 1])
    events = make_events(seen, heard)
    with pytest.raises(UserError, match=r"s\.tar is damaged \(the events of the clip key-1 "):
        draw_clip(events._replace(members={**events.members, "audio.npz": b"no events"}))


def test_event_frames_have_their_times_and_the_colours_of_their_polarities() -> None:
    seen = camera_events([1_000_000, 1_400_000, 1_900_000, 3_000_000], [0, 1, 1, 0])
    figure = draw_clip(make_events(seen, cochlea_events([0.5, 1.5], [3, 60]), steps=4, crop=None))
    assert figure.get_suptitle().endswith("2.00 s of vision, 1.00 s of sound")
    assert names_of_frames(figure) == ["0.00-0.50", "0.50-1.00", "1.00-1.50", "1.50-2.00"]
    assert heading(figure, 0) == "4 event frames of 32 x 32 px, times in s; 4 events"
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [t.get_text() for t in legend.get_texts()] == ["OFF (darker)", "ON (brighter)", "both"]
    strip = image_of(figure, 0)
    pixels = {tuple(rgb) for rgb in strip.reshape(-1, 3).tolist()}
    assert pixels == {(255,) * 3, (BACKGROUND,) * 3, *POLARITY_COLOURS, (0, 0, 0)}


def test_bins_of_equal_counts_are_named_by_the_times_of_their_events() -> None:
    seen = camera_events([0, 100_000, 200_000, 1_000_000], [0, 0, 0, 0])
    heard = cochlea_events([0.0], [0])
    figure = draw_clip(make_events(seen, heard, steps=2, bins="count"))
    assert names_of_frames(figure) == ["0.00-0.20", "0.20-1.00"]


def test_a_raster_has_a_mark_at_the_channel_and_the_time_of_every_event() -> None:
    figure = draw_clip(
        make_events(camera_events([0, 1], [0, 1]), cochlea_events([7.0, 7.5, 9.0], [3, 60, 8]))
    )
    sound = figure.axes[1]
    assert heading(figure, 1) == "sound: 3 events of 64 channels"
    assert (sound.get_xlabel(), sound.get_ylabel()) == ("time in s", "channel")
    assert (sound.get_xlim(), sound.get_ylim()) == ((0, 2), (-0.5, 63.5))
    channels, columns = np.nonzero(image_of(figure, 1))
    assert list(channels) == [3, 8, 60]
    assert columns / 400 * 2 == pytest.approx([0, 2, 0.5], abs=0.01)


def test_recordings_without_events_or_of_a_single_moment_are_drawn() -> None:
    nothing = cochlea_events([], [])
    for seen in (camera_events([], []), camera_events([5, 5], [0, 1])):
        for bins in ("time", "count"):
            figure = draw_clip(make_events(seen, nothing, bins=bins))
            assert len(names_of_frames(figure)) == 16
    assert png(figure)


def test_a_single_event_on_a_large_sensor_can_be_seen() -> None:
    frames = np.zeros((1, 2, 480, 640), np.uint8)
    frames[0, 1, 100, 200] = 1
    (image,) = colour_polarities(frames)
    assert image.shape == (48, 64, 3)
    assert tuple(image[10, 20]) == POLARITY_COLOURS[1]
