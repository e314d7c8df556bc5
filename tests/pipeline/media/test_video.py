import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from avsnn.pipeline.media import image, video
from avsnn.pipeline.media.demo_synthesis import write_video
from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.flv import read_flv_tags
from avsnn.pipeline.media.frames import Frame, FrameRule, spread_evenly
from tests.fake_clips import make_clip

# File, number of frames that can be decoded, number of frames of the published rule ``1fps``.
REAL_CLIPS = [
    ("grid_bbaf2n.mpg", 75, 3),
    ("grid_lbax4n.mpg", 75, 3),
    ("grid_swiz3n.mpg", 75, 3),
    ("tika_testFLV.flv", 28, 2),
    ("decord_flipping_a_pancake.mkv", 310, 11),
    ("torchcodec_nasa_13013.mp4", 325, 13),
]


@pytest.fixture
def flash(tmp_path: Path) -> Path:
    """A flash video of 75 frames, with sound of the same duration, 2.5 s."""
    path = tmp_path / "clip.flv"
    path.write_bytes(make_clip("1001_DFA_ANG_XX", seconds=2.5025).flv)
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    write_video(path, key="any", shape="ring")
    return path


@pytest.mark.parametrize(("name", "total", "per_second"), REAL_CLIPS)
def test_real_clips_decode_with_all_their_frames(
    shared_data: Path, name: str, total: int, per_second: int
) -> None:
    decoded = video.decode_video(shared_data / "clips" / name, "1fps")
    assert (decoded.total, len(decoded.frames)) == (total, per_second)
    assert len(video.decode_video(shared_data / "clips" / name, 5).frames) == 5


@pytest.mark.parametrize("rule", ["1fps", 1, 4, 16])
def test_a_corrupt_real_clip_is_refused_with_its_counts(shared_data: Path, rule: FrameRule) -> None:
    path = shared_data / "clips" / "decord_corrupted.mp4"
    with pytest.raises(MediaError, match="is corrupt: 28 of its 50 frames can be decoded"):
        video.decode_video(path, rule)


def read_all_with_opencv(path: Path) -> list[Frame]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(np.asarray(read[1], np.uint8)[..., ::-1])
    return frames


@pytest.mark.parametrize("rule", ["1fps", 1, 4, 16])
@pytest.mark.parametrize("source", ["real", "like CREMA-D", "long", "MPEG-1", "H.264"])
def test_the_pixels_are_those_that_opencv_reads_from_the_start(
    shared_data: Path, flash: Path, source: str, rule: FrameRule
) -> None:
    names = {"real": "tika_testFLV.flv", "MPEG-1": "grid_bbaf2n.mpg"}
    names |= {"H.264": "torchcodec_nasa_13013.mp4"}
    path = shared_data / "clips" / names[source] if source in names else flash
    if source == "long":
        path.write_bytes(make_clip("1001_DFA_ANG_XX", seconds=20).flv)
    frames = read_all_with_opencv(path)
    decoded = video.decode_video(path, rule)
    assert decoded.total == len(frames)
    step = int(decoded.fps)
    wanted = range(0, len(frames), step) if rule == "1fps" else spread_evenly(len(frames), rule)
    assert np.array_equal(decoded.frames, [frames[i] for i in wanted])


