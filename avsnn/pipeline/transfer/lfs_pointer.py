"""A Git LFS pointer: the small text file that stands where git has not brought the file itself."""

from pathlib import Path

from upath import UPath

# The first bytes of every Git LFS pointer.
LFS_POINTER = b"version https://git-lfs"

# A Git LFS pointer is smaller than this number of bytes.
POINTER_BYTES = 1024


def is_lfs_pointer(path: Path | UPath) -> bool:
    """Return whether a file is a Git LFS pointer, by the first bytes of the file."""
    with path.open("rb") as file:
        return bool(file.read(len(LFS_POINTER)) == LFS_POINTER)
