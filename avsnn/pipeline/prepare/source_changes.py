"""How a file of the source folder differs from what fetch has recorded of the file."""

from pathlib import Path

from avsnn.datasets_manifest.clips import composed
from avsnn.pipeline.engine.atomic_files import Output, sha256
from avsnn.pipeline.engine.journal import Record
from avsnn.pipeline.transfer.local_files import MISSING, UNREADABLE


def was_not_read(record: Record) -> bool:
    """Return whether a file was not in the source folder, or could not be read there."""
    return any(failure.reason.startswith((MISSING, UNREADABLE)) for failure in record.failures)


def differs(published: Path, copy: Output, path: str) -> bool:
    """Return whether a file of the source folder is there, and is not the one that was brought.

    Only a file with another time or another size is read. An archive, which has another name than
    the copy of the file inside, is another one if its time is another one.

    Args:
        published: the file in the source folder.
        copy: the copy, as recorded.
        path: path of the copy, below the folder of the copies.
    """
    try:
        stat = published.stat()
        if composed(published.name) != composed(path.rpartition("/")[2]):
            return stat.st_mtime_ns != copy.mtime_ns
        if (stat.st_size, stat.st_mtime_ns) == (copy.size, copy.mtime_ns):
            return False
        return stat.st_size != copy.size or sha256(published) != copy.sha256
    except OSError:
        return False
