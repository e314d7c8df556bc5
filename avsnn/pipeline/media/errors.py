"""The error of every decoder, and the check that every reader of a file makes first."""

from pathlib import Path

from avsnn.pipeline.transfer.lfs_pointer import LFS_POINTER


class MediaError(Exception):
    """A file that cannot be used; the message is the recorded reason of the failure."""


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
