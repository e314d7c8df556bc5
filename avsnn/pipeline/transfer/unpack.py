"""Unpacks an archive that holds a single file: a zip or a gzip."""

import gzip
import zipfile
from pathlib import Path
from typing import IO

from avsnn.pipeline.transfer.errors import TransferError, words_on_damage

# An archive whose file is larger than this number of times the archive is a trap: spikes and events
# shrink to about a third.
MAX_RATIO = 100

BLOCK_BYTES = 2**20


def unpack_one_file(archive: Path, target: Path) -> None:
    """Write the only file of an archive to ``target``. The name in the archive names no path.

    Args:
        archive: a zip or a gzip.
        target: where the file goes.

    Raises:
        TransferError: the archive is damaged, holds more or fewer than one file, is encrypted, or
            holds a file that is more than 100 times as large as the archive.
        OSError: the disk fails.
    """
    limit = MAX_RATIO * archive.stat().st_size
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as files, files.open(_only_file(files)) as packed:
                _copy(packed, target, limit)
        else:
            with gzip.open(archive) as packed:
                _copy(packed, target, limit)
    except TransferError:
        raise
    except Exception as error:
        raise TransferError(f"cannot be unpacked: {words_on_damage(error)}") from None


def _only_file(files: zipfile.ZipFile) -> zipfile.ZipInfo:
    found = [
        info
        for info in files.infolist()
        # macOS puts hidden copies of attributes into this folder.
        if not info.is_dir() and not info.filename.startswith("__MACOSX/")
    ]
    if len(found) != 1:
        raise TransferError(f"holds {len(found)} files where one is expected")
    return found[0]


def _copy(packed: IO[bytes] | gzip.GzipFile, target: Path, limit: int) -> None:
    size = 0
    with target.open("wb") as file:
        while block := packed.read(BLOCK_BYTES):
            size += len(block)
            if size > limit:
                raise TransferError(
                    f"holds a file that is more than {MAX_RATIO} times as large as the archive"
                )
            file.write(block)
