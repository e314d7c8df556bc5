"""Files as memory: reads a few bytes in many places of a file without a copy of the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from mmap import MAP_PRIVATE, PROT_READ, mmap
from pathlib import Path


@contextmanager
def map_file(path: Path) -> Iterator[mmap]:
    """Map a file that is not empty, for reading.

    If the disk fails while mapped bytes are read, the kernel ends the process with SIGBUS; the
    sandbox tells such an end from a crash of a decoder.
    """
    # The map is private, because some network file systems allow no shared map.
    with path.open("rb") as file, mmap(file.fileno(), 0, MAP_PRIVATE, PROT_READ) as data:
        yield data
