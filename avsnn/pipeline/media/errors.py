"""The error of every decoder, and what every decoder checks before the decoder takes memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avsnn.pipeline.transfer.errors import FALSE_PLACE_ERRNOS, words_on_damage
from avsnn.pipeline.transfer.lfs_pointer import LFS_POINTER

# A picture above this size is a false header or no picture of a clip; the size is in px.
MAX_PIXELS = 100_000_000


class MediaError(Exception):
    """A file that cannot be used; the message is the recorded reason of the failure."""


class NoSoundError(MediaError):
    """A file without a sound that anybody could hear: no sound at all, no samples, or silence."""


def require_content(path: Path) -> bytes:
    """Return the first bytes of a media file.

    Raises:
        MediaError: the file is empty, or a Git LFS pointer.
    """
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
    if not start:
        raise MediaError("is empty")
    if start == LFS_POINTER:
        raise MediaError("is a Git LFS pointer, not the file itself")
    return start


def require_plausible_size(width: int, height: int) -> None:
    """Refuse a picture whose header declares more than 100 megapixels.

    Raises:
        MediaError: the picture is too large.
    """
    if width * height > MAX_PIXELS:
        limit = f"the limit is {MAX_PIXELS // 10**6} megapixels"
        raise MediaError(f"declares {width:,} x {height:,} px, and {limit}")


@contextmanager
def failures_of(file: str) -> Iterator[None]:
    """Turn every error that the content of a file causes into a `MediaError` that names the file.

    An error of the machine passes unchanged, because such an error says nothing about the clip: the
    unit stays undone, and the next run does the unit.

    Args:
        file: kind and path of the file, for instance ``"video VideoFlash/1001_DFA_ANG_XX.flv"``.

    Raises:
        MediaError: a decoder raised any error of its own.
        OSError: the file system failed, for instance because a disk or the network fails, because
            the file is gone, or because the process has too many open files.
    """
    try:
        yield
    except MediaError as error:
        raise MediaError(f"{file} {error}") from None
    except Exception as error:
        if _is_of_machine(error):
            raise
        # A decoder that meets a damaged file may raise any error, such as ValueError, MemoryError,
        # SystemError or cv2.error.
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise MediaError(f"{file} cannot be decoded: {words[:300]}") from error


@contextmanager
def damage_is_one_phrase(start: str) -> Iterator[None]:
    """Turn every error that damaged content causes into a `MediaError` of one line.

    Args:
        start: how the phrase begins, for instance ``"cannot be read as HDF5"``.

    Raises:
        MediaError: the content is damaged.
        OSError: the file system failed.
    """
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        raise MediaError(f"{start}: {words_on_damage(error)}") from None


def _is_of_machine(error: Exception) -> bool:
    """Return whether the machine caused the error, and not the content of a file."""
    import av

    # FFmpeg uses error numbers of the file system for damaged content, too. PyAV reads through a
    # file of Python, so a real error of the file system is no error of FFmpeg.
    if not isinstance(error, OSError) or isinstance(error, av.FFmpegError):
        return False
    return error.errno not in FALSE_PLACE_ERRNOS
