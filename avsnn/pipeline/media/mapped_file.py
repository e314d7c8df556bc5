"""Files as memory: reads a few bytes in many places of a file without a copy of the file."""

import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def map_file(path: Path) -> Iterator[mmap.mmap]:
    """Map a file that is not empty, for reading.

    If the disk fails while mapped bytes are read, the kernel ends the process with SIGBUS; the
    sandbox tells such an end from a crash of a decoder.
    """
    with path.open("rb") as file, _map(file.fileno()) as data:
        yield data


def _map(descriptor: int) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    # The map is private, because some network file systems allow no shared map.
    return mmap.mmap(descriptor, 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
