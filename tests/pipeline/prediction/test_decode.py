"""What is decoded of files that lack a modality, are silent or are no media at all."""

import wave
from pathlib import Path

import av
import numpy as np
import pytest

from avsnn.pipeline.formats.prepare_settings import ExtractSettings
from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.image import encode_jpeg
from avsnn.pipeline.prediction.decode import Members, decode_media
from avsnn.pipeline.prediction.find_clips import File
from avsnn.pipeline.prepare.clip_members import read_video_members

SETTINGS = ExtractSettings()


def decode(visual: Path | None, sound: Path | None = None) -> Members:
    files = [path and File(path, "", path.parent, False) for path in (visual, sound)]
    return decode_media(files[0], files[1], SETTINGS)


def write_wav(path: Path, samples: np.ndarray) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def write_video(path: Path, *, sound: np.ndarray | None = None, picture: bool = True) -> Path:
    """Write 2 s of MPEG-4 in Matroska, with sound if there are samples of 8000 Hz."""
    with av.open(path, "w") as container:
        video = container.add_stream("mpeg4", rate=10, width=32, height=32) if picture else None
        if sound is not None:
            audio = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        if video is not None:
            for number in range(20):
                frame = np.full((32, 32, 3), number * 10, np.uint8)
                container.mux(video.encode(av.VideoFrame.from_ndarray(frame)))
            container.mux(video.encode())
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(sound.astype(np.int16)[None], layout="mono")
            frame.sample_rate = 8000
            container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path


TONE = 9000 * np.sin(np.arange(16000) / 5)
NO_TONE = np.zeros(16000)


def write_jpeg(path: Path) -> Path:
    path.write_bytes(encode_jpeg(np.full((20, 30, 3), 99, np.uint8), 95))
    return path


def test_a_video_with_sound_is_a_whole_clip(tmp_path: Path) -> None:
    members = decode(write_video(tmp_path / "a.mkv", sound=TONE))
    assert members.visual
    assert members.audio
    assert members.reason == ""


@pytest.mark.parametrize(
    ("sound", "reason"),
    [(None, "there is no sound"), (NO_TONE, "the sound is digital silence from start to end")],
)
def test_a_video_that_cannot_be_heard_is_seen(
    tmp_path: Path, sound: np.ndarray | None, reason: str
) -> None:
    members = decode(write_video(tmp_path / "a.mkv", sound=sound))
    assert members.visual
    assert (members.audio, members.reason) == (None, reason)


def test_a_container_of_sound_alone_is_heard_whatever_its_name_is(tmp_path: Path) -> None:
    members = decode(write_video(tmp_path / "a.mkv", sound=TONE, picture=False))
    assert members.audio
    assert (members.visual, members.reason) == (None, "there is no picture")
    assert decode(None, tmp_path / "a.mkv") == members


def test_an_image_is_known_by_its_content_and_keeps_its_bytes(tmp_path: Path) -> None:
    image = write_jpeg(tmp_path / "image.mp4")
    sound = write_wav(tmp_path / "sound.wav", TONE)
    members = decode(image, sound)
    assert members.visual == image.read_bytes()
    assert members.audio
    silent = decode(image, write_wav(tmp_path / "silent.wav", NO_TONE))
    assert (silent.audio, silent.reason) == (None, "the sound is digital silence from start to end")
    assert decode(image).reason == "there is no sound"


def test_the_frame_of_a_video_is_the_middle_of_the_wanted_frames(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mkv")
    images, _ = read_video_members(video, SETTINGS, None)
    assert list(images) == ["0.jpg", "1.jpg"]
    assert decode(video).visual == images["1.jpg"]


BAD = {
    "empty": (b"", "the file is empty"),
    "garbage": (b"\x07garbage" * 500, "the file is no picture, sound or video that can be decoded"),
    "text": (b"not a clip\n", "the file is no picture, sound or video that can be decoded"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "the file is a Git LFS pointer, not the file itself",
    ),
    "cut image": (b"\xff\xd8\xff\xe0", "the picture is not an image that can be decoded"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_has_its_reason(tmp_path: Path, case: str) -> None:
    data, reason = BAD[case]
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(MediaError, match=f"^{reason}$"):
        decode(tmp_path / "a.mp4")


def test_silence_alone_and_a_damaged_sound_are_refused(tmp_path: Path) -> None:
    silent = write_wav(tmp_path / "silent.wav", NO_TONE)
    with pytest.raises(MediaError, match=r"^the sound is digital silence .* there is no picture$"):
        decode(None, silent)
    cut = write_wav(tmp_path / "cut.wav", TONE)
    cut.write_bytes(cut.read_bytes()[:9000])
    with pytest.raises(MediaError, match=r"^the sound is truncated"):
        decode(write_jpeg(tmp_path / "a.jpg"), cut)