def write_numbered_video(path: Path, fourcc: str, fps: float, count: int) -> Path:
    """Write a video whose frame ``i`` shows the bits of ``i`` as eight black or white stripes."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*fourcc), fps, (64, 48))
    for i in range(count):
        stripes = np.unpackbits(np.uint8(i)).repeat(8) * 255
        writer.write(np.broadcast_to(stripes[None, :, None], (48, 64, 3)).astype(np.uint8))
    writer.release()
    return path


def read_numbers(frames: list[Frame]) -> list[int]:
    """Return the numbers that frames of :func:`write_numbered_video` show."""
    return [int(np.packbits(frame[24, 4::8, 0] > 127)[0]) for frame in frames]


CONTAINERS = [("a.flv", "FLV1"), ("a.mp4", "mp4v"), ("a.avi", "MJPG"), ("a.mkv", "mp4v")]


@pytest.mark.parametrize(("name", "fourcc"), CONTAINERS)
@pytest.mark.parametrize(
    ("fps", "count", "expected"),
    [
        (29.97, 75, [0, 29, 58]),
        (29.97, 58, [0, 29]),
        (30, 61, [0, 30, 60]),
        (25, 76, [0, 25, 50, 75]),
        (12.5, 13, [0, 12]),
    ],
)
def test_the_published_rule_takes_every_nth_frame_where_n_is_the_rate_rounded_down(
    tmp_path: Path, name: str, fourcc: str, fps: float, count: int, expected: list[int]
) -> None:
    path = write_numbered_video(tmp_path / name, fourcc, fps, count)
    decoded = video.decode_video(path, "1fps")
    assert (decoded.total, read_numbers(decoded.frames)) == (count, expected)


@pytest.mark.parametrize(("name", "fourcc"), CONTAINERS)
@pytest.mark.parametrize(
    ("frames", "count", "expected"),
    [
        (1, 75, [37]),
        (4, 76, [9, 28, 47, 66]),
        (4, 4, [0, 1, 2, 3]),
        (3, 2, [0, 1, 1]),
        (16, 64, [2 + 4 * i for i in range(16)]),
    ],
)
def test_a_given_number_of_frames_is_spread_evenly_over_the_clip(
    tmp_path: Path, name: str, fourcc: str, frames: int, count: int, expected: list[int]
) -> None:
    path = write_numbered_video(tmp_path / name, fourcc, 25, count)
    assert read_numbers(video.decode_video(path, frames).frames) == expected


def count_by_opencv(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


@pytest.mark.parametrize("seconds", [1.3, 2.5, 5.0])
@pytest.mark.parametrize("rule", ["1fps", 4])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_flash_video_is_refused_although_opencv_reads_it(
    tmp_path: Path, seconds: float, rule: FrameRule, share: float
) -> None:
    files = make_clip("1001_DFA_ANG_XX", seconds=seconds)
    path = tmp_path / "clip.flv"
    path.write_bytes(files.flv)
    whole = video.decode_video(path, rule, sound_seconds=seconds)
    path.write_bytes(files.flv[: int(share * len(files.flv))])
    assert 0 < count_by_opencv(path) <= whole.total
    with pytest.raises(MediaError, match=r"is truncated: (it breaks off after )?\d+"):
        video.decode_video(path, rule, sound_seconds=seconds)


def test_the_tags_of_a_flash_video_show_a_cut(shared_data: Path, flash: Path) -> None:
    assert read_flv_tags(shared_data / "clips" / "tika_testFLV.flv") == (28, True)
    assert read_flv_tags(flash) == (75, True)
    data = flash.read_bytes()
    flash.write_bytes(data + bytes(100))
    assert read_flv_tags(flash) == (75, True)
    flash.write_bytes(data[:-9])
    assert not read_flv_tags(flash).is_whole


def test_a_flash_video_with_damaged_bytes_in_the_middle_is_refused(flash: Path) -> None:
    data = flash.read_bytes()
    half = len(data) // 2
    flash.write_bytes(data[:half] + bytes(half // 2) + data[half + half // 2 :])
    for rule in ("1fps", 4, 16):
        with pytest.raises(MediaError, match=r"is (corrupt|truncated): \d+ of"):
            video.decode_video(flash, rule, sound_seconds=2.5)


def test_a_wrong_duration_in_a_header_is_ignored_if_decoders_and_sound_agree(flash: Path) -> None:
    data = flash.read_bytes()
    start = data.index(b"duration") + len(b"duration") + 1
    flash.write_bytes(data[:start] + struct.pack(">d", 60.0) + data[start + 8 :])
    assert video.decode_video(flash, "1fps", sound_seconds=2.5).total == 75
    with pytest.raises(MediaError, match=r"is truncated: 75 of the 1[78]\d\d frames"):
        video.decode_video(flash, "1fps", sound_seconds=4.0)


@pytest.mark.parametrize("rule", ["1fps", 4])
def test_a_video_must_last_about_as_long_as_its_sound(flash: Path, rule: FrameRule) -> None:
    for seconds in (2.4, 2.7):
        assert video.decode_video(flash, rule, sound_seconds=seconds).total == 75
    with pytest.raises(MediaError, match=r"lasts 2.5 s where its sound lasts 1.0 s"):
        video.decode_video(flash, rule, sound_seconds=1.0)
    with pytest.raises(MediaError, match=r"is truncated: 2.5 s of picture for 3.0 s of sound$"):
        video.decode_video(flash, rule, sound_seconds=3.0)


def test_frames_repeat_if_more_are_requested_than_the_clip_has(clip: Path) -> None:
    total = video.decode_video(clip, "1fps").total
    decoded = video.decode_video(clip, 3 * total)
    assert len(decoded.frames) == 3 * total
    assert (decoded.frames[0] == decoded.frames[1]).all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
        (b"\x00garbage" * 500, "is not a video that"),
        (b"FLV\x01 is how a flash video starts, and no more", "is not a video that"),
    ],
)
def test_a_file_that_holds_no_video_is_refused_with_its_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=reason):
        video.decode_video(path, "1fps")


def test_a_png_image_is_decoded_to_its_original_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    data = bytes(cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1])
    assert (image.decode_image(data) == pixels).all()
    assert image.image_suffix(data) == "png"


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x89PNG\r\n\x1a\n" + b"\x00" * 40])
def test_data_that_are_no_image_are_refused(data: bytes) -> None:
    with pytest.raises(MediaError, match="not an image"):
        image.decode_image(data)
