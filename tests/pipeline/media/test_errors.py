"""What is an error of the machine, and what is a failure of the clip."""

import errno
import io
import os
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import pytest
import soundfile

from avsnn.pipeline.media import audio, sandbox, video
from avsnn.pipeline.media.errors import MediaError, failures_of
from tests.pipeline.media import test_sound_kinds as sounds
from tests.pipeline.media import test_video_kinds as videos


class _FailingFile(io.FileIO):
    """A file whose disk fails in the second half of the file."""

    def read(self, size: int | None = -1) -> bytes | None:
        if self.tell() + max(0, size or 0) > os.fstat(self.fileno()).st_size // 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size)


class _FailingPath(type(Path())):  # type: ignore[misc] - the class depends on the system
    """A path of such a file."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        return _FailingFile(self)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let the process open no further file."""
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_too_many_open_files_are_no_failure_of_the_clip(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sounds.tone(), 16000)
    sounds.encode(tmp_path / "a.mkv", "aac", sounds.tone(), 16000)
    path = videos.encode(tmp_path / "a.mp4", "libx264", videos.constant(30))
    for sound in (tmp_path / "a.wav", tmp_path / "a.mkv"):
        audio.transcode_to_flac(sound)
        many = pytest.raises(OSError, match="Too many open files")
        with many, failures_of("it"), no_descriptors():
            audio.transcode_to_flac(sound)
    video.decode_video(path, "1fps")
    with pytest.raises(OSError, match="Too many open files"), failures_of("it"), no_descriptors():
        video.decode_video(path, "1fps")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that gives EIO")
def test_a_disk_that_cannot_be_read_is_no_failure_of_the_clip(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/proc/self/mem")
    for read in (audio.transcode_to_flac, lambda path: video.decode_video(path, "1fps")):
        with pytest.raises(OSError, match="Input/output error"), failures_of("it"):
            read(tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "aac"), ("a.mpg", "mp2"), ("a.ts", "aac"), ("a.mp3", "libmp3lame")],
)
def test_a_disk_that_fails_in_the_middle_is_no_end_of_the_file(
    tmp_path: Path, name: str, codec: str
) -> None:
    options = {"movflags": "faststart"} if name == "a.mp4" else {"write_xing": "0"}
    signal = sounds.tone(64_000)
    path = _FailingPath(sounds.encode(tmp_path / name, codec, signal, 16000, **options))
    with pytest.raises(OSError, match="Input/output error"), failures_of("it"):
        audio.transcode_to_flac(path)


def test_the_mapped_file_of_a_failing_disk_is_no_failure_of_the_clip(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(9000))
    with pytest.raises(OSError, match="a file could not be read while") as caught:
        sandbox.call(read_what_is_gone, tmp_path / "a")
    assert caught.value.errno == errno.EIO
    assert sandbox.call(len, b"four") == 4


def read_what_is_gone(path: Path) -> bytes:
    """Read a mapped page that is no longer there; the kernel ends such a process."""
    import mmap

    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        file.truncate(0)
        return data[8000:8001]


def test_an_error_passes_through_the_sandbox_with_its_number(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        sandbox.call(audio.transcode_to_flac, tmp_path / "gone")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, str(tmp_path / "gone"))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        SystemError("x"),
        MemoryError("x"),
        OverflowError("x"),
        OSError(errno.EINVAL, "x"),
        av.error.PermissionError(errno.EACCES, "x"),
        av.error.OSError(errno.EIO, "x"),
    ],
)
def test_what_a_decoder_raises_is_a_failure_of_the_clip(error: Exception) -> None:
    with pytest.raises(MediaError, match="it cannot be decoded: "), failures_of("it"):
        raise error


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT]
)
def test_what_the_machine_raises_is_no_failure_of_the_clip(number: int) -> None:
    with pytest.raises(OSError, match="x") as caught, failures_of("it"):
        raise OSError(number, "x")
    assert caught.value.errno == number


@pytest.mark.parametrize("size", [2**60, 2**62, 2**63 - 100])
def test_a_false_size_is_a_failure_of_the_clip(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.caf"
    soundfile.write(path, sounds.tone(), 16000, "PCM_16", format="CAF")
    data = path.read_bytes()
    path.write_bytes(data[:8] + b"free" + struct.pack(">q", size) + data[8:])
    with pytest.raises(MediaError), failures_of("it"):
        audio.transcode_to_flac(path)
    sounds.encode(tmp_path / "a.mp4", "aac", sounds.tone(), 16000)
    data = (tmp_path / "a.mp4").read_bytes()
    at = data.index(b"mdat") - 4
    long = struct.pack(">I4sQ", 1, b"mdat", size)
    (tmp_path / "a.mp4").write_bytes(data[:at] + long + data[at + 8 :])
    with pytest.raises(MediaError, match="is truncated"), failures_of("it"):
        audio.transcode_to_flac(tmp_path / "a.mp4")
