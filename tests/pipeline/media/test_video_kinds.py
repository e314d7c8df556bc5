"""Kinds of videos that decoders read wrongly, each in several containers and codecs."""

import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avsnn.pipeline.media import video
from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.frames import Frame
from tests.pipeline.media.test_cases import read_corners, read_number

# Times of frames are whole ms.
MS = Fraction(1, 1000)

# Display matrices of MP4 (rows a b, c d), and the corners of the shown picture.
MATRICES = [
    ((1, 0, 0, 1), "RGBY"),
    ((-1, 0, 0, 1), "GRYB"),
    ((1, 0, 0, -1), "BYRG"),
    ((-1, 0, 0, -1), "YBGR"),
    ((0, 1, -1, 0), "BRYG"),
    ((0, -1, 1, 0), "GYRB"),
    ((0, 1, 1, 0), "RBGY"),
    ((0, -1, -1, 0), "YGBR"),
]


def draw(number: int, width: int, height: int) -> Frame:
    """Draw a number as 8 bars, and a colour in each corner: R, G, B and Y."""
    frame = np.full((height, width, 3), 40, np.uint8)
    frame[height // 3 : 2 * height // 3] = np.unpackbits(np.uint8(number)).repeat(width // 8)[
        None, :, None
    ] * np.uint8(220)
    third, side = height // 3, width // 3
    for rows, columns, colour in (
        (slice(0, third), slice(0, side), (230, 10, 10)),
        (slice(0, third), slice(-side, None), (10, 230, 10)),
        (slice(-third, None), slice(0, side), (10, 10, 230)),
        (slice(-third, None), slice(-side, None), (230, 230, 10)),
    ):
        frame[rows, columns] = colour
    return frame


