"""Files made after public bug reports, each with its right value (`../shared/cases`)."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avsnn.pipeline.media import audio, image, video
from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.frames import Frame

# File, number of samples that the file holds.
SOUNDS = [
    ("gsm610.wav", 8000),
    ("unknown_total.flac", 16000),
    ("xing_huge.mp3", 16175),
    ("tone_44100_cbr_plain.mp3", 133_632),
    ("loud_quiet_16000_vbr_plain.mp3", 49_536),
    ("riff_is_file_size.wav", 16000),
    ("odd_data_no_pad.wav", 15999),
    ("sox_pipe.wav", 16000),
    ("arecord_killed.wav", 16000),
    ("aac.m4a", 16000),
]

# File, words of the reason for which the file is refused.
REFUSED_SOUNDS = [
    ("rate1.wav", "has a sample rate of 1 Hz"),
    ("antiphase.wav", r"silent when its channels are mixed: the peak of their mean is -96 dBFS"),
    ("cut_data.wav", "is truncated: 16044 of the 32044 bytes its header promises"),
    ("cut.aiff", "is truncated: 16027 of the 32054 bytes its header promises"),
    ("noise_cut.ogg", "is truncated: its last page is not the end of its stream"),
    ("float_unscaled.wav", "holds samples up to 16,383"),
]

# File, number of frames, numbers of the frames of the rule ``1fps``.
VIDEOS = [
    ("interlaced.mp4", 75, [0, 25, 50]),
    ("mirror.mp4", 75, None),
    ("vflip.mp4", 75, None),
    ("vfr.mp4", 50, [0, 30, 35, 40, 45]),
    ("vfr.mkv", 50, [0, 30, 35, 40, 45]),
    ("trimmed.mp4", 35, [40, 65]),
    ("recorder.webm", 60, [0, 23, 49]),
]


def read_number(frame: Frame) -> int:
    """Return the number that a frame shows as 8 bars in the second third of its height."""
    row = frame[frame.shape[0] // 2, :, :].mean(axis=1)
    bars = [bar[len(bar) // 4 : -len(bar) // 4].mean() for bar in np.array_split(row, 8)]
    return int(np.packbits([bar > 127 for bar in bars])[0])


def read_corners(frame: Frame) -> str:
    """Return the colours of the corners: top left, top right, bottom left, bottom right."""
    colours = {(1, 0, 0): "R", (0, 1, 0): "G", (0, 0, 1): "B", (1, 1, 0): "Y"}
    corners = frame[4, 4], frame[4, -5], frame[-5, 4], frame[-5, -5]
    return "".join(colours[tuple(int(c) for c in corner > 127)] for corner in corners)


@pytest.mark.parametrize(("name", "count"), SOUNDS)
def test_a_sound_gives_all_its_samples_twice_the_same(cases: Path, name: str, count: int) -> None:
    flac, seconds, rate = audio.transcode_to_flac(cases / name)
    assert len(soundfile.read(BytesIO(flac))[0]) == round(seconds * rate) == count
    assert audio.transcode_to_flac(cases / name)[0] == flac


@pytest.mark.parametrize(("name", "reason"), REFUSED_SOUNDS)
def test_a_sound_that_is_not_right_is_refused(cases: Path, name: str, reason: str) -> None:
    with pytest.raises(MediaError, match=reason):
        audio.transcode_to_flac(cases / name)


@pytest.mark.parametrize(("name", "total", "numbers"), VIDEOS)
def test_a_video_gives_a_frame_per_second_twice_the_same(
    cases: Path, name: str, total: int, numbers: list[int] | None
) -> None:
    decoded = video.decode_video(cases / name, "1fps")
    assert decoded.total == total
    if numbers is not None:
        assert [read_number(frame) for frame in decoded.frames] == numbers
    again = video.decode_video(cases / name, "1fps")
    assert np.array_equal(decoded.frames, again.frames)


@pytest.mark.parametrize(("name", "corners"), [("mirror.mp4", "GRYB"), ("vflip.mp4", "BYRG")])
def test_a_video_is_flipped_as_its_display_matrix_says(
    cases: Path, name: str, corners: str
) -> None:
    frames = video.decode_video(cases / name, "1fps").frames
    assert [read_corners(frame) for frame in frames] == [corners] * 3


def test_a_video_without_a_key_frame_at_its_start_is_refused(cases: Path) -> None:
    with pytest.raises(MediaError, match="starts without a key frame"):
        video.decode_video(cases / "no_first_key.flv", "1fps")


def test_an_image_that_claims_too_many_pixels_is_refused_before_it_is_decoded(cases: Path) -> None:
    with pytest.raises(MediaError, match="declares 40,000 x 40,000 px"):
        image.decode_image((cases / "claims_40000.png").read_bytes())
