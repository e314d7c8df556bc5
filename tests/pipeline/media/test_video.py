from pathlib import Path

import cv2
import numpy as np
import pytest

from avsnn.pipeline.media import MediaError, video
from avsnn.pipeline.media.synthesize import write_video

# File, frames that can be decoded, frames of the published one-per-second rule.
REAL_CLIPS = [
    ("grid_bbaf2n.mpg", 75, 3),
    ("grid_lbax4n.mpg", 75, 3),
    ("grid_swiz3n.mpg", 75, 3),
    ("tika_testFLV.flv", 28, 2),
    ("decord_flipping_a_pancake.mkv", 310, 11),
    ("torchcodec_nasa_13013.mp4", 325, 13),
]


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


def test_a_corrupt_real_clip_is_refused_with_its_counts(shared_data: Path) -> None:
    with pytest.raises(MediaError, match="28 frames of the 50 its header promises"):
        video.decode_video(shared_data / "clips" / "decord_corrupted.mp4", "1fps")


@pytest.mark.parametrize("rule", ["1fps", 3])
def test_both_decoders_give_the_same_pixels_of_a_flash_video(
    shared_data: Path, rule: video.FrameRule
) -> None:
    pytest.importorskip("decord", reason="decord has no build for this machine")
    path = shared_data / "clips" / "tika_testFLV.flv"
    ours, theirs = video._by_opencv(path, rule), video._by_decord(path, rule)
    assert ours is not None
    assert theirs is not None
    assert [f.tolist() for f in ours.frames] == [f.tolist() for f in theirs.frames]


def test_frames_asked_for_beyond_the_clip_repeat(clip: Path) -> None:
    total = video.decode_video(clip, "1fps").total
    decoded = video.decode_video(clip, 3 * total)
    assert len(decoded.frames) == 3 * total
    assert (decoded.frames[0] == decoded.frames[1]).all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
        (b"\x00garbage" * 500, "cannot be decoded|no decoder"),
    ],
)
def test_what_is_no_video_is_refused_with_its_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=reason):
        video.decode_video(path, "1fps")


def test_an_image_is_decoded_to_the_pixels_it_was_made_of() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    data = bytes(cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1])
    assert (video.decode_image(data) == pixels).all()
    assert video.image_suffix(data) == "png"


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x89PNG\r\n\x1a\n" + b"\x00" * 40])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(MediaError, match="not an image"):
        video.decode_image(data)