def encode(
    path: Path,
    codec: str,
    times: Iterable[int],
    *,
    size: tuple[int, int] = (128, 96),
    pixels: str = "yuv420p",
    rate: int = 25,
    **options: str,
) -> Path:
    """Encode numbered frames; ``times`` are in ms, and the name of the file tells the container."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        is_free = (
            codec not in ("mpeg1video", "mpeg2video", "mpeg4", "flv") and path.suffix != ".avi"
        )
        stream.codec_context.time_base = MS if is_free else Fraction(1, rate)
        stream.codec_context.gop_size = 12
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(draw(number, *size), format="rgb24")
            frame = frame.reformat(format=pixels)
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(time * MS / frame.time_base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def constant(count: int, rate: int = 25) -> list[int]:
    return [i * 1000 // rate for i in range(count)]


def decode(path: Path) -> tuple[int, list[Frame]]:
    """Return number of all frames, and the frames of ``1fps``, which two runs give alike."""
    decoded, again = (video.decode_video(path, "1fps") for _ in range(2))
    assert np.array_equal(decoded.frames, again.frames)
    return decoded.total, decoded.frames


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx"),
        ("a.webm", "libvpx-vp9"),
        ("a.mp4", "libx265"),
        ("a.mpg", "mpeg1video"),
        ("a.mpg", "mpeg2video"),
        ("a.ts", "mpeg2video"),
        ("a.avi", "mpeg4"),
        ("a.avi", "mjpeg"),
        ("a.mov", "mpeg4"),
        ("a.flv", "flv"),
        ("a.flv", "libx264"),
        ("a.mkv", "ffv1"),
    ],
)
@pytest.mark.parametrize("b_frames", ["0", "2"])
def test_a_constant_rate_gives_every_25th_frame(
    tmp_path: Path, name: str, codec: str, b_frames: str
) -> None:
    has_b_frames = codec in ("libx264", "libx265", "mpeg1video", "mpeg2video", "mpeg4")
    options = {"bf": b_frames} if has_b_frames else {}
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = encode(tmp_path / name, codec, constant(76), pixels=pixels, **options)
    total, frames = decode(path)
    assert (total, [read_number(frame) for frame in frames]) == (76, [0, 25, 50, 75])
    assert [read_corners(frame) for frame in frames] == ["RGBY"] * 4
    spread = video.decode_video(path, 4)
    assert [read_number(frame) for frame in spread.frames] == [9, 28, 47, 66]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.webm", "libvpx-vp9")],
)
@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([*range(0, 1000, 40), *range(1000, 4001, 200)], [0, 25, 30, 35, 40]),
        ([*range(0, 1000, 100), *range(1000, 2001, 20)], [0, 10, 60]),
        ([0, 40, 80, 2900, 2940, 3010], [0, 2, 3, 5]),
    ],
)
def test_a_variable_rate_gives_the_frames_nearest_to_the_seconds(
    tmp_path: Path, name: str, codec: str, times: list[int], expected: list[int]
) -> None:
    total, frames = decode(encode(tmp_path / name, codec, times))
    assert (total, [read_number(frame) for frame in frames]) == (len(times), expected)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize(("matrix", "corners"), MATRICES)
@pytest.mark.parametrize("size", [(128, 96), (64, 120)])
def test_every_display_matrix_is_applied(
    tmp_path: Path,
    codec: str,
    matrix: tuple[int, int, int, int],
    corners: str,
    size: tuple[int, int],
) -> None:
    path = encode(tmp_path / "a.mp4", codec, constant(30), size=size)
    a, b, c, d = (value << 16 for value in matrix)
    data = path.read_bytes()
    # The matrix of a track starts 44 bytes after the name of the box "tkhd" (version 0).
    start = data.index(b"tkhd") + 44
    packed = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:start] + packed + data[start + 36 :])
    frames = decode(path)[1]
    assert [read_corners(frame) for frame in frames] == [corners] * 2
    width, height = size if matrix[0] else size[::-1]
    assert frames[0].shape == (height, width, 3)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.mpg", "mpeg2video")]
)
def test_interlaced_pictures_are_those_that_were_encoded(
    tmp_path: Path, name: str, codec: str
) -> None:
    path = encode(tmp_path / name, codec, constant(60), flags="+ildct+ilme", b="4000000")
    total, frames = decode(path)
    assert (total, [read_number(frame) for frame in frames]) == (60, [0, 25, 50])
    for number, frame in zip((0, 25, 50), frames, strict=True):
        assert np.abs(frame.astype(int) - draw(number, 128, 96)).mean() < 6


@pytest.mark.parametrize(
    ("codec", "pixels"),
    [("libx264", "yuv420p10le"), ("libx265", "yuv420p10le"), ("ffv1", "yuv444p10le")],
)
def test_ten_bit_pictures_are_those_that_were_encoded(
    tmp_path: Path, codec: str, pixels: str
) -> None:
    path = encode(tmp_path / "a.mkv", codec, constant(60), pixels=pixels)
    for number, frame in zip((0, 25, 50), decode(path)[1], strict=True):
        assert np.abs(frame.astype(int) - draw(number, 128, 96)).mean() < 6


@pytest.mark.parametrize("b_frames", ["0", "2"])
@pytest.mark.parametrize("first", [30, 41])
def test_an_edit_list_hides_the_frames_before_its_start(
    tmp_path: Path, b_frames: str, first: int
) -> None:
    path = encode(tmp_path / "a.mp4", "libx264", constant(80), bf=b_frames)
    data = path.read_bytes()
    at = data.index(b"elst") + 4
    _, count, _, start = struct.unpack(">IIIi", data[at : at + 16])
    assert count == 1
    with av.open(path) as container:
        ticks_per_frame = int(1 / (25 * container.streams.video[0].time_base))
    edit = struct.pack(">Ii", (80 - first) * 40, start + first * ticks_per_frame)
    path.write_bytes(data[: at + 8] + edit + data[at + 16 :])
    total, frames = decode(path)
    numbers = list(range(first, 80, 25))
    assert (total, [read_number(frame) for frame in frames]) == (80 - first, numbers)


@pytest.mark.parametrize(("name", "codec"), [("a.flv", "flv"), ("a.mp4", "mpeg4")])
def test_a_video_that_starts_between_key_frames_is_refused(
    tmp_path: Path, name: str, codec: str
) -> None:
    whole, cut = encode(tmp_path / f"whole-{name}", codec, constant(60)), tmp_path / name
    with av.open(whole) as source, av.open(cut, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for i, packet in enumerate(source.demux(source.streams.video[0])):
            if i > 4 and packet.size:
                packet.stream = stream
                target.mux(packet)
    for rule in ("1fps", 4):
        with pytest.raises(MediaError, match="starts without a key frame"):
            video.decode_video(cut, rule)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_cut_video_is_refused_in_any_container(tmp_path: Path, codec: str, share: float) -> None:
    for name in ("a.mkv", "a.avi", "a.mov"):
        path = encode(tmp_path / name, codec, constant(100))
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(MediaError, match=r"is truncated|is not a video|holds no video"):
            video.decode_video(path, "1fps", sound_seconds=4.0)


def test_a_playlist_that_names_other_files_is_not_opened(tmp_path: Path) -> None:
    encode(tmp_path / "other.mp4", "mpeg4", constant(50))
    path = tmp_path / "a.mp4"
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{tmp_path}/other.mp4\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile other.mp4\n",
    ):
        path.write_text(text)
        with pytest.raises(MediaError, match="is not a video that can be decoded"):
            video.decode_video(path, "1fps")


def test_a_path_with_a_colon_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run:1").mkdir()
    encode(tmp_path / "run:1" / "a.mp4", "mpeg4", constant(50))
    monkeypatch.chdir(tmp_path)
    assert video.decode_video(Path("run:1/a.mp4"), "1fps").total == 50


@pytest.mark.parametrize(("codec", "name"), [("libx264", "a.h264"), ("mpeg1video", "a.mpg")])
def test_a_video_that_changes_its_size_is_refused(tmp_path: Path, codec: str, name: str) -> None:
    small = encode(tmp_path / f"small-{name}", codec, constant(50)).read_bytes()
    large = encode(tmp_path / f"large-{name}", codec, constant(50), size=(192, 144)).read_bytes()
    (tmp_path / name).write_bytes(small + large)
    with pytest.raises(MediaError, match="size of its frames: 128 x 96 px, 192 x 144 px"):
        video.decode_video(tmp_path / name, "1fps")
