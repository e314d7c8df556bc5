"""Media files that are cut or damaged in places where decoders go on without an error."""

import random
import struct
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import soundfile

from avsnn.pipeline.media import audio, image, video
from avsnn.pipeline.media.errors import MediaError
from tests.fake_clips import make_clip
from tests.pipeline.media import test_sound_kinds as sounds
from tests.pipeline.media import test_video_kinds as videos

CLUSTER, CUES = b"\x1f\x43\xb6\x75", b"\x1c\x53\xbb\x6b"


def noise() -> sounds.Signal:
    return sounds.tone(32000) + np.random.default_rng(0).normal(0, 0.05, 32000)


def write_sound(path: Path, codec: str, **options: str) -> bytes:
    """Write 2 s of sound and return the bytes of the file."""
    return sounds.encode(path, codec, noise(), 16000, **options).read_bytes()


def write_video(path: Path, codec: str, **options: str) -> bytes:
    """Write 60 numbered frames and return the bytes of the file."""
    return videos.encode(path, codec, videos.constant(60), **options).read_bytes()


def read_video(path: Path) -> object:
    return video.decode_video(path, "1fps")


def with_flips(data: bytes, first: int, count: int) -> Iterator[bytes]:
    """Yield the data with one other byte, ``count`` times; no byte before ``first`` changes."""
    places = random.Random(0)
    for _ in range(count):
        at = places.randrange(first, len(data))
        yield data[:at] + bytes([data[at] ^ places.randrange(1, 256)]) + data[at + 1 :]


