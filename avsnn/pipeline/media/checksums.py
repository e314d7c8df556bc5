"""Checksums that sound files hold: of every page of Ogg, and of all samples of FLAC.

Decoders skip a damaged page, and give a damaged block of FLAC as silence, without an error.
"""

import hashlib
import zlib
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.mapped_file import map_file
from avsnn.pipeline.media.mpeg_frames import end_of_tags

# The first bytes of a page of Ogg, the length of the header of a page without the table of
# segments, and the flag of a stream's last page.
OGG_PAGE, OGG_HEADER, END_OF_STREAM = b"OggS", 27, 4

# Ogg computes its checksum from the highest bit of a byte, and zlib from the lowest bit.
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))

FLAC_SIGNATURE = b"fLaC"

# Number of samples whose MD5 is computed at a time, so that no copy of all samples is needed.
SAMPLES_PER_BLOCK = 2**18


def require_whole_ogg(path: Path) -> None:
    """Refuse an Ogg file that is cut, or that has a damaged page.

    Raises:
        MediaError: the last page is cut or is not marked as the end of its stream, bytes between
            pages are no page, or a checksum is wrong.
    """
    with map_file(path) as data:
        at, is_end = 0, False
        while data[at : at + 4] == OGG_PAGE:
            segments = data[at + OGG_HEADER : at + OGG_HEADER + _byte(data, at + 26)]
            end = at + OGG_HEADER + len(segments) + sum(segments)
            if len(segments) < _byte(data, at + 26) or end > len(data):
                is_end = False
                break
            page = data[at:end]
            if _ogg_checksum(page) != int.from_bytes(page[22:26], "little"):
                raise MediaError(f"is corrupt: the checksum of its page at byte {at} is wrong")
            is_end = bool(page[5] & END_OF_STREAM)
            at = end
        if data.find(OGG_PAGE, at + 1) >= 0:
            raise MediaError(f"is corrupt: its bytes are damaged at byte {at}")
    if not is_end:
        raise MediaError("is truncated: its last page is not the end of its stream")


def require_flac_digest(path: Path, samples: NDArray[Any]) -> None:
    """Refuse samples whose MD5 is not the MD5 in the header of their FLAC file.

    Args:
        path: the file; files of other formats, and files without an MD5, pass.
        samples: all samples of the file ``[n, channels]``, int16 or int32, of full scale.

    Raises:
        MediaError: the samples are not the samples that were encoded.
    """
    with path.open("rb") as file:
        start = end_of_tags(file.read(10))
        file.seek(start)
        head = file.read(42)
    digest = head[26:42]
    if not head.startswith(FLAC_SIGNATURE) or not any(digest) or samples.dtype.kind != "i":
        return
    bits = (int.from_bytes(head[20:22]) >> 4 & 31) + 1
    found = hashlib.md5(usedforsecurity=False)
    for start in range(0, len(samples), SAMPLES_PER_BLOCK):
        block = samples[start : start + SAMPLES_PER_BLOCK]
        values = block.astype("<i4") >> 8 * samples.dtype.itemsize - bits
        # The MD5 is of the samples as little-endian integers of whole bytes.
        as_bytes = values.view(np.uint8).reshape(*values.shape, 4)
        found.update(as_bytes[..., : -(-bits // 8)].tobytes())
    if found.digest() != digest:
        raise MediaError("is corrupt: its samples do not have the checksum of its header")


def _byte(data: mmap, at: int) -> int:
    return data[at] if at < len(data) else 0


def _ogg_checksum(page: bytes) -> int:
    """Return the CRC-32 of a page as Ogg computes the CRC-32."""
    # The checksum counts its own four bytes as zeros.
    blank = page[:22] + bytes(4) + page[26:]
    # zlib inverts all bits before and after, and Ogg does not.
    checksum = zlib.crc32(blank.translate(REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{checksum:032b}"[::-1], 2)
