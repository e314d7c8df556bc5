from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from avsnn.pipeline.media import audio
from avsnn.pipeline.media import demo_motion_synthesis as synthesis
from avsnn.pipeline.media.video import decode_video

CLIPS = 40


def frames_of(path: Path, key: str, motion: str) -> np.ndarray:
    """Brightness of the decoded frames, ``[8, 64, 64]``."""
    synthesis.write_video(path, key=key, motion=motion)
    decoded = decode_video(path, "1fps", sound_seconds=8.0, transform=lambda frame: frame)
    return np.stack(decoded.frames).mean(-1)


def shift(first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
    """Rows and columns by which a picture was moved around, from -32 to 31."""
    product = np.fft.fft2(second) * np.fft.fft2(first - first.mean()).conj()
    place = np.unravel_index(np.fft.ifft2(product).real.argmax(), first.shape)
    down, right = ((int(p) + 32) % 64 - 32 for p in place)
    return down, right


@pytest.mark.parametrize("motion", synthesis.DIRECTIONS)
def test_two_frames_tell_the_motion_and_one_frame_tells_nothing(
    tmp_path: Path, motion: str
) -> None:
    right, down = synthesis.DIRECTIONS[motion]
    centres = []
    for number in range(CLIPS):
        frames = frames_of(tmp_path / "a.mp4", f"{motion}-{number}", motion)
        assert frames.shape == (8, 64, 64)
        for first, second in pairwise(frames):
            rows, columns = shift(first, second)
            assert 3 <= rows * down + columns * right <= 9
            assert abs(rows * right) + abs(columns * down) <= 1
        square = frames[4] - frames[4].min()
        waves = np.exp(2j * np.pi * np.arange(64) / 64)
        centres.append([np.angle((square.sum(axis) * waves).sum()) for axis in (0, 1)])
    # On a circle, places that are equally likely everywhere have a mean near its centre.
    assert (np.abs(np.exp(1j * np.array(centres)).mean(0)) < 3 / np.sqrt(CLIPS)).all()


def test_the_bytes_come_from_the_key_alone_and_the_sound_is_noise(tmp_path: Path) -> None:
    for name, key in (("a", "one"), ("b", "one"), ("c", "two")):
        synthesis.write_video(tmp_path / f"{name}.mp4", key=key, motion="up")
        (tmp_path / f"{name}.wav").write_bytes(synthesis.audio_bytes(key=key))
    for ending in ("mp4", "wav"):
        a, b, c = ((tmp_path / f"{name}.{ending}").read_bytes() for name in "abc")
        assert a == b
        assert a != c
    samples = audio.read((tmp_path / "a.wav").read_bytes()).samples
    assert len(samples) == 8 * synthesis.SAMPLE_RATE
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    low, high = np.split(spectrum[1:-1][: len(spectrum) // 2 * 2 - 2], 2)
    assert 0.8 < low.mean() / high.mean() < 1.25
