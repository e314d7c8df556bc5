"""Decoders: files in, arrays out, and one sentence where a file cannot be used."""

from pathlib import Path

LFS_POINTER = b"version https://git-lfs"


class MediaError(Exception):
    """A file that cannot be used; the message is the reason that its failure is recorded with."""


def refuse_stub(path: Path) -> bytes:
    """The first bytes of a file that has some of its own.

    Raises:
        MediaError: it is empty, or a Git LFS pointer.
    """
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
    if not start:
        raise MediaError("is empty")
    if start == LFS_POINTER:
        raise MediaError("is a Git LFS pointer, not the file itself")
    return start