@pytest.mark.parametrize("codec", ["libx264", "libvpx", "libvpx-vp9", "mpeg4", "ffv1"])
def test_a_matroska_video_with_a_flipped_byte_is_refused(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.mkv"
    data = write_video(path, codec)
    read_video(path)
    for flipped in with_flips(data[: data.rindex(CUES)], data.rindex(CLUSTER), 12):
        path.write_bytes(flipped + data[len(flipped) :])
        with pytest.raises(MediaError, match=r"is (corrupt|truncated)"):
            read_video(path)


@pytest.mark.parametrize("codec", ["aac", "libopus", "flac", "pcm_s16le"])
def test_a_matroska_sound_with_a_flipped_byte_is_refused(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.mkv"
    data = write_sound(path, codec)
    audio.transcode_to_flac(path)
    for flipped in with_flips(data[: data.rindex(CUES)], data.rindex(CLUSTER), 12):
        path.write_bytes(flipped + data[len(flipped) :])
        with pytest.raises(MediaError, match=r"is (corrupt|truncated)"):
            audio.transcode_to_flac(path)


def live(path: Path, codec: str) -> bytes:
    """Write a Matroska file without the sizes of its segment and clusters."""
    return write_sound(path, codec, live="1", cluster_time_limit="300")


@pytest.mark.parametrize("name", ["a.webm", "a.mkv"])
def test_a_damaged_element_is_refused_without_a_checksum(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for data in (write_sound(tmp_path / "a.webm", "libopus"), live(path, "libopus")):
        path.write_bytes(data)
        audio.transcode_to_flac(path)
        # The first block stands behind the time of the cluster, and has the identifier A3.
        at = data.index(b"\xa3", data.index(b"\xe7", data.index(CLUSTER)))
        for damaged in (b"\x00", b"\x23", b"\xf0"):
            path.write_bytes(data[:at] + damaged + data[at + 1 :])
            with pytest.raises(MediaError, match=r"is corrupt: its bytes are damaged at byte \d+"):
                audio.transcode_to_flac(path)


def test_a_live_matroska_file_that_breaks_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    data = live(path, "libopus")
    for lost in (1, 7, 40):
        path.write_bytes(data[:-lost])
        with pytest.raises(MediaError, match="is truncated"):
            audio.transcode_to_flac(path)


CUT_SOUNDS = [
    ("a.mp3", "libmp3lame", {"write_xing": "0"}),
    ("a.mp3", "libmp3lame", {"write_xing": "0", "id3v2_version": "0", "write_id3v1": "1"}),
    ("a.mp2", "mp2", {}),
    ("a.aac", "aac", {}),
    ("a.avi", "libmp3lame", {}),
    ("a.avi", "pcm_s16le", {}),
    ("a.mkv", "aac", {}),
    ("a.mkv", "pcm_s16le", {}),
    ("a.webm", "libopus", {}),
    ("a.mp4", "aac", {"movflags": "faststart"}),
    ("a.mov", "pcm_s16le", {}),
    ("a.ts", "aac", {}),
    ("a.tta", "tta", {}),
    ("a.wv", "wavpack", {}),
]


@pytest.mark.parametrize(("name", "codec", "options"), CUT_SOUNDS)
def test_a_cut_sound_is_refused_in_every_format(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    path = tmp_path / name
    data = write_sound(path, codec, **options)
    audio.transcode_to_flac(path)
    for share in (0.3, 0.61, 0.9):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(MediaError, match=r"is (truncated|corrupt)|cannot be|holds no"):
            audio.transcode_to_flac(path)


def test_a_cut_wma_and_the_cut_sound_of_a_flash_video_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wma"
    with av.open(path, "w", format="asf") as container:
        stream = container.add_stream("wmav2", rate=16000, layout="mono", bit_rate=32000)
        frame = av.AudioFrame.from_ndarray(noise().astype(np.float32)[None], "fltp", "mono")
        frame.sample_rate = 16000
        resampler = av.AudioResampler("fltp", "mono", 16000, frame_size=512)
        for part in (*resampler.resample(frame), *resampler.resample(None), None):
            container.mux(stream.encode(part))
    flash = make_clip("1001_DFA_ANG_XX").flv
    for data in (path.read_bytes(), flash):
        path.write_bytes(data)
        audio.transcode_to_flac(path)
        path.write_bytes(data[: 2 * len(data) // 3])
        with pytest.raises(MediaError, match="is truncated"):
            audio.transcode_to_flac(path)
    # The file ends within the header of a tag.
    path.write_bytes(flash + b"\x08\x00\x01")
    with pytest.raises(MediaError, match="is truncated"):
        audio.transcode_to_flac(path)


@pytest.mark.parametrize("tail", [b"TAG".ljust(128, b"\0"), b"APETAGEX" + bytes(24), bytes(500)])
@pytest.mark.parametrize(("name", "codec"), [("a.mp3", "libmp3lame"), ("a.aac", "aac")])
def test_a_tag_or_filling_behind_the_last_frame_is_no_cut(
    tmp_path: Path, name: str, codec: str, tail: bytes
) -> None:
    path = tmp_path / name
    data = write_sound(path, codec)
    count = len(sounds.transcode(path)[0])
    path.write_bytes(data + tail)
    assert len(sounds.transcode(path)[0]) == count
    # Programs join files without a look at the tags in the middle.
    path.write_bytes(data + tail + data)
    assert len(sounds.transcode(path)[0]) >= count


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mpeg4")])
def test_a_video_that_lost_its_last_bytes_is_refused(tmp_path: Path, name: str, codec: str) -> None:
    path = tmp_path / name
    whole = write_video(path, codec)
    if name == "a.mp4":
        # FFmpeg writes the box of facts in front of the pictures only if asked.
        with (
            av.open(path) as source,
            av.open(tmp_path / "fast.mp4", "w", options={"movflags": "faststart"}) as target,
        ):
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(source.streams.video[0]):
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
        whole = (tmp_path / "fast.mp4").read_bytes()
    end = whole.rindex(b"idx1") if name == "a.avi" else len(whole)
    path.write_bytes(whole)
    read_video(path)
    path.write_bytes(whole[: end - 20])
    with pytest.raises(MediaError, match=r"is truncated: \d+ of the \d+ bytes"):
        read_video(path)


def test_a_damaged_picture_of_mjpeg_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    data = write_video(path, "mjpeg", pixels="yuvj420p")
    read_video(path)
    with av.open(path) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
    at = packets[25].pos + 8 + packets[25].size - 200
    path.write_bytes(data[:at] + b"\x91" * 100 + data[at + 100 :])
    with pytest.raises(MediaError, match=r"is corrupt: 25 of its 60 frames can be decoded"):
        read_video(path)


def test_a_damaged_frame_before_a_wanted_frame_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    data = write_video(path, "mpeg4")
    with av.open(path) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
        # The frame 26 is not wanted, and the key frames are 0, 12, 24, 36 and 48.
        place, size = packets[26].pos, packets[26].size
    for skipped in (10, 20):
        start = place + 8 + skipped
        path.write_bytes(data[:start] + b"\xa5" * (size - skipped - 8) + data[place + size :])
        with pytest.raises(MediaError, match=r"cannot be decoded|is corrupt"):
            read_video(path)


@pytest.mark.parametrize(("kind", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", None)])
def test_a_wrong_checksum_in_a_sound_file_is_refused(
    tmp_path: Path, kind: str, subtype: str | None
) -> None:
    path = tmp_path / "sound"
    soundfile.write(path, noise(), 16000, subtype, format=kind)
    data = path.read_bytes()
    assert len(sounds.transcode(path)[0]) == 32000
    for flipped in with_flips(data, len(data) // 4, 15):
        path.write_bytes(flipped)
        with pytest.raises(MediaError, match=r"is (corrupt|truncated)"):
            audio.transcode_to_flac(path)


@pytest.mark.parametrize(("name", "codec"), [("a.tta", "tta"), ("a.wv", "wavpack")])
def test_a_wrong_checksum_in_a_packet_is_refused(tmp_path: Path, name: str, codec: str) -> None:
    path = tmp_path / name
    data = write_sound(path, codec)
    for flipped in with_flips(data, len(data) // 2, 10):
        path.write_bytes(flipped)
        with pytest.raises(MediaError):
            audio.transcode_to_flac(path)


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_digest_of_a_whole_flac_is_right(tmp_path: Path, subtype: str, channels: int) -> None:
    path = tmp_path / "sound.flac"
    soundfile.write(path, np.tile(noise()[:, None], channels), 16000, subtype, format="FLAC")
    samples, _ = sounds.transcode(path)
    assert np.array_equal(samples, soundfile.read(path)[0])
    data = path.read_bytes()
    path.write_bytes(data[:26] + bytes(16) + data[42:])
    assert np.array_equal(sounds.transcode(path)[0], samples)
    path.write_bytes(data[:26] + b"x" * 16 + data[42:])
    with pytest.raises(MediaError, match="do not have the checksum of its header"):
        audio.transcode_to_flac(path)


def test_a_tag_in_front_of_a_flac_hides_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "sound.flac"
    soundfile.write(path, noise(), 16000)
    data = path.read_bytes()
    tag = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)
    path.write_bytes(tag + data)
    assert np.array_equal(sounds.transcode(path)[0], soundfile.read(BytesIO(data))[0])
    for damaged in (data[: len(data) // 2], *with_flips(data, len(data) // 4, 5)):
        path.write_bytes(tag + damaged)
        with pytest.raises(MediaError, match=r"is (corrupt|truncated)"):
            audio.transcode_to_flac(path)


def picture(*options: int, kind: str = ".jpg", grey: bool = False) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    pixels = cv2.GaussianBlur(pixels, (0, 0), 3)
    return bytes(cv2.imencode(kind, pixels[..., 0] if grey else pixels, options)[1])


JPEGS: list[Callable[[], bytes]] = [
    picture,
    lambda: picture(grey=True),
    lambda: picture(cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    lambda: picture(cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
]


@pytest.mark.parametrize("make", JPEGS)
def test_a_jpeg_that_is_cut_or_damaged_is_refused(make: Callable[[], bytes]) -> None:
    data = make()
    assert np.array_equal(image.decode_whole_image(data), image.decode_image(data))
    for end in (len(data) // 2, len(data) - 40, len(data) - 1):
        with pytest.raises(MediaError, match=r"truncated|corrupt|can(not)? be decoded"):
            image.decode_whole_image(data[:end])
    # A thumbnail in front of the picture has an end of its own.
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 6 + len(data)) + b"Exif\0\0" + data
    both = data[:2] + thumbnail + data[2:]
    assert np.array_equal(image.decode_whole_image(both), image.decode_image(data))
    with pytest.raises(MediaError, match=r"truncated|corrupt|can(not)? be decoded"):
        image.decode_whole_image(both[: -len(data) // 4])
    hole = len(data) // 2
    with pytest.raises(MediaError, match=r"is corrupt: |can(not)? be decoded"):
        image.decode_whole_image(data[:hole] + bytes(100) + data[hole + 100 :])


def test_a_png_with_a_flipped_byte_is_refused() -> None:
    data = picture(kind=".png")
    image.decode_whole_image(data)
    pixels = data[: data.rindex(b"IEND")]
    for flipped in with_flips(pixels, data.index(b"IDAT"), 20):
        with pytest.raises(MediaError, match=r"can(not)? be decoded"):
            image.decode_whole_image(flipped + data[len(pixels) :])


@pytest.mark.parametrize("kind", [".bmp", ".webp", ".gif", ".tiff"])
def test_an_image_of_another_kind_is_refused(kind: str) -> None:
    with pytest.raises(MediaError, match="is neither a JPEG nor a PNG image"):
        image.decode_whole_image(picture(kind=kind))


def test_a_constant_voltage_is_no_sound(tmp_path: Path) -> None:
    offset = np.full(16000, 0.2)
    soundfile.write(tmp_path / "a.wav", offset, 16000, "PCM_16")
    soundfile.write(tmp_path / "b.wav", np.stack([offset, -offset / 2], 1), 16000, "FLOAT")
    sounds.encode(tmp_path / "c.m4a", "aac", offset, 16000)
    sounds.encode(tmp_path / "d.mp3", "libmp3lame", offset, 16000)
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(MediaError, match="is silent: all its samples are close to"):
            audio.transcode_to_flac(path)
    # A recording with an offset, and a short noise in digital silence, are sounds.
    soundfile.write(tmp_path / "a.wav", offset + sounds.tone() / 100, 16000, "PCM_16")
    soundfile.write(tmp_path / "b.wav", np.r_[noise()[:500], np.zeros(15500)], 16000, "PCM_16")
    for name in ("a.wav", "b.wav"):
        assert len(soundfile.read(BytesIO(audio.transcode_to_flac(tmp_path / name)[0]))[0]) == 16000
