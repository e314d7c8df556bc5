"""Opens files of any container with PyAV, which is FFmpeg."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.container import InputContainer

# The containers that FFmpeg may open. Playlists (hls, dash, concat) are not in the list, because a
# playlist makes FFmpeg open other files and addresses.
FORMATS = (
    *("mov", "matroska", "flv", "avi", "mpeg", "mpegts", "asf", "ogg", "mxf", "dv", "nut", "rm"),
    *("wav", "w64", "aiff", "au", "caf", "flac", "mp3", "aac", "ac3", "eac3", "amr", "wv", "ape"),
    *("m4v", "mpegvideo", "h264", "hevc", "ivf", "gif", "mjpeg", "yuv4mpegpipe", "tta", "gsm"),
)


@contextmanager
def open_container(path: Path) -> Iterator["InputContainer"]:
    """Open a media file.

    PyAV reads through a file object of Python, so an error of the file system stays an `OSError`
    of Python, and no character of the path means anything to FFmpeg.

    Raises:
        av.FFmpegError: FFmpeg cannot open the file, or cannot decode what the caller asks for.
    """
    import av

    options = {"format_whitelist": ",".join(FORMATS)}
    with (
        path.open("rb") as file,
        av.open(file, "r", options=options, metadata_errors="replace") as container,
    ):
        yield container
